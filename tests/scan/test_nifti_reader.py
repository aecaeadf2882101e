"""NIfTI of the field: wrong names, headers that contradict the file, and transforms that contradict each other."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.scan.load_scan import load_scan, read_volume


def save(path: Path, array: np.ndarray, affine: np.ndarray, edit: Callable[[bytearray], None] | None = None) -> Path:
    """A NIfTI whose header was edited after it was written."""
    nib.save(nib.Nifti1Image(array, affine), path.with_name("plain.nii"))
    content = bytearray(path.with_name("plain.nii").read_bytes())
    path.with_name("plain.nii").unlink()
    if edit:
        edit(content)
    path.write_bytes(gzip.compress(bytes(content), 1) if path.suffix == ".gz" else bytes(content))
    return path


@pytest.mark.parametrize(("name", "packed"), [("a.nii.gz", False), ("a.nii", True), ("a.NII.GZ", True), ("a", False)])
def test_the_content_decides_how_a_file_is_read(tmp_path, hu, affine, name, packed):
    plain = save(tmp_path / "b.nii", hu, affine).read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(plain, 1) if packed else plain)
    np.testing.assert_array_equal(read_volume(tmp_path / name).array, hu)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_both_versions_and_byte_orders_are_read(tmp_path, hu, affine, kind, big_endian):
    header = kind.header_class(endianness=">" if big_endian else "<")
    header.set_data_dtype(np.int16)
    nib.save(kind(hu, affine, header), tmp_path / "a.nii.gz")
    scan = load_scan(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(scan[0].numpy(), np.maximum(hu, -1024))
    np.testing.assert_allclose(scan.affine, affine)


HEADERS = {
    "slope 1, intercept NaN": (lambda b: struct.pack_into("<ff", b, 112, 1.0, np.nan), "invalid-header"),
    "no number type": (lambda b: struct.pack_into("<h", b, 70, 0), "invalid-header"),
    "bits": (lambda b: struct.pack_into("<h", b, 70, 1), "invalid-header"),
    "complex": (lambda b: struct.pack_into("<hh", b, 70, 32, 64), "colour-or-complex"),
    "voxels within the header": (lambda b: struct.pack_into("<f", b, 108, 348.0), "invalid-header"),
    "voxels from byte 0": (lambda b: struct.pack_into("<f", b, 108, 0.0), "header-contradicts-file"),
    "voxels from half a byte": (lambda b: struct.pack_into("<f", b, 108, 352.5), "header-contradicts-file"),
    "voxels behind the end": (lambda b: struct.pack_into("<f", b, 108, 1e9), "damaged-file"),
    "terabytes": (lambda b: struct.pack_into("<hhh", b, 42, 32000, 32000, 32000), "damaged-file"),
    "too few columns": (lambda b: struct.pack_into("<h", b, 42, 63), "header-contradicts-file"),
    "too few slices": (lambda b: struct.pack_into("<h", b, 46, 40), "header-contradicts-file"),
    "no magic": (lambda b: struct.pack_into("<i", b, 344, 0), "invalid-header"),
    "no unit quaternion": (lambda b: struct.pack_into("<hhfff", b, 252, 1, 0, 3.0, 3.0, 3.0), "invalid-header"),
}


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_cannot_be_is_refused_in_one_line(tmp_path, hu, affine, capfd, name, suffix):
    edit, code = HEADERS[name]
    path = save(tmp_path / f"a.{suffix}", hu, affine, edit)
    with pytest.raises(ScanError) as refused:
        load_scan(path)
    assert refused.value.code == code and str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value) and capfd.readouterr() == ("", "")


def test_a_colour_image_is_refused(tmp_path, hu, affine):
    rgb = np.zeros(hu.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(rgb, affine), tmp_path / "rgb.nii.gz")
    with pytest.raises(ScanError, match="found a colour or complex image"):
        load_scan(tmp_path / "rgb.nii.gz")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.nii.gz", b"", "is empty"),
        ("a.nii.gz", b"<!DOCTYPE html><html>no access</html>", "is a web page"),
        ("a.nii", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "run git lfs pull"),
        ("a.nii.gz", b"BZh91AY&SY", "is packed with bzip2"),
        ("a.nrrd", bytes(range(256)) * 4, "of no format that can be read"),
        ("a.nii.gz", gzip.compress(b"NRRD0004\ntype: short\n", mtime=0), "is a gzip of a nrrd file"),
        ("a.png", b"\x89PNG\r\n\x1a\n", "unknown format"),
    ],
)
def test_what_is_no_scan_is_called_by_what_it_is(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ScanError, match=expected):
        load_scan(tmp_path / name)


@pytest.mark.parametrize("sform_code", range(5))
@pytest.mark.parametrize("qform_code", range(5))
def test_the_placement_is_that_of_itk_for_every_pair_of_codes(tmp_path, hu, affine, qform_code, sform_code):
    import itk

    if qform_code == sform_code == 0:
        pytest.skip("refused: no affine")
    moved = affine.copy()
    moved[:3, 3] += (30, 40, 50)
    image = nib.Nifti1Image(hu, None)
    image.header.set_qform(affine, qform_code)
    image.header.set_sform(moved, sform_code)
    nib.save(image, tmp_path / "a.nii")
    scan = load_scan(tmp_path / "a.nii")
    origin = np.asarray(itk.imread(str(tmp_path / "a.nii")).GetOrigin()) * (-1, -1, 1)
    np.testing.assert_allclose(scan.affine[:3, 3], origin, atol=1e-3)
    both = qform_code > 0 and sform_code > 0
    assert [("71 mm apart" in warning) for warning in scan.meta["warnings"]] == [True] * both
    if not both:  # nibabel takes the only one as well.
        np.testing.assert_allclose(scan.affine, nib.load(tmp_path / "a.nii").affine, atol=1e-4)


def test_left_and_right_exchanged_between_sform_and_qform_is_named(tmp_path, hu, affine):
    image = nib.Nifti1Image(hu, affine)
    image.set_qform(affine, 1)
    image.set_sform(np.diag([-1.0, 1, 1, 1]) @ affine, 2)
    nib.save(image, tmp_path / "a.nii")
    (warning,) = load_scan(tmp_path / "a.nii").meta["warnings"]
    assert "sform (code 2, LAS) and qform (code 1, RAS)" in warning and "the qform was used" in warning


@pytest.mark.parametrize(("unit", "factor"), [("meter", 0.001), ("micron", 1000.0)])
def test_a_spacing_in_another_unit_becomes_mm_as_in_itk(tmp_path, hu, affine, unit, factor):
    image = nib.Nifti1Image(hu, np.diag([factor, factor, factor, 1.0]) @ affine)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(load_scan(tmp_path / "a.nii").affine, affine, rtol=1e-5)


def test_a_spacing_in_metres_without_a_unit_is_named(tmp_path, hu, affine):
    save(tmp_path / "a.nii", hu, np.diag([0.001, 0.001, 0.001, 1.0]) @ affine)
    with pytest.raises(ScanError, match=r"it seems to be in metres: write it in mm, multiplied by 1000"):
        load_scan(tmp_path / "a.nii")


@pytest.mark.parametrize("high", [150, 200, 400, 600])
def test_clipped_values_are_named_with_the_findings_that_cannot_be_seen(tmp_path, hu, affine, high):
    dense = hu.astype(np.int16)
    dense[20:24, 30:36, 10:30] = np.random.default_rng(0).integers(500, 1200, (4, 6, 20))
    assert load_scan(save(tmp_path / "a.nii", dense, affine)).meta["not_assessed"] == []
    scan = load_scan(save(tmp_path / "a.nii", np.minimum(dense, high), affine))
    (warning,) = scan.meta["warnings"]
    assert f"clipped at {high} HU" in warning
    wanted = ["Medical material", "Arterial wall calcification", "Coronary artery wall calcification"]
    assert scan.meta["not_assessed"] == wanted and all(name in warning for name in wanted)


@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Pair])
def test_the_header_of_a_pair_is_named(tmp_path, hu, affine, kind):
    nib.save(kind(hu, affine), tmp_path / "a.hdr")
    with pytest.raises(ScanError, match=r"\[header-of-a-pair\]"):
        load_scan(tmp_path / "a.hdr")
