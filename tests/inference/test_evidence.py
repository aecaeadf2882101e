"""Evidence: the place of a map survives every orientation of the scan."""

import numpy as np
import pytest

from bundle.ctfindings.inference.evidence import locate
from bundle.ctfindings.scan.coordinates import voxel_spacing, world_to_voxel
from tests.inference.scan_grids import GRID, ORIENTATIONS, SCAN, SHAPE, TARGET, TOKENS, blob, scan_grid


@pytest.mark.parametrize("code", ORIENTATIONS)
def test_the_peak_stays_in_place_in_any_orientation_of_the_scan(code: str) -> None:
    affine, shape = scan_grid(code)
    found = locate(blob(TARGET), TOKENS, affine, shape)
    assert found is not None
    np.testing.assert_allclose(found.peak_mm, TARGET, atol=3.0)  # a quarter of a token


@pytest.mark.parametrize("code", ORIENTATIONS)
def test_the_slice_and_the_image_number_are_those_of_the_peak(code: str) -> None:
    affine, shape = scan_grid(code)
    found = locate(blob(TARGET), TOKENS, affine, shape)
    assert found is not None
    assert voxel_spacing(affine)[found.slice_axis] == pytest.approx(5)
    assert abs(found.slice_index - world_to_voxel(TARGET, affine)[found.slice_axis]) <= 1.0
    if code != "oblique":
        # z = 151 mm lies 10.2 slices above the lowest (100 mm); the highest of 24 slices is image 1.
        assert found.z_mm in (pytest.approx(150), pytest.approx(155))
        assert found.image == 24 - round((found.z_mm - 100) / 5)


def test_box_bounds_the_region_above_half_of_the_peak_and_no_other() -> None:
    scores = np.zeros(GRID)
    scores[3:5, 4, 5] = [1.0, 0.6]
    scores[5, 4, 5] = 0.4
    scores[8, 8, 8] = 0.9
    found = locate(scores, TOKENS, SCAN, SHAPE)
    assert found is not None
    # x: tokens 3 and 4, from -55 + 36 - 6 to -55 + 48 + 6
    np.testing.assert_allclose(found.box_mm, [[-25, -3, 157.5], [-1, 9, 169.5]])


def test_peak_and_box_do_not_leave_the_scan() -> None:
    tokens = TOKENS.copy()
    tokens[:3, 3] -= 24  # two tokens of padding at the lower side
    scores = np.zeros(GRID)
    scores[0, 0, 0] = 1.0  # in the padding
    scores[1, 2, 2] = 0.5  # reaches into the scan with its upper x half
    tokens[0, 3] += 6
    found = locate(scores, tokens, SCAN, SHAPE)
    assert found is not None and found.peak_score == 0.5
    voxel = world_to_voxel(found.peak_mm, SCAN)
    assert (voxel >= 0).all() and (voxel <= np.array(SHAPE) - 1).all()
    assert found.box_mm[0][0] == pytest.approx(-61)  # outer face of the first voxel


@pytest.mark.parametrize(("x", "side"), [(30.0, "right"), (-30.0, "left"), (2.0, "midline")])
def test_side_is_that_of_the_patient(x: float, side: str) -> None:
    found = locate(blob(np.array([x, 0, 150])), TOKENS, SCAN, SHAPE, midline_mm=0.0)
    assert found is not None and found.side == side


def test_an_empty_map_has_no_evidence_and_a_broken_one_is_refused() -> None:
    assert locate(np.zeros(GRID), TOKENS, SCAN, SHAPE) is None
    with pytest.raises(ValueError, match="non-finite"):
        locate(np.full(GRID, np.nan), TOKENS, SCAN, SHAPE)
    with pytest.raises(ValueError, match="gx, gy, gz"):
        locate(np.zeros((2, *GRID)), TOKENS, SCAN, SHAPE)
