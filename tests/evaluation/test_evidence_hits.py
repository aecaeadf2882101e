"""Evidence against finding masks: which true positives count, and what a hit is."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from bundle.ctfindings.evaluation.evaluated_model import LOCALIZED
from bundle.ctfindings.evaluation.evidence_hits import evidence_record
from bundle.ctfindings.findings import FINDING_NAMES, finding_index
from tests.evaluation.test_calibrate import made_up_scores

C = len(FINDING_NAMES)
EFFUSION = finding_index("Pleural effusion")


def test_evidence_counts_true_positives_with_a_mask(tmp_path: Path) -> None:
    """A 2 mm grid with the effusion in voxel (5, 5, 5), at 10 mm: hit at 0 mm, miss at 30 mm, then two that do not
    count.
    """
    bits = np.zeros((12, 12, 12), dtype=np.int32)
    bits[5, 5, 5] = 1 << EFFUSION
    nib.save(nib.Nifti1Image(bits, np.diag([2.0, 2, 2, 1])), tmp_path / "bits.nii.gz")
    studies = [{"finding_masks": str(tmp_path / "bits.nii.gz")}] * 3 + [{}]
    labels = np.zeros((4, C), dtype=np.int64)
    labels[:, EFFUSION] = 1
    peaks = np.full((4, C, 3), np.nan)
    peaks[:, EFFUSION] = [[10, 10, 10], [10, 10, 40], [10, 10, 10], [10, 10, 10]]
    probabilities = np.zeros((4, C))
    probabilities[:, EFFUSION] = [0.9, 0.9, 0.1, 0.9]  # the third is not detected, the fourth has no mask
    random = np.full((4, C, 4, 3), 10.0)
    random[:, :, 0, 2] = 40  # one of four random places is too far
    scores = made_up_scores(labels=labels, peaks_mm=peaks, random_mm=random)
    record = evidence_record(scores, studies, probabilities, np.full(C, 0.5))
    row = next(row for row in record["findings"] if row["finding"] == "Pleural effusion")
    rates = {"hit_rate": 0.5, "random_hit_rate": 0.75}
    assert row == {"finding": "Pleural effusion", "true_positives": 2, **rates, "median_distance_mm": 15.0}
    assert (record["hit_rate"], record["random_hit_rate"], record["true_positives"]) == (0.5, 0.75, 2)
    assert len(record["findings"]) == len(LOCALIZED)

    peaks[1, EFFUSION] = np.nan
    lost = evidence_record(made_up_scores(labels=labels, peaks_mm=peaks), studies, probabilities, np.full(C, 0.5))
    assert (lost["hit_rate"], lost["true_positives"]) == (0.5, 2), "a finding without a peak is a miss"
    json.dumps(lost, allow_nan=False)
