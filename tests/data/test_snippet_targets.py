"""Snippets as targets: those with a place in their own scan, and a word about every other."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from bundle.ctfindings.data.datalist import load_datalist
from bundle.ctfindings.data.snippet_targets import SnippetTargetsd
from bundle.ctfindings.data.study_record import report_text, text_id


def image(step: float = 3.0) -> MetaTensor:
    """A resampled image whose scan had 10 slices of 3 mm from -100 mm upwards, or downwards from -73 mm."""
    affine = np.diag([2.0, 2.0, step, 1.0])
    affine[2, 3] = -100 if step > 0 else -73
    return MetaTensor(
        torch.zeros(1, 4, 4, 8),
        affine=torch.eye(4),
        meta={"original_affine": affine, "spatial_shape": np.array([6, 6, 10])},
    )


@pytest.mark.parametrize("step", [3.0, -3.0])
def test_snippets_of_the_scan_stay_and_the_others_are_counted_in_the_log(
    step: float, caplog: pytest.LogCaptureFixture
) -> None:
    snippets = [
        {"text": "a", "series": 2, "image": 1, "z_mm": -101.4},
        {"text": "b", "z_mm": -71.6},
        {"text": "c", "z_mm": -101.6},
        {"text": "d", "z_mm": 80.0},
        {"text": "e", "z_mm": None},
    ]
    with caplog.at_level(logging.WARNING):
        study = SnippetTargetsd()({"id": "s1", "image": image(step), "snippets": snippets})
    assert study["snippets"] == [{"text": "a", "z_mm": -101.4}, {"text": "b", "z_mm": -71.6}]
    assert [record.getMessage() for record in caplog.records] == [
        "a study: 1 of its snippets left out: no z_mm",
        "a study: 2 of its snippets left out: z_mm outside the scan (-102 to -72 mm)",
    ]


def test_a_study_without_snippets_passes(caplog: pytest.LogCaptureFixture) -> None:
    assert "snippets" not in SnippetTargetsd()({"image": image()})
    assert SnippetTargetsd()({"image": image(), "snippets": None})["snippets"] == []
    assert not caplog.records


@pytest.mark.parametrize(
    "snippet",
    [
        {"text": "", "z_mm": 1.0},
        {"z_mm": 1.0},
        {"text": "a", "z_mm": "12"},
        {"text": "a", "z_mm": float("nan")},
        "series 3",
    ],
)
def test_a_snippet_that_is_none_is_refused_with_its_study(snippet: Any, tmp_path: Path) -> None:
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps({"test": [{"id": "s1", "image": "a.nii.gz", "snippets": [snippet]}]}))
    with pytest.raises(ValueError, match=r"datalist\.json: snippet of study s1: expected a text"):
        load_datalist(path, "test")


def test_a_snippet_that_was_not_resolved_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "datalist.json"
    path.write_text(
        json.dumps(
            {"test": [{"id": "s1", "image": "a.nii.gz", "snippets": [{"text": "a"}, {"text": "b", "z_mm": -3}]}]}
        )
    )
    assert len(load_datalist(path, "test")[0]["snippets"]) == 2


def test_a_report_is_its_findings_and_impression() -> None:
    assert report_text({"findings": " A.\n", "impression": "B."}) == "A. B."
    assert report_text({"findings": None, "impression": "B."}) == "B."
    assert report_text(None) == report_text({}) == ""
    assert text_id("A.") == text_id("A.") != text_id("B.") and 0 <= text_id("A.") < 2**63
