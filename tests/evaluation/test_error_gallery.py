"""Which errors are shown, and where."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from bundle.ctfindings.evaluation.error_gallery import ErrorGallery, worst_errors
from bundle.ctfindings.evaluation.evaluation_run import EvaluationRun
from bundle.ctfindings.findings import FINDING_NAMES, finding_index
from bundle.ctfindings.networks.classifier import NO_THRESHOLD

C = len(FINDING_NAMES)
NODULE, EFFUSION = finding_index("Lung nodule"), finding_index("Pleural effusion")


def test_each_scan_and_each_kind_of_error_is_shown_once_the_farthest_first() -> None:
    probabilities = np.array([[0.9, 0.8], [0.7, 0.1], [0.95, 0.5], [0.2, 0.6]])
    labels = np.array([[0, 0], [0, 1], [-1, 0], [0, 0]])
    # By distance: scan 0 finding 0 (0.9), scan 1 finding 1 missed (0.9), scan 0 finding 1 (scan is shown already), scan
    # 1 finding 0 (shown already), scan 3 finding 1 (0.6), scan 2 finding 1 (0.5, the kind is shown already).
    assert worst_errors(probabilities, labels, np.array([0.5, 0.5]), 12) == [(0, 0), (1, 1), (3, 1)]
    assert worst_errors(probabilities, labels, np.array([0.5, 0.5]), 2) == [(0, 0), (1, 1)]
    assert worst_errors(probabilities, labels, np.array([0.96, 0.85]), 0) == []
    assert worst_errors(probabilities, labels, np.array([0.5, NO_THRESHOLD]), 12) == [(0, 0)]


@pytest.fixture
def run(tmp_path: Path) -> EvaluationRun:
    """A missed nodule with a mask and a false effusion, in two scans of 40 mm."""
    rng = np.random.default_rng(0)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    studies: list[dict[str, Any]] = []
    for name in ("a", "b"):
        hu = (rng.normal(-600, 300, (40, 40, 20)) + np.linspace(-300, 300, 20)).astype(np.int16)
        nib.save(nib.Nifti1Image(hu, affine), tmp_path / f"{name}.nii.gz")
        studies.append({"id": name, "image": str(tmp_path / f"{name}.nii.gz")})
    bits = np.zeros((40, 40, 20), np.int32)
    bits[9:12, 20, 7] = 1 << NODULE
    nib.save(nib.Nifti1Image(bits, affine), tmp_path / "bits.nii.gz")
    studies[0]["finding_masks"] = str(tmp_path / "bits.nii.gz")
    labels = np.full((2, C), -1)
    labels[0, NODULE], labels[1, EFFUSION] = 1, 0
    probabilities = np.zeros((2, C))
    probabilities[0, NODULE], probabilities[1, EFFUSION] = 0.05, 0.8
    peaks = np.full((2, C, 3), np.nan)
    peaks[1, EFFUSION] = 80, 40, 60
    scores = SimpleNamespace(labels=labels, ids=["a", "b"], peaks_mm=peaks)
    found = SimpleNamespace(
        split="test",
        studies={"test": studies},
        own_scores=scores,
        probabilities=probabilities,
        record={"findings": [{"threshold": 0.5}] * C},
        figures=[],
    )
    return cast(EvaluationRun, found)


def test_a_missed_finding_is_shown_at_its_mask_and_a_false_one_at_its_peak(run: EvaluationRun, tmp_path: Path) -> None:
    ErrorGallery()(run)
    missed, false = run.record["errors"]
    assert (missed["study"], missed["finding"], missed["error"], missed["z_mm"]) == ("a", "Lung nodule", "missed", 28)
    assert (false["study"], false["error"], false["probability"], false["z_mm"]) == ("b", "false alarm", 0.8, 60)
    for write in run.figures:
        write(tmp_path)
    with Image.open(tmp_path / "errors.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 30


def test_no_picture_is_made_where_none_is_wanted(run: EvaluationRun) -> None:
    ErrorGallery(0)(run)
    assert run.record["errors"] == [] and run.figures == []
