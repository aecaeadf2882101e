"""A bundle folder as a service: scans encoded once, and questions answered from what is kept of them."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.ctfindings.inference.encoded_scan import EncodedScan
from bundle.ctfindings.inference.evidence import strongest_by_layer
from bundle.ctfindings.inference.output.slicer_markups import write_markups
from bundle.ctfindings.inference.service import BundlePredictor


@pytest.fixture(scope="module")
def predictor(bundle_root: Path, untrained_weights: Path) -> BundlePredictor:
    return BundlePredictor(bundle_root, untrained_weights)


@pytest.fixture(scope="module")
def scan(predictor: BundlePredictor, phantom_scan: tuple[Path, Path]) -> EncodedScan:
    return predictor.encode(phantom_scan[0], "case 1")


def test_nothing_of_the_path_is_kept(scan: EncodedScan, phantom_scan: tuple[Path, Path]) -> None:
    assert scan.scan.file == "case 1"
    assert str(phantom_scan[0].parent) not in json.dumps(scan.record.to_dict())


def test_what_is_kept_is_small(scan: EncodedScan) -> None:
    field = scan.embedding.field
    assert field.numel() * 4 <= scan.nbytes < 40e6


def test_evidence_of_a_finding_is_that_of_the_record(predictor: BundlePredictor, scan: EncodedScan) -> None:
    for finding in scan.record.findings[::5]:
        answer = predictor.finding_evidence(scan, finding.name)
        assert (answer.probability, answer.evidence) == (finding.probability, finding.evidence)
        assert max(level.score for level in answer.depth) == pytest.approx(
            finding.evidence.peak_score if finding.evidence else 0
        )


def test_a_question_is_answered_as_in_a_run_of_the_bundle(predictor: BundlePredictor, scan: EncodedScan) -> None:
    (asked,), maps = predictor.predictor.ask(scan.embedding, ["fluid around the left lung"])
    answer = predictor.query_evidence(scan, "  fluid around  the left lung ")
    assert (answer.text, answer.probability, answer.score) == (asked.text, None, asked.score)
    np.testing.assert_array_equal(answer.token_map, maps[asked.key])


@pytest.mark.parametrize(("query", "words"), [("", "empty"), ("x" * 301, "301 characters")])
def test_a_question_that_cannot_be_asked_is_refused(
    predictor: BundlePredictor, scan: EncodedScan, query: str, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        predictor.query_evidence(scan, query)


def test_an_unknown_finding_is_refused_with_the_known_ones(predictor: BundlePredictor, scan: EncodedScan) -> None:
    with pytest.raises(ValueError, match=r"'Gout' is unknown; known are .*Cardiomegaly"):
        predictor.finding_evidence(scan, "Gout")


def test_maps_are_on_the_grid_of_the_scan(
    predictor: BundlePredictor, scan: EncodedScan, phantom_scan: tuple[Path, Path], tmp_path: Path
) -> None:
    answer = predictor.finding_evidence(scan, "Cardiomegaly")
    predictor.write_evidence(tmp_path / "heat.nii.gz", scan, answer)
    predictor.write_anatomy(tmp_path / "anatomy.nii.gz", scan)
    image = nib.load(phantom_scan[0])
    for name in ("heat", "anatomy"):
        written = nib.load(tmp_path / f"{name}.nii.gz")
        assert written.shape == image.shape
        np.testing.assert_allclose(written.affine, image.affine, atol=1e-4)


def test_points_carry_name_and_probability_of_the_present_findings(scan: EncodedScan, tmp_path: Path) -> None:
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
    with pytest.raises(ValueError, match="there is no such configuration"):
        BundlePredictor(tmp_path)


def test_strongest_by_layer_is_in_mm_from_inferior_to_superior_and_leaves_padding_out() -> None:
    tokens = np.diag([10.0, 10.0, 10.0, 1.0])
    tokens[2, 3] = -20  # layers at -20, -10, 0, 10, 20 mm
    scores = np.zeros((2, 2, 5))
    scores[1, 0, 3], scores[0, 0, 0] = 0.7, 0.9
    scan = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 14], [0, 0, 0, 1]])  # 14 mm downwards to -5 mm
    assert strongest_by_layer(scores, tokens, scan, (11, 11, 20)) == [(-10.0, 0.0), (0.0, 0.0), (10.0, 0.7)]
