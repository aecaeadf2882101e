"""Detection: components and lesions in mm, FROC as LUNA counts, average precision on hand-made boxes."""

import numpy as np
import pytest

from bundle.ctfindings.metrics.detection import (
    FALSE_POSITIVE_RATES,
    AveragePrecision,
    Detections,
    detect,
    distances_mm,
    froc_hits,
    froc_score,
    lesions_of,
)


def detections(*entries: tuple[float, tuple[float, ...]]) -> Detections:
    boxes = np.array([box for _, box in entries], dtype=float).reshape(-1, 6)
    return Detections(np.array([score for score, _ in entries]), (boxes[:, :3] + boxes[:, 3:]) / 2, boxes)


def test_components_have_the_edges_of_their_cells_in_mm_and_fall_by_score() -> None:
    heat = np.zeros((6, 6, 6))
    heat[1, 1, 1], heat[2, 2, 2], heat[5, 5, 5], heat[0, 5, 0] = 0.5, 0.9, 0.7, 0.2
    affine = np.diag([16.0, 16.0, 12.0, 1.0])
    affine[:3, 3] = [-50, 10, 100]
    found = detect(heat, 0.4, affine)
    assert found.scores.tolist() == [0.9, 0.7]
    assert found.peaks.tolist() == [[-18, 42, 124], [30, 90, 160]]
    # Cells 1 and 2 touch by a corner: from -0.5 before cell 1 to 0.5 after cell 2.
    assert found.boxes[0].tolist() == [-50 + 8, 10 + 8, 100 + 6, -50 + 40, 10 + 40, 100 + 30]
    assert len(detect(heat, 2.0, affine).scores) == 0


def test_lesions_are_the_parts_of_a_mask_and_distances_are_to_their_voxels() -> None:
    mask = np.zeros((8, 8, 8), bool)
    mask[0, 0, 0] = mask[4:6, 4, 4] = True
    lesions = lesions_of(mask, np.diag([2.0, 2, 2, 1]))
    assert lesions.boxes.tolist() == [[-1, -1, -1, 1, 1, 1], [7, 7, 7, 11, 9, 9]]
    assert distances_mm([[0, 0, 3], [10, 8, 8]], lesions)[:, 0].tolist() == pytest.approx([3, np.sqrt(228)])
    assert distances_mm([[0, 0, 3], [10, 8, 8]], lesions)[1, 1] == 0
    assert distances_mm([[0, 0, 3]], lesions_of(np.zeros((2, 2, 2), bool), np.eye(4))).shape == (1, 0)


def test_specks_close_to_a_lesion_are_of_it_and_another_lesion_is_not() -> None:
    mask = np.zeros((20, 20, 20), bool)
    mask[2:6, 2:6, 2:6] = mask[8, 3, 3] = mask[3, 9, 3] = True  # two specks, 6 mm and 8 mm away
    mask[15:18, 15:18, 15:18] = True
    lesions = lesions_of(mask, np.diag([2.0, 2, 2, 1]))
    assert [len(voxels) for voxels in lesions.voxels] == [4**3 + 2, 3**3]
    assert lesions.boxes[0].tolist() == [3, 3, 3, 17, 19, 11]
    assert not lesions_of(np.zeros((3, 3, 3), bool), np.eye(4)).voxels


def test_a_second_detection_of_a_lesion_is_no_false_positive() -> None:
    mask = np.zeros((8, 8, 8), bool)
    mask[0, 0, 0] = True
    found = detections((0.9, (0, 0, 0, 1, 1, 1)), (0.8, (0, 0, 0, 2, 2, 2)), (0.7, (50, 50, 50, 52, 52, 52)))
    true, false = froc_hits(found, lesions_of(mask, np.eye(4)), 5)
    assert true.tolist() == [0.9] and false.tolist() == [0.7]
    # Without a lesion every detection is a false positive.
    assert froc_hits(found, lesions_of(mask & False, np.eye(4)), 5)[1].tolist() == [0.9, 0.8, 0.7]


def test_froc_counts_false_positives_on_scans_without_a_lesion() -> None:
    true, none = np.array([0.5]), np.array([])
    assert froc_score(true, none, lesions=1, scans=4) == 1.0
    assert froc_score(true, none, lesions=2, scans=4) == 0.5
    # Three false positives on four scans outrank the lesion, which is found from 3/4 of a false positive per scan on.
    reached = np.interp(FALSE_POSITIVE_RATES, [0, 0.25, 0.5, 0.75], [0, 0, 0, 1])
    assert froc_score(true, np.array([0.9, 0.8, 0.7]), lesions=1, scans=4) == pytest.approx(reached.mean())
    assert np.isnan(froc_score(true, none, lesions=0, scans=4)) and froc_score(none, none, 1, 4) == 0


def test_average_precision_at_two_overlaps_and_of_resamples() -> None:
    lesion = np.array([[0.0, 0, 0, 10, 10, 10]])
    # An overlap of 0.2: a box of the same base with a fifth of the height.
    found = [detections((0.9, (0, 0, 0, 10, 10, 2))), detections((0.95, (0, 0, 0, 10, 10, 10)))]
    score = AveragePrecision(found, [lesion, np.zeros((0, 6))], [0.1, 0.3])
    assert score.of(np.array([0])).tolist() == pytest.approx([1.0, 0.0])
    # The false positive on the scan without a lesion has the higher score: the precision is one half.
    assert score.of(np.array([0, 1])).tolist() == pytest.approx([0.5, 0.0])
    assert np.isnan(score.of(np.array([1]))).all()
