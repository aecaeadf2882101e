"""Evidence: the place of a map survives every orientation of the scan."""

import numpy as np
import pytest

from bundle.ctfindings.inference.evidence import Region, locate
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


def test_a_peak_is_not_pulled_to_where_the_map_is_zero() -> None:
    scores = np.zeros(GRID)
    scores[3, 4, 5] = 0.9
    scores[5, 4, 5], scores[4, 3, 4] = 0.8, 0.85  # the centre of the three lies at a token that is zero
    found = locate(scores, TOKENS, SCAN, SHAPE)
    assert found is not None and found.peak_score == 0.9
    voxel = np.rint(world_to_voxel(found.peak_mm, TOKENS)).astype(int)
    assert scores[tuple(voxel)] > 0


def test_the_peak_of_a_plateau_is_its_middle_and_not_a_corner() -> None:
    scores = np.zeros(GRID)
    scores[2:5, 3:6, 4:7] = 1.0
    scores[3, 4, 5] = 1 - 1e-7  # The rounding of an interpolation.
    scores[8, 8, 8] = 1.0
    found = locate(scores, TOKENS, SCAN, SHAPE)
    assert found is not None
    np.testing.assert_allclose(found.peak_mm, (TOKENS @ [3, 4, 5, 1])[:3], atol=1e-3)


def test_evidence_in_a_large_box_has_a_share_and_no_box_and_is_diffuse_only_if_it_fills_the_lung() -> None:
    scores, lung = np.zeros(GRID), np.zeros(GRID, bool)
    lung[1:9, 1:8, 1:9] = True
    scores[1:5, 1:8, 1:9] = 0.8  # half of the lung
    litres = float(lung.sum()) * 12**3 / 1e6
    found = locate(scores, TOKENS, SCAN, SHAPE, region=Region(lung, litres))
    assert found is not None and (found.extent, found.box_mm) == ("diffuse", None)
    assert found.share == pytest.approx(0.5)
    scores[2:4, 2:7, 2:8] = 0
    shell = locate(scores, TOKENS, SCAN, SHAPE, region=Region(lung, litres), diffuse_share=0.4)
    assert shell is not None and (shell.extent, shell.box_mm) == ("scattered", None)
    assert shell.share == pytest.approx(0.5 * (1 - 60 / 224))
    focal = locate(scores, TOKENS, SCAN, SHAPE, region=Region(lung, 2 * litres))
    assert focal is not None and focal.extent == "focal" and focal.box_mm is not None


@pytest.mark.parametrize(("x", "side"), [(30.0, "right"), (-30.0, "left"), (2.0, "midline")])
def test_side_is_that_of_the_patient(x: float, side: str) -> None:
    found = locate(blob(np.array([x, 0, 150])), TOKENS, SCAN, SHAPE, midline_mm=0.0)
    assert found is not None and found.side == side


def test_an_empty_map_has_no_evidence_and_a_broken_one_is_refused() -> None:
    assert locate(np.zeros(GRID), TOKENS, SCAN, SHAPE) is None
    with pytest.raises(ValueError, match="non-finite"):
        locate(np.full(GRID, np.nan), TOKENS, SCAN, SHAPE)
    with pytest.raises(ValueError, match="x, y, z"):
        locate(np.zeros((2, *GRID)), TOKENS, SCAN, SHAPE)
