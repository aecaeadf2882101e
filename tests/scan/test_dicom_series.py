"""DICOM of the field: which series is read, which images are joined or left out, and what becomes of padding."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.scan.load_scan import load_scan
from bundle.ctfindings.scan.slice_grid import even_slices, regular_step

DERIVED = ("DERIVED", "SECONDARY", "AXIAL")


def edit(folder: Path, change: Callable[[pydicom.Dataset, int], None], only: Callable[[int], bool] = bool) -> None:
    """Changes the images of a series by their slice number, counted from 1."""
    for file in sorted(folder.iterdir()):
        image = pydicom.dcmread(file)
        if only(int(image.InstanceNumber)):
            change(image, int(image.InstanceNumber))
            pydicom.dcmwrite(file, image)


def in_ras(scan) -> np.ndarray:
    return nib.as_closest_canonical(nib.Nifti1Image(np.asarray(scan[0]), np.asarray(scan.affine))).get_fdata()


def test_empty_rescale_elements_count_as_absent(tmp_path, hu, affine, write_dicom):
    folder = write_dicom(tmp_path / "a", hu, affine)

    def empty(image: pydicom.Dataset, _: int) -> None:
        image.PixelData = (image.pixel_array.astype(np.int32) - 1024).astype(np.int16).tobytes()
        image.PixelRepresentation, image.RescaleSlope, image.RescaleIntercept = 1, None, None

    edit(folder, empty)
    np.testing.assert_allclose(in_ras(load_scan(folder)), np.maximum(hu, -1024), atol=1e-3)


def test_one_image_without_the_rescale_of_the_others_is_refused(tmp_path, hu, affine, write_dicom):
    folder = write_dicom(tmp_path / "a", hu, affine)
    edit(folder, lambda image, _: image.__delattr__("RescaleIntercept"), lambda number: number == 7)
    edit(folder, lambda image, _: image.__delattr__("RescaleSlope"), lambda number: number == 7)
    with pytest.raises(ScanError, match=r"image 7 of series 3 .* has no rescale slope and intercept, others have"):
        load_scan(folder)


def test_jitter_of_the_fifth_digit_splits_no_series(tmp_path, hu, affine, write_dicom):
    folder = write_dicom(tmp_path / "a", hu, affine)

    def jitter(image: pydicom.Dataset, number: int) -> None:
        image.PixelSpacing = ["2.50004", "2.00004"] if number % 3 else ["2.50006", "2.00006"]
        tilt = 0.0049 if number % 3 else 0.0051
        cosine = f"{np.sqrt(1 - tilt**2):.6f}"
        image.ImageOrientationPatient = [cosine, str(tilt), "0", str(-tilt), cosine, "0"]

    edit(folder, jitter)
    scan = load_scan(folder)
    assert scan.shape == (1, *hu.shape) and scan.meta["warnings"] == []


def second_pass(image: pydicom.Dataset, _: int) -> None:
    image.AcquisitionNumber = 2
    image.SOPInstanceUID = generate_uid()


def passes(folder: Path, hu, affine, write_dicom, first: range, second: range) -> Path:
    """Two acquisitions of one series."""
    write_dicom(folder / "a", hu, affine, keep=first)
    series = pydicom.dcmread(next((folder / "a").iterdir())).SeriesInstanceUID
    write_dicom(folder / "b", hu, affine, keep=second)
    edit(folder / "a", lambda image, _: setattr(image, "AcquisitionNumber", 1))
    edit(folder / "b", second_pass)
    edit(folder / "b", lambda image, _: setattr(image, "SeriesInstanceUID", series))
    return folder


@pytest.mark.parametrize("begin", [22, 23, 20])
def test_two_passes_that_meet_are_one_stack(tmp_path, hu, affine, write_dicom, begin):
    scan = load_scan(passes(tmp_path, hu, affine, write_dicom, range(23), range(begin, 44)))
    np.testing.assert_allclose(in_ras(scan), np.maximum(hu, -1024), atol=1e-3)
    assert scan.meta["warnings"] == []


def test_two_phases_of_the_same_region_are_not_joined(tmp_path, hu, affine, write_dicom):
    scan = load_scan(passes(tmp_path, hu, affine, write_dicom, range(44), range(0, 44)))
    assert scan.shape == (1, *hu.shape) and "contains 2 CT series" in scan.meta["warnings"][0]


def test_the_full_derived_chest_is_preferred_to_a_short_original_one(tmp_path, hu, affine, write_dicom):
    write_dicom(tmp_path / "short", hu, affine, number=2, keep=range(15, 27))
    write_dicom(tmp_path / "full", hu, affine, number=5, image_type=DERIVED)
    scan = load_scan(tmp_path)
    assert scan.shape == (1, *hu.shape)
    assert "series 5 (44 images) was read, not: series 2 (12 images)" in scan.meta["warnings"][0]
    assert "derived" in scan.meta["warnings"][1]


def test_of_two_series_of_equal_cover_the_original_one_is_read(tmp_path, hu, affine, write_dicom):
    write_dicom(tmp_path / "derived", hu, affine, number=5, image_type=DERIVED)
    write_dicom(tmp_path / "original", hu, affine, number=2, keep=range(1, 43))
    assert load_scan(tmp_path).shape == (1, 64, 52, 42)


def multi_frame(image: pydicom.Dataset, frames: int) -> None:
    image.SeriesInstanceUID = image.SOPInstanceUID = generate_uid()
    image.NumberOfFrames = frames
    image.PixelData = image.PixelData * frames


@pytest.mark.parametrize("frames", [3, 60])
def test_a_multi_frame_image_beside_slices_is_named_or_refused(tmp_path, hu, affine, write_dicom, frames):
    write_dicom(tmp_path / "a", hu, affine, keep=range(12, 30))
    edit(write_dicom(tmp_path / "b", hu, affine, keep=[0]), lambda image, _: multi_frame(image, frames))
    if frames > 18:
        with pytest.raises(ScanError, match=r"multi-frame image of another kind .* export it as Enhanced CT"):
            load_scan(tmp_path)
    else:
        assert "1 multi-frame of another kind than Enhanced CT" in " ".join(load_scan(tmp_path).meta["warnings"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda image, _: image.__delattr__("ImagePositionPatient"),
            "2 without position, orientation or pixel spacing",
        ),
        (lambda image, _: setattr(image, "ImageOrientationPatient", [0] * 6), "2 with an impossible position"),
        (lambda image, _: setattr(image, "Modality", "MR"), "2 not CT"),
        (lambda image, _: setattr(image, "SamplesPerPixel", 3), "2 colour"),
    ],
)
def test_every_image_that_is_not_read_is_counted_with_its_reason(tmp_path, hu, affine, write_dicom, change, reason):
    folder = write_dicom(tmp_path / "a", hu, affine)
    edit(folder, change, lambda number: number > 42)
    scan = load_scan(folder)
    assert scan.shape[3] == 42 and f"images that were not read: {reason}" in scan.meta["warnings"][0]


def test_images_that_share_one_uid_are_told_apart_by_their_position(tmp_path, hu, affine, write_dicom):
    folder = write_dicom(tmp_path / "a", hu, affine)
    edit(folder, lambda image, _: setattr(image, "SOPInstanceUID", "1.2.3"))
    assert load_scan(folder).shape == (1, *hu.shape)


def test_series_whose_images_have_the_same_uids_are_told_apart(tmp_path, hu, affine, write_dicom):
    for name, images in (("a", range(20)), ("b", range(44))):
        write_dicom(tmp_path / name, hu, affine, keep=images)
        edit(tmp_path / name, lambda image, number: setattr(image, "SOPInstanceUID", f"1.2.{number}"))
    scan = load_scan(tmp_path)
    np.testing.assert_allclose(in_ras(scan), hu, atol=1e-3)
    assert scan.meta["source_images"].sop_uids == tuple(f"1.2.{number}" for number in range(1, 45))


@pytest.mark.parametrize(("stored", "told"), [(63536, 63536), (63536, -2000), (0, 0)])
def test_padding_becomes_air(tmp_path, hu, affine, write_dicom, stored, told):
    folder = write_dicom(tmp_path / "a", hu, affine)

    def pad(image: pydicom.Dataset, _: int) -> None:
        pixels = image.pixel_array.copy()
        pixels[:6, :6] = stored
        image.PixelData = pixels.tobytes()
        image.add_new("PixelPaddingValue", "US" if told >= 0 else "SS", told)

    edit(folder, pad)
    scan = in_ras(load_scan(folder))
    assert (scan[-6:, -6:] == -1024).all()
    np.testing.assert_allclose(scan[:-6], np.maximum(hu[:-6], -1024), atol=1e-3)


def test_a_padding_value_like_tissue_is_padding_only_at_the_border(tmp_path, hu, affine, write_dicom):
    folder = write_dicom(tmp_path / "a", hu, affine)

    def pad(image: pydicom.Dataset, _: int) -> None:
        pixels = image.pixel_array.copy()
        pixels[:6, :6] = pixels[20, 30] = 1024 + 40
        image.PixelData = pixels.tobytes()
        image.add_new("PixelPaddingValue", "US", 1024 + 40)

    edit(folder, pad)
    scan = load_scan(folder)[0].numpy()
    assert (scan[:6, :6] == -1024).all() and (scan[30, 20] == 40).all()


def test_files_without_a_preamble_are_read(tmp_path, hu, affine, write_dicom):
    folder = write_dicom(tmp_path / "a", hu, affine)
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[132:])
    np.testing.assert_allclose(in_ras(load_scan(folder)), np.maximum(hu, -1024), atol=1e-3)


def test_what_macos_adds_to_a_folder_or_zip_is_no_image(tmp_path, hu, affine, write_dicom):
    folder = write_dicom(tmp_path / "a", hu, affine)
    (folder / "__MACOSX").mkdir()
    for image in list(folder.glob("*_00*")):
        (folder / "__MACOSX" / f"._{image.name}").write_bytes(image.read_bytes())
        (folder / f"._{image.name}").write_bytes(image.read_bytes())
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in folder.rglob("*"):
            archive.write(file, file.relative_to(folder))
    for source in (folder, tmp_path / "a.zip"):
        scan = load_scan(source)
        assert scan.shape == (1, *hu.shape) and scan.meta["warnings"] == []


def stack(depth: list[float]):
    positions = np.stack([np.zeros(len(depth)), np.zeros(len(depth)), depth], axis=1)
    slices = np.tile(np.asarray(depth)[:, None, None], (1, 2, 2)).astype(np.float32)
    return even_slices(slices, positions, np.array([0.0, 0, 1]), "a")


def test_a_gap_of_ten_mm_is_ten_mm(tmp_path):
    even, step, _ = stack([0, 5, 10, 15, 25.0004, 30, 35])
    assert len(even) == 8 and step[2] == pytest.approx(5, abs=0.01)


def test_the_grid_of_irregular_gaps_is_the_smallest_regular_one():
    even, step, warnings = stack([0, 2, 4, 6, 8, 13, 18, 23, 28, 33, 38, 43])
    assert step[2] == pytest.approx(2) and "2.0 to 5.0 mm apart" in warnings[0]
    np.testing.assert_allclose(even[:, 0, 0], np.arange(len(even)) * 2, atol=1e-4)


@pytest.mark.parametrize(
    ("distances", "step"),
    [([5, 5, 5, 10, 10, 10, 10], 5), ([1, 1.02, 0.98, 1, 2], 1), ([1, 5, 5, 5], 5), ([3, 4], 3.5)],
)
def test_regular_step(distances, step):
    assert regular_step(np.array(distances, float)) == pytest.approx(step, rel=0.02)


def test_what_identifies_a_patient_is_in_no_message(tmp_path, hu, affine, write_dicom):
    folder = write_dicom(tmp_path / "a", hu, affine)
    edit(folder, lambda image, _: setattr(image, "Modality", "MR"), lambda number: number > 3)
    with pytest.raises(ScanError) as refused:
        load_scan(folder)
    assert "Doe" not in str(refused.value) and "4711" not in str(refused.value)


def test_an_image_whose_number_of_rows_is_no_number_counts_as_damaged(tmp_path, hu, affine, write_dicom):
    folder = write_dicom(tmp_path / "a", hu, affine)
    edit(folder, lambda image, _: setattr(image, "Rows", [image.Rows, 1]), lambda number: number == 1)
    (warning,) = load_scan(folder).meta["warnings"]
    assert "1 files that cannot be opened or have a damaged header (TypeError)" in warning
