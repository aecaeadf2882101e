"""The module's NIfTI reader and writer against nibabel."""

from __future__ import annotations

import gzip
import itertools

import nibabel as nib
import numpy as np
import pytest
from ctfindings_client import nifti

# A scan turned about two axes, with three spacings, and its first axis towards the patient's left.
_TURN = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, 0.6, -0.8], [0, 0.8, 0.6]])
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = _TURN @ np.diag([-0.7, 0.9, 2.5])
OBLIQUE[:3, 3] = (110.5, -201.25, -731.0)


@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "u2", "i4", "u4", "f4", "f8"])
def test_nibabel_reads_what_is_written(kind: str) -> None:
    voxels = np.arange(-60, 60).reshape(4, 5, 6).astype(kind)
    image = nib.Nifti1Image.from_bytes(gzip.decompress(nifti.encode(voxels, OBLIQUE)))
    assert image.get_data_dtype() == voxels.dtype
    np.testing.assert_array_equal(np.asarray(image.dataobj), voxels.T)
    np.testing.assert_allclose(image.affine, OBLIQUE, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(image.header.get_zooms(), (0.7, 0.9, 2.5), rtol=1e-6)
    assert image.header.get_xyzt_units()[0] == "mm"


def test_a_view_with_another_memory_order_is_written_right() -> None:
    voxels = np.arange(120, dtype=np.int16).reshape(4, 5, 6)[::-1, :, ::2]
    image = nib.Nifti1Image.from_bytes(gzip.decompress(nifti.encode(voxels, OBLIQUE)))
    np.testing.assert_array_equal(np.asarray(image.dataobj), voxels.T)


@pytest.mark.parametrize(("kind", "order", "packed"), list(itertools.product(["u1", "i2", "f4"], "<>", [False, True])))
def test_what_nibabel_writes_is_read(kind: str, order: str, packed: bool) -> None:
    voxels = np.arange(120).reshape(6, 5, 4).astype(kind)
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(np.dtype(kind))
    content = nib.Nifti1Image(voxels, OBLIQUE, header).to_bytes()
    array, affine = nifti.decode(gzip.compress(content) if packed else content)
    np.testing.assert_array_equal(array.T, voxels)
    assert array.dtype == np.dtype(kind)
    np.testing.assert_allclose(affine, OBLIQUE, rtol=1e-6, atol=1e-5)


def test_slope_and_intercept_are_applied() -> None:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    image = nib.Nifti1Image(np.array([[[0, 51, 255]]], dtype=np.uint8), np.eye(4), header)
    image.header.set_slope_inter(1 / 255, 0.25)
    array, _ = nifti.decode(image.to_bytes())
    np.testing.assert_allclose(array.ravel(), [0.25, 0.45, 1.25], rtol=1e-6)


@pytest.mark.parametrize("mirrored", [False, True])
def test_place_is_read_from_the_quaternion_when_there_is_no_sform(mirrored: bool) -> None:
    affine = OBLIQUE @ np.diag([1, 1, -1 if mirrored else 1, 1])
    image = nib.Nifti1Image(np.zeros((3, 4, 5), dtype=np.int16), affine)
    image.set_qform(affine, code=1)
    image.set_sform(None, code=0)
    np.testing.assert_allclose(nifti.decode(image.to_bytes())[1], affine, rtol=1e-5, atol=1e-4)


def _image() -> nib.Nifti1Image:
    return nib.Nifti1Image(np.zeros((3, 4, 5), dtype=np.int16), np.eye(4))


def _without_place() -> bytes:
    image = _image()
    image.set_qform(None, code=0)
    image.set_sform(None, code=0)
    return image.to_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>no</html>", "no NIfTI-1"),
        (_image().to_bytes()[:-1], "cut short"),
        (gzip.compress(_image().to_bytes(), mtime=0)[:-9], "cannot be unpacked"),
        (nib.Nifti1Image(np.zeros((3, 4, 5, 2), dtype=np.int16), np.eye(4)).to_bytes(), "three dimensions"),
        (nib.Nifti1Image(np.zeros((3, 4, 5), dtype=np.complex64), np.eye(4)).to_bytes(), "type 32"),
        (_without_place(), "neither sform nor qform"),
    ],
    ids=["html", "short", "half a gzip", "4D", "complex", "no place"],
)
def test_files_that_cannot_be_shown_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nifti.decode(content)


def test_voxel_types_that_nifti_lacks_are_refused() -> None:
    with pytest.raises(ValueError, match="bool"):
        nifti.encode(np.zeros((2, 2, 2), dtype=bool), np.eye(4))
