"""What a batch means to the engines, for the objectives on reports and slice references."""

from typing import Any

import torch

from bundle.ctfindings.data.batches import prepare_batch, prepare_image_batch, prepare_report_batch
from bundle.ctfindings.data.loaders import collate_studies
from bundle.ctfindings.data.study_record import text_id


def studies() -> list[dict[str, Any]]:
    geometry = {
        "image": torch.zeros(1, 4, 4, 4),
        "labels": torch.zeros(18),
        "image_affine": torch.eye(4, dtype=torch.float64),
    }
    snippets = [{"text": "a nodule", "z_mm": 3.0}, {"text": "never resolved", "z_mm": None}]
    return [
        {**geometry, "report": {"findings": "F.", "impression": "I."}, "snippets": snippets},
        {**geometry, "report": None},
        {**geometry, "snippets": []},
    ]


def test_reports_and_their_identity_reach_network_and_losses() -> None:
    _, targets, _, inputs = prepare_report_batch(collate_studies(studies()))
    assert inputs["reports"] == ["F. I.", "", ""]
    assert targets["report_id"].tolist() == [text_id("F. I."), text_id(""), text_id("")]


def test_snippets_come_with_the_affine_and_those_without_a_place_stay_behind() -> None:
    _, _, _, inputs = prepare_report_batch(collate_studies(studies()))
    assert inputs["snippets"] == [[{"text": "a nodule", "z_mm": 3.0}], [], []]
    assert inputs["affine"].shape == (3, 4, 4)


def test_reports_are_encoded_only_for_objectives_that_read_them() -> None:
    batch = collate_studies(studies())
    assert "reports" not in prepare_batch(batch)[3]
    assert len(prepare_image_batch(batch)) == 2


def test_a_batch_without_reports_and_geometry_is_none_the_worse() -> None:
    plain = [{"image": torch.zeros(1, 4, 4, 4), "labels": torch.zeros(18)}]
    _, targets, _, inputs = prepare_report_batch(collate_studies(plain))
    assert inputs == {} and set(targets) == {"labels"}
