"""Evidence against finding masks: which true positives count, what a hit is, and distances."""

import json
from pathlib import Path

import nrrd
import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from bundle.ctfindings.evaluation.evaluated_model import LOCALIZED
from bundle.ctfindings.evaluation.evidence_hits import evidence_distance, evidence_record
from bundle.ctfindings.findings import FINDING_NAMES, finding_index
from tests.evaluation.test_calibrate import made_up_scores

C = len(FINDING_NAMES)
EFFUSION = finding_index("Pleural effusion")

# Voxels of 2 x 3 x 5 mm with the first axis running to the patient's right; voxel (0, 0, 0) lies at (100, -50, 30) mm.
AFFINE = np.array([[-2.0, 0, 0, 100], [0, 3, 0, -50], [0, 0, 5, 30], [0, 0, 0, 1]])


def test_evidence_counts_true_positives_with_a_mask(tmp_path: Path) -> None:
    """A 2 mm grid with the effusion in voxel (5, 5, 5), at 10 mm: hit at 0 mm, miss at 30 mm, then two that do not
    count.
    """
    bits = np.zeros((12, 12, 12), dtype=np.int32)
    bits[5, 5, 5] = 1 << EFFUSION
    header = {"space": "RAS", "space directions": 2 * np.eye(3), "space origin": np.zeros(3)}
    nrrd.write(str(tmp_path / "bits.nrrd"), bits, header, index_order="F")
    studies = [{"finding_masks": str(tmp_path / "bits.nrrd")}] * 3 + [{}]
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


def mask_of(*voxels: tuple[int, int, int], bit: int) -> np.ndarray:
    mask = np.zeros((12, 10, 8), dtype=np.int32)
    for voxel in voxels:
        mask[voxel] |= 1 << bit
    return mask


def world(voxel: tuple[float, float, float]) -> np.ndarray:
    return AFFINE[:3, :3] @ np.asarray(voxel) + AFFINE[:3, 3]


def test_distance_is_in_millimetres_of_the_world_not_in_voxels() -> None:
    mask = mask_of((2, 2, 2), bit=9)
    assert evidence_distance(world((5, 2, 2)), mask, 9, AFFINE) == pytest.approx(6)
    assert evidence_distance(world((2, 5, 2)), mask, 9, AFFINE) == pytest.approx(9)
    assert evidence_distance(world((2, 2, 5)), mask, 9, AFFINE) == pytest.approx(15)
    assert evidence_distance([96, -44, 40], mask, 9, AFFINE) == 0


def test_a_peak_anywhere_in_a_mask_voxel_is_inside() -> None:
    mask = mask_of((2, 2, 2), bit=0)
    assert evidence_distance(world((2.4, 1.6, 2.4)), mask, 0, AFFINE) == 0
    assert evidence_distance(world((2.6, 2, 2)), mask, 0, AFFINE) == pytest.approx(1.2)


def test_only_the_bit_of_the_finding_counts() -> None:
    mask = mask_of((2, 2, 2), bit=17) | mask_of((9, 9, 7), (2, 2, 2), bit=3)
    assert evidence_distance(world((9, 9, 7)), mask, 3, AFFINE) == 0
    assert evidence_distance(world((9, 2, 2)), mask, 17, AFFINE) == pytest.approx(14)
    assert np.isnan(evidence_distance(world((9, 9, 7)), mask, 4, AFFINE))


def test_distances_agree_with_the_distance_transform() -> None:
    random = np.random.default_rng(0)
    mask = (random.random((12, 10, 8)) < 0.01).astype(np.int32) << 5
    expected = distance_transform_edt(mask == 0, sampling=(2, 3, 5))
    for voxel in random.integers(0, (12, 10, 8), (20, 3)):
        assert evidence_distance(world(tuple(voxel)), mask, 5, AFFINE) == pytest.approx(expected[tuple(voxel)])
