"""Evidence distances by hand and against SciPy's distance transform."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from bundle.ctfindings.metrics import evidence_distance, evidence_hit, evidence_hit_rate

# Voxels of 2 x 3 x 5 mm with the first axis running to the patient's right; voxel (0, 0, 0) lies at (100, -50, 30) mm.
AFFINE = np.array([[-2.0, 0, 0, 100], [0, 3, 0, -50], [0, 0, 5, 30], [0, 0, 0, 1]])


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


def test_a_hit_is_within_the_tolerance_including_its_edge() -> None:
    mask = mask_of((2, 2, 2), bit=9)
    assert evidence_hit(world((2, 2, 5)), mask, 9, AFFINE)
    assert not evidence_hit(world((2, 2, 6)), mask, 9, AFFINE)
    assert evidence_hit(world((2, 2, 6)), mask, 9, AFFINE, tolerance_mm=20)
    with pytest.raises(ValueError, match="no voxel of finding 1"):
        evidence_hit(world((2, 2, 2)), mask, 1, AFFINE)


def test_the_rate_counts_true_positives_with_a_distance_only() -> None:
    distance = np.array([[0.0, 1.0], [15.0, 1.0], [40.0, 1.0], [0.0, 1.0], [np.nan, 1.0], [0.0, 1.0]])
    probabilities = np.array([[0.9, 0.1], [0.8, 0.1], [0.5, 0.1], [0.2, 0.1], [0.9, 0.1], [0.9, 0.1]])
    labels = np.array([[1, 1], [1, 1], [1, 1], [1, 1], [1, 1], [0, 1]])
    # Finding 0: hits 0 and 15 mm, misses 40 mm; the fourth is called absent, the fifth has no mask, the sixth is negative.
    rate, count = evidence_hit_rate(distance, probabilities, labels, [0.5, 0.5])
    assert rate[0] == pytest.approx(2 / 3) and count.tolist() == [3, 0]
    assert np.isnan(rate[1])


def test_a_peak_or_a_mask_of_the_wrong_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="three finite coordinates"):
        evidence_distance([0, 0, np.nan], mask_of(bit=0), 0, AFFINE)
    with pytest.raises(ValueError, match="integer volume"):
        evidence_distance([0, 0, 0], np.zeros((2, 2, 2)), 0, AFFINE)
