"""Coordinates: expected values are written out by hand or come from nibabel."""

import nibabel as nib
import numpy as np
import pytest

from bundle.ctfindings.scan import coordinates as c

LPS = np.array([[-2.0, 0, 0, 10], [0, -2, 0, 20], [0, 0, 5, -30], [0, 0, 0, 1]])


def test_ras_and_lps_differ_by_the_sign_of_x_and_y() -> None:
    np.testing.assert_array_equal(c.ras_to_lps([[1, 2, 3], [-4, 5, -6]]), [[-1, -2, 3], [4, -5, -6]])


def test_voxels_become_millimetres_and_come_back() -> None:
    np.testing.assert_allclose(c.voxel_to_world([1, 2, 3], LPS), [8, 16, -15])
    np.testing.assert_allclose(c.world_to_voxel([[8, 16, -15]], LPS), [[1, 2, 3]])


def test_bounds_include_the_outer_faces_of_the_voxels() -> None:
    lower, upper = c.bounds_mm(LPS, (0, 0, 0), (1, 1, 1))
    np.testing.assert_allclose(lower, [7, 17, -32.5])
    np.testing.assert_allclose(upper, [11, 21, -22.5])


@pytest.mark.parametrize("code", ["RAS", "LPS", "LPI", "SAR", "PIR", "IRA"])
def test_axial_axis_is_found_in_any_orientation(code: str) -> None:
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([1.0, 2, 3, 1]))
    image = image.as_reoriented(nib.orientations.axcodes2ornt(code))
    assert c.orientation_code(image.affine) == "".join(nib.aff2axcodes(image.affine))
    code = c.orientation_code(image.affine)
    axis = next(index for index, letter in enumerate(code) if letter in "SI")
    assert c.axial_axis(image.affine) == axis
    assert c.axial_axis_ascends(image.affine) == (code[axis] == "S")
    assert c.voxel_spacing(image.affine)[axis] == pytest.approx(3)


@pytest.mark.parametrize("affine", [np.zeros((4, 4)), np.eye(3), np.full((4, 4), np.nan)])
def test_an_affine_that_is_no_affine_is_refused(affine: np.ndarray) -> None:
    with pytest.raises(ValueError, match="affine"):
        c.as_affine(affine)
