"""The service: scans encoded once, and queries answered from their encoding."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from bundle.ctfindings.anatomy import anatomy_index
from bundle.ctfindings.inference import service as service_module
from bundle.ctfindings.inference.assessment import Assessment
from bundle.ctfindings.inference.evidence import depth_profile
from bundle.ctfindings.inference.findings_record import DomainAnswer, QueryAnswer
from bundle.ctfindings.inference.observations import observed_statements
from bundle.ctfindings.inference.output.evidence_volume import write_evidence
from bundle.ctfindings.inference.output.slicer_markups import write_markups
from bundle.ctfindings.inference.service import AnsweredScan, FindingsService, load_service
from bundle.ctfindings.networks.text.prompts import mean_over_templates
from bundle.ctfindings.scan.coordinates import world_to_voxel


@pytest.fixture(scope="module")
def scan(service: FindingsService, phantom_scan: tuple[Path, Path]) -> AnsweredScan:
    return service.answer_file(phantom_scan[0], "case 1")


def test_nothing_of_the_path_is_kept(scan: AnsweredScan, phantom_scan: tuple[Path, Path]) -> None:
    assert scan.record.scan.file == "case 1"
    assert str(phantom_scan[0].parent) not in json.dumps(scan.record.to_dict())


def test_what_is_kept_is_small(scan: AnsweredScan) -> None:
    field = scan.encoded.embedding.field
    assert field.numel() * 4 <= scan.nbytes < 40e6


def test_evidence_of_a_finding_is_that_of_the_record(scan: AnsweredScan) -> None:
    for finding in scan.record.findings[::5]:
        answer = scan.placed[finding.name]
        assert answer.answer == finding
        depth = depth_profile(scan.encoded.evidence_map(answer), scan.encoded.regions.affine)
        assert max(level.score for level in depth) == pytest.approx(
            finding.evidence.peak_score if finding.evidence else 0
        )


def test_profile_and_jump_of_a_question_agree_whatever_slice_references_taught(
    service: FindingsService, scan: AnsweredScan, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.load()
    monkeypatch.setattr(service._text, "snippet_head_trained", torch.tensor(True))
    for text in ("nodule in the left upper lobe", "fluid around the lung", "enlarged heart"):
        answer = service.ask(scan, text).answer
        assert isinstance(answer, QueryAnswer) and answer.evidence is not None
        best = max(answer.depth, key=lambda level: level.score)
        layer = answer.depth[1].z_mm - answer.depth[0].z_mm
        assert best.score == pytest.approx(answer.evidence.peak_score)
        assert answer.z_mm == answer.evidence.z_mm and abs(best.z_mm - answer.z_mm) <= layer


def test_a_question_is_answered_as_in_a_run_of_the_bundle(
    service: FindingsService, scan: AnsweredScan, phantom_scan: tuple[Path, Path]
) -> None:
    study = service.preprocessing({"image": str(phantom_scan[0])})
    (asked,) = service.answer(study, ["fluid around the left lung"]).record.queries
    placed = service.ask(scan, "  fluid around  the left lung ")
    assert placed.answer == asked and placed.score == asked.score


def test_nonsense_has_no_score_no_place_and_no_depth(service: FindingsService, scan: AnsweredScan) -> None:
    placed = service.ask(scan, "asdf qwerty zxcv")
    answer = placed.answer
    assert isinstance(answer, QueryAnswer) and answer.text == "asdf qwerty zxcv"
    assert (answer.score, answer.percentile, answer.evidence, answer.z_mm) == (0.0, None, None, None)
    assert not placed.token_map.any() and not answer.nearest_findings and "means nothing" in answer.meaning


def test_a_query_about_a_scan_outside_the_domain_keeps_its_score_and_has_no_place(
    service: FindingsService, scan: AnsweredScan
) -> None:
    unlike = replace(scan, encoded=replace(scan.encoded, domain=DomainAnswer(3.1, 1.5, False, {})))
    placed, inside = service.ask(unlike, "fluid around the left lung"), service.ask(scan, "fluid around the left lung")
    answer = placed.answer
    assert isinstance(answer, QueryAnswer) and answer.not_assessed and answer.meaning.startswith("Not assessed: ")
    assert (answer.evidence, answer.z_mm, answer.percentile) == (None, None, None) and not placed.token_map.any()
    assert answer.score == inside.score and inside.answer.evidence is not None


def test_a_query_is_not_assessed_where_its_nearest_finding_is_not(service: FindingsService, scan: AnsweredScan) -> None:
    text = "fluid around the left lung"
    known = service.ask(scan, text).answer
    assert isinstance(known, QueryAnswer) and known.not_assessed is None
    nearest, other = (found.name for found in known.nearest_findings[:2])

    def asked_without(name: str) -> QueryAnswer:
        findings = [
            replace(answer, present=None, not_assessed="no threshold") if answer.name == name else answer
            for answer in scan.record.findings
        ]
        answer = service.ask(replace(scan, record=replace(scan.record, findings=findings)), text).answer
        assert isinstance(answer, QueryAnswer)
        return answer

    unknown = asked_without(nearest)
    assert unknown.not_assessed == f"its nearest finding, {nearest}, is not assessed"
    assert unknown.evidence is None and unknown.percentile is None
    assert asked_without(other).not_assessed is None


def test_nothing_is_stated_of_a_finding_that_is_not_assessed(
    service: FindingsService, phantom_scan: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[set[str]] = []
    monkeypatch.setattr(service_module, "observed_statements", lambda *given: asked.append(given[-1]) or [])
    service.answer_file(phantom_scan[0])
    monkeypatch.setattr(Assessment, "withholds", lambda *_: True)
    service.answer_file(phantom_scan[0])
    assert "Lung nodule" in asked[0] and asked[1] == set()


def test_an_observation_lies_where_its_query_attends(service: FindingsService, scan: AnsweredScan) -> None:
    encoded = scan.encoded
    inside = np.argwhere(encoded.regions.reached[anatomy_index("lung")])
    token = inside[len(inside) // 3]
    attention = torch.zeros(1, 1, encoded.embedding.field.shape[1])
    attention[0, 0, np.ravel_multi_index(token, encoded.embedding.grid)] = 1.0
    observing = encoded.embedding._replace(
        pathology=mean_over_templates(service.network.bank.prompts)[None, :1, 0],
        pathology_valid=torch.ones(1, 1, dtype=torch.bool),
        pathology_attention=attention,
    )
    (found,) = observed_statements(service.network, observing, encoded)
    assert found.evidence is not None
    away = world_to_voxel(found.evidence.peak_mm, encoded.token_affine) - token
    assert np.abs(away).max() <= 0.75, "within the token, or at the border of the body beside it"


def test_a_negation_is_answered_by_what_it_denies(service: FindingsService, scan: AnsweredScan) -> None:
    denied, asked = service.ask(scan, "No fluid around the left lung"), service.ask(scan, "fluid around the left lung")
    assert (denied.score, denied.answer.evidence) == (asked.score, asked.answer.evidence)
    assert denied.answer.key == "query: No fluid around the left lung"


@pytest.mark.parametrize(("query", "words"), [("", "empty"), ("x" * 301, "301 characters")])
def test_a_question_that_cannot_be_asked_is_refused(
    service: FindingsService, scan: AnsweredScan, query: str, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        service.ask(scan, query)


def test_maps_are_on_the_grid_of_the_scan(scan: AnsweredScan, phantom_scan: tuple[Path, Path], tmp_path: Path) -> None:
    write_evidence(
        tmp_path / "heat.nii.gz", [scan.encoded.evidence_map(scan.placed["Cardiomegaly"])], *scan.encoded.grids
    )
    scan.write_anatomy(tmp_path / "anatomy.nii.gz")
    image = nib.load(phantom_scan[0])
    for name in ("heat", "anatomy"):
        written = nib.load(tmp_path / f"{name}.nii.gz")
        assert written.shape == image.shape
        np.testing.assert_allclose(written.affine, image.affine, atol=1e-4)


def test_points_carry_name_and_probability_of_the_present_findings(scan: AnsweredScan, tmp_path: Path) -> None:
    write_markups(tmp_path / "points.mrk.json", scan.record)
    (markup,) = json.loads((tmp_path / "points.mrk.json").read_text())["markups"]
    present = [finding for finding in scan.record.ordered() if finding.present and finding.evidence]
    assert present and [point["label"] for point in markup["controlPoints"]] == [
        f"{f.name} {f.probability:.2f}" for f in present
    ]
    first = present[0].evidence
    assert first is not None
    x, y, z = first.peak_mm
    assert markup["controlPoints"][0]["position"] == pytest.approx([-x, -y, z])


def test_a_folder_without_a_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such configuration"):
        load_service(tmp_path)
