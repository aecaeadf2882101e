"""What is not a chest CT in HU with a geometry is refused in one line, with the file, the problem and the remedy."""

import gzip
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest

from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.scan.load_scan import load_scan
from tests.scan.test_load_scan import save

Make = Callable[[Path, np.ndarray, np.ndarray], Path]


def missing(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    return folder / "absent.nii.gz"


def truncated(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    path = save(folder / "a.nii.gz", hu, affine)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def truncated_header(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    path = save(folder / "a.nii.gz", hu, affine)
    path.write_bytes(path.read_bytes()[:40])
    return path


def text_as_nifti(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    path = folder / "a.nii.gz"
    path.write_bytes(gzip.compress(b"no scan" * 100))
    return path


def text_as_gzip(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    (folder / "a.nii.gz").write_text("no scan")
    return folder / "a.nii.gz"


def unknown_format(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    (folder / "a.png").write_text("no scan at all" * 20)
    return folder / "a.png"


def truncated_nrrd(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    header = {"space": "RAS", "space directions": affine[:3, :3].T, "space origin": affine[:3, 3]}
    nrrd.write(str(folder / "a.nrrd"), hu, header, index_order="F")
    (folder / "a.nrrd").write_bytes((folder / "a.nrrd").read_bytes()[:2000])
    return folder / "a.nrrd"


def nrrd_packed_with_bzip2(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    header = {"space": "RAS", "space directions": affine[:3, :3].T, "space origin": affine[:3, 3], "encoding": "bzip2"}
    nrrd.write(str(folder / "a.nrrd"), hu, header, index_order="F")
    return folder / "a.nrrd"


def nrrd_without_geometry(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    nrrd.write(str(folder / "a.nrrd"), hu, {"spacings": [2, 2, 2]}, index_order="F")
    return folder / "a.nrrd"


def nrrd_without_origin(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    header = {"space": "RAS", "space directions": affine[:3, :3].T}
    nrrd.write(str(folder / "a.nrrd"), hu, header, index_order="F")
    return folder / "a.nrrd"


def nrrd_in_scanner_axes(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    header = {"space": "scanner-xyz", "space directions": affine[:3, :3].T, "space origin": affine[:3, 3]}
    nrrd.write(str(folder / "a.nrrd"), hu, header, index_order="F")
    return folder / "a.nrrd"


def text_as_metaimage(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    (folder / "a.mha").write_text("no scan")
    return folder / "a.mha"


def metaimage_without_its_voxels(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    text = "ObjectType = Image\nNDims = 3\nDimSize = 9 9 9\nElementType = MET_SHORT\nElementDataFile = none.raw\n"
    (folder / "a.mhd").write_text(text)
    return folder / "a.mhd"


def flat(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    return save(folder / "a.nii.gz", hu[:, :, 0], affine)


def one_slice(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    return save(folder / "a.nii.gz", hu[:, :, :1], affine)


def time_series(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    return save(folder / "a.nii.gz", np.stack([hu, hu], axis=-1), affine)


def with_nan(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    broken = hu.astype(np.float32)
    broken[3, 4, 5] = np.nan
    return save(folder / "a.nii.gz", broken, affine)


def with_infinity(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    broken = hu.astype(np.float32)
    broken[3, 4, 5] = np.inf
    return save(folder / "a.nii.gz", broken, affine)


def constant(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    return save(folder / "a.nii.gz", np.full_like(hu, -1000), affine)


def zero_spacing(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    return save(folder / "a.nii.gz", hu, affine @ np.diag([1, 1, 1e-9, 1]))


def metres(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    return save(folder / "a.nii.gz", hu, affine @ np.diag([100, 100, 100, 1]))


def sheared(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    shear = affine.copy()
    shear[0, 1] = 3
    return save(folder / "a.nii.gz", hu, shear)


def without_affine(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    image = nib.Nifti1Image(hu, None)
    image.header["sform_code"] = image.header["qform_code"] = 0
    nib.save(image, folder / "a.nii.gz")
    return folder / "a.nii.gz"


def eight_bit(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    return save(folder / "a.nii.gz", np.clip((hu + 1000) / 5, 0, 255).astype(np.uint8), affine)


def eight_bit_as_float(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    return save(folder / "a.nii.gz", np.clip((hu + 1000) / 5, 0, 255).astype(np.float32), affine)


def label_map(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    return save(folder / "a.nii.gz", (np.arange(hu.size).reshape(hu.shape) % 5).astype(np.int16), affine)


def not_rescaled(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    return save(folder / "a.nii.gz", (hu + 1024).astype(np.int16), affine)


def windowed(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    return save(folder / "a.nii.gz", np.clip(hu, -160, 240), affine)


def rescaled_twice(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    return save(folder / "a.nii.gz", (hu - 1024).astype(np.int16), affine)


def rescaled_twice_by_8192(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    return save(folder / "a.nii.gz", (hu - 8192).astype(np.int16), affine)


def unsigned_padding(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    wrapped = hu.astype(np.int32)
    wrapped[:6] = 63536 - 1024
    return save(folder / "a.nii.gz", wrapped, affine)


def too_small(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    return save(folder / "a.nii.gz", hu[10:30], affine)


def empty_folder(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def zip_of_text(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("notes.txt", "no scan")
    return folder / "a.zip"


def truncated_zip(folder: Path, hu: np.ndarray, affine: np.ndarray) -> Path:
    path = zip_of_text(folder, hu, affine)
    path.write_bytes(path.read_bytes()[:30])
    return path


@pytest.mark.parametrize(
    ("make", "problem", "remedy"),
    [
        (missing, "no such file", "check the path"),
        (truncated, "truncated or damaged", "copy or download it again"),
        (truncated_header, "truncated or damaged", "copy or download it again"),
        (text_as_nifti, "is compressed with gzip but is not NIfTI", "give the scan itself"),
        (text_as_gzip, "is a text file, not a scan", "give the scan itself"),
        (unknown_format, "unknown format", "give .nii"),
        (truncated_nrrd, "truncated, damaged", "copy or download it again"),
        (nrrd_packed_with_bzip2, "packed with bzip2", "save it with gzip"),
        (nrrd_without_geometry, "has no affine", "convert it from DICOM again"),
        (nrrd_without_origin, "has no affine", "convert it from DICOM again"),
        (nrrd_in_scanner_axes, "has no affine", "convert it from DICOM again"),
        (text_as_metaimage, "is a text file, not a scan", "give the scan itself"),
        (metaimage_without_its_voxels, "none.raw", "put both into one folder"),
        (flat, "found an image of shape (64, 52)", "expected one 3D scan"),
        (one_slice, "shape (64, 52, 1)", "expected one 3D scan"),
        (time_series, "shape (64, 52, 44, 2)", "expected one 3D scan"),
        (with_nan, "NaN or infinite", "write it again"),
        (with_infinity, "NaN or infinite", "write it again"),
        (constant, "all voxels are -1000", "expected a CT"),
        (zero_spacing, "expected a spacing of 0.2 to 20 mm, found 2 x 2.5 x", "convert it from DICOM again"),
        (metres, "expected a spacing of 0.2 to 20 mm, found 200 x 250 x 300 mm", "it seems to be in micrometres"),
        (sheared, "sheared by 50 degrees", "convert it from DICOM again"),
        (without_affine, "has no affine", "convert it from DICOM again"),
        (eight_bit, "expected a CT in HU (air near -1000)", "Was an 8-bit export loaded?"),
        (eight_bit_as_float, "expected a CT in HU (air near -1000)", "8-bit export loaded? Give the original CT."),
        (label_map, "found values in 0..4", "Is it a label map? Give the original CT."),
        (not_rescaled, "expected a CT in HU", "slope and intercept left out?"),
        (windowed, "found values in -160..240", "a windowed image"),
        (rescaled_twice, "expected a CT in HU", "was HU rescaled twice?"),
        (rescaled_twice_by_8192, "expected a CT in HU", "was HU rescaled twice?"),
        (unsigned_padding, "above 4000", "signed padding read as unsigned?"),
        (too_small, "spans only 40 x 130 x 132 mm", "expected a scan of the chest"),
        (empty_folder, "no CT images in DICOM", "give the folder or zip of one CT series"),
        (zip_of_text, "no CT images in DICOM", "give the folder or zip of one CT series"),
        (truncated_zip, "damaged zip", "copy or download it again"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_bad_input_is_refused_in_one_line_with_file_and_remedy(
    tmp_path, hu, affine, make: Make, problem: str, remedy: str
):
    path = make(tmp_path, hu, affine)
    with pytest.raises(ScanError) as refusal:
        load_scan(path)
    message = str(refusal.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert problem in message and remedy in message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.nii")
    with pytest.raises(ScanError, match="is a pipe or device"):
        load_scan(tmp_path / "a.nii")
