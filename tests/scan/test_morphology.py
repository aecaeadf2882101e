"""Morphology by shifted copies and connected parts gives what distances, filters and propagation give."""

import numpy as np
import pytest
from scipy import ndimage

from bundle.ctfindings.scan.morphology import (
    IN_SLICE,
    closed_by_ball,
    enclosed_parts,
    filled,
    filled_slices,
    grown_by_ball,
    grown_by_box,
    shrunk_by_box,
)

VOXEL = np.array([1.5, 2.0, 3.0])


def random_mask(seed: int, share: float) -> np.ndarray:
    return np.random.default_rng(seed).random((11, 9, 7)) < share


@pytest.mark.parametrize("radius", [1.0, 3.0, 4.5, 40.0])
def test_a_ball_holds_the_voxels_within_its_radius(radius: float) -> None:
    mask = random_mask(0, 0.02)
    expected = ndimage.distance_transform_edt(~mask, sampling=VOXEL) <= radius
    np.testing.assert_array_equal(grown_by_ball(mask, radius, VOXEL), expected)


@pytest.mark.parametrize("reach", [(0, 0, 0), (1, 0, 2), (2, 3, 1), (20, 20, 20)])
def test_a_box_holds_the_voxels_within_its_reach(reach: tuple[int, int, int]) -> None:
    mask = random_mask(1, 0.02)
    size = [2 * steps + 1 for steps in reach]
    np.testing.assert_array_equal(grown_by_box(mask, reach), ndimage.maximum_filter(mask, size, mode="constant"))
    dense = ~mask
    np.testing.assert_array_equal(shrunk_by_box(dense, reach), ndimage.minimum_filter(dense, size, mode="nearest"))


@pytest.mark.parametrize("seed", range(3))
def test_holes_are_what_the_mask_encloses(seed: int) -> None:
    mask = random_mask(seed, 0.7)
    np.testing.assert_array_equal(filled(mask), ndimage.binary_fill_holes(mask))
    np.testing.assert_array_equal(filled_slices(mask), ndimage.binary_fill_holes(mask, IN_SLICE))
    assert (filled_slices(mask) & ~filled(mask)).any(), "a hole of a slice that is open above or below"


def test_parts_that_reach_the_border_are_not_enclosed() -> None:
    mask = np.ones((7, 7, 3), bool)
    mask[3, 3, 1] = mask[0, 0, 1] = False
    parts, enclosed = enclosed_parts(mask)
    assert [bool(enclosed[parts[place]]) for place in [(3, 3, 1), (0, 0, 1), (1, 1, 1)]] == [True, False, False]


def test_closing_joins_parts_that_a_ball_reaches_and_counts_the_border_as_set() -> None:
    mask = np.zeros((20, 20, 20), bool)
    mask[:8] = mask[10:18] = True
    voxel = np.ones(3)
    closed = closed_by_ball(mask, 2.0, voxel)
    assert closed[8:10].all(), "a gap of two voxels, also at the border"
    assert not closed[18:].any()
    assert not closed_by_ball(mask, 0.9, voxel)[8:10].any()
