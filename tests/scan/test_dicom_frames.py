"""Enhanced CT: its frames become the volume of the single images, by the same rules, with limits before decoding."""

import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import RLELossless, generate_uid

from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.scan import dicom_series
from bundle.ctfindings.scan.load_scan import load_scan
from tests.enhanced_ct import images_of, write_enhanced, write_legacy_converted
from tests.scan.test_dicom_series import DERIVED, in_ras


@pytest.fixture
def images(tmp_path, hu, affine, write_dicom) -> list[pydicom.Dataset]:
    """44 single images of the small scan, each with another slope."""
    images = images_of(write_dicom(tmp_path / "single", hu, affine))
    for number, image in enumerate(images):
        image.RescaleSlope = 1 + number / 100
    return images


@pytest.fixture
def expected(tmp_path, images):
    """The scan of the single images."""
    for number, image in enumerate(images):
        image.save_as(tmp_path / "single" / f"{number:03d}", enforce_file_format=True)
    for file in (tmp_path / "single").glob("*_*"):
        file.unlink()
    return load_scan(tmp_path / "single")


def z_of_frame(file: Path, frame: int) -> float:
    groups = pydicom.dcmread(file).PerFrameFunctionalGroupsSequence[frame - 1]
    return float(groups.PlanePositionSequence[0].ImagePositionPatient[2])


def assert_same(scan, expected) -> None:
    np.testing.assert_array_equal(np.asarray(scan), np.asarray(expected))
    np.testing.assert_array_equal(scan.affine, expected.affine)


@pytest.mark.parametrize("write", [write_enhanced, write_legacy_converted])
def test_frames_become_the_volume_of_the_single_images(tmp_path, images, expected, write):
    file = write(tmp_path / "folder" / "image", images[::-1])
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(file, "DICOM/I1")
    for path in (file.parent, file, tmp_path / "a.zip"):
        scan = load_scan(path)
        assert_same(scan, expected)
        assert scan.meta["warnings"] == [] and scan.meta["source_format"] == "dicom"
    source = scan.meta["source_images"]
    assert set(source.sop_uids) == {pydicom.dcmread(file).SOPInstanceUID}
    places = [z_of_frame(file, frame) for frame in source.frame_numbers]
    assert places == pytest.approx([-300.0 + 3 * index for index in range(44)])
    assert expected.meta["source_images"].frame_numbers == (None,) * 44


def test_one_frame_a_file_is_a_series_too(tmp_path, images, expected):
    for number, image in enumerate(images):
        write_enhanced(tmp_path / "a" / str(number), [image], InstanceNumber=number + 1)
    assert_same(load_scan(tmp_path / "a"), expected)


def test_parts_of_a_concatenation_are_one_volume(tmp_path, images, expected):
    parts = {}
    for number, part in enumerate((images[:20], images[20:]), start=1):
        file = write_enhanced(
            tmp_path / "a" / f"part{number}",
            part,
            ConcatenationUID="1.2.3",
            InConcatenationNumber=number,
            InstanceNumber=number,
        )
        parts[pydicom.dcmread(file).SOPInstanceUID] = file
    scan = load_scan(tmp_path / "a")
    assert_same(scan, expected)
    source = scan.meta["source_images"]
    places = [z_of_frame(parts[uid], frame) for uid, frame in zip(source.sop_uids, source.frame_numbers, strict=True)]
    assert places == pytest.approx([-300.0 + 3 * index for index in range(44)])
    assert source.instance_numbers == (1,) * 20 + (2,) * 24


def test_localizers_and_projections_among_the_frames_are_left_out(tmp_path, images, expected):
    localizer, projection = (pydicom.dcmread(tmp_path / "single" / "000") for _ in range(2))
    localizer.ImageOrientationPatient, localizer.ImageType = [1, 0, 0, 0, 0, -1], ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    projection.ImageType = [*DERIVED, "MAXIMUM"]
    scan = load_scan(write_enhanced(tmp_path / "a", [localizer, *images, projection]))
    assert_same(scan, expected)
    assert scan.meta["source_images"].frame_numbers == tuple(range(2, 46))
    (warning,) = scan.meta["warnings"]
    assert "series 3 (44 frames) was read, not: series 3 (1 frames), series 3 (1 frames)" in warning


def test_of_two_phases_the_longer_one_is_read(tmp_path, images, expected):
    later = [pydicom.dcmread(tmp_path / "single" / f"{number:03d}") for number in range(43)]
    for image in later:
        image.PixelData = bytes(len(image.PixelData))
    pairs = [*zip(later, images, strict=False), (images[43],)]
    frames = [{"TemporalPositionIndex": 2 - phase} for pair in pairs for phase in range(len(pair))]
    frames[-1] = {"TemporalPositionIndex": 1}
    scan = load_scan(write_enhanced(tmp_path / "a", [image for pair in pairs for image in pair], frames))
    assert_same(scan, expected)
    assert "(44 frames) was read, not: series 3 (43 frames)" in scan.meta["warnings"][0]
    assert scan.meta["source_images"].frame_numbers == (*range(2, 87, 2), 87)


@pytest.mark.parametrize("apart", [0, 60])
def test_stacks_that_meet_are_joined_and_of_others_the_longer_one_is_read(tmp_path, images, expected, apart):
    for image in images[30:]:
        x, y, z = image.ImagePositionPatient
        image.ImagePositionPatient = [x, y, z + apart]
    frames = [{"StackID": "1"}] * 30 + [{"StackID": "2"}] * 14
    scan = load_scan(write_enhanced(tmp_path / "a", images, frames))
    np.testing.assert_array_equal(np.asarray(scan), np.asarray(expected)[..., : 30 if apart else 44])
    assert ("(30 frames) was read, not: series 3 (14 frames)" in " ".join(scan.meta["warnings"])) == bool(apart)


def test_missing_frames_are_interpolated_or_refused_as_images_are(tmp_path, images, expected):
    few = write_enhanced(tmp_path / "few", [image for number, image in enumerate(images) if number not in (10, 20)])
    scan = load_scan(few)
    assert scan.shape == expected.shape and "missing ones were interpolated" in scan.meta["warnings"][0]
    assert len(set(scan.meta["source_images"].frame_numbers)) == 42
    many = write_enhanced(tmp_path / "many", images[:10] + images[20:])
    with pytest.raises(ScanError, match=r"images are missing: a gap of 33\.0 mm"):
        load_scan(many)


def test_a_rescale_that_one_frame_lacks_is_refused(tmp_path, images):
    file = write_enhanced(tmp_path / "a", images)
    image = pydicom.dcmread(file)
    del image.PerFrameFunctionalGroupsSequence[6].PixelValueTransformationSequence
    image.save_as(file)
    with pytest.raises(ScanError, match=r"frame 7 of series 3 \(44 frames\) has no rescale slope and intercept"):
        load_scan(file)


@pytest.mark.parametrize("named", [43, 45, 10**9])
def test_a_header_that_names_another_number_of_frames_is_damaged(tmp_path, images, named):
    file = write_enhanced(tmp_path / "a", images, NumberOfFrames=named)
    with pytest.raises(ScanError, match="1 files that cannot be opened or have a damaged header"):
        load_scan(file)


def test_lost_pixels_name_the_frame(tmp_path, images):
    file = write_enhanced(tmp_path / "a", images)
    file.write_bytes(file.read_bytes()[:-3000])
    with pytest.raises(ScanError, match=r"frame 1 of series 3 \(44 frames\) cannot be decoded .* export"):
        load_scan(file)


def test_more_voxels_than_allowed_are_refused_before_pixels_are_read(tmp_path, images, monkeypatch):
    file = write_enhanced(tmp_path / "a", images)
    monkeypatch.setattr(dicom_series, "MAX_VOXELS", 64 * 52 * 43)
    monkeypatch.setattr(dicom_series, "read_pixels", lambda *_: pytest.fail("pixels were read"))
    with pytest.raises(ScanError, match=r"has 64 x 52 x 44 voxels; at most 143,104 are allowed.*\[too-large\]"):
        load_scan(file)


def test_compressed_frames_are_decoded_all_or_some(tmp_path, images, expected):
    later = [pydicom.dcmread(tmp_path / "single" / f"{number:03d}") for number in range(10)]
    frames = [{"TemporalPositionIndex": 1 + (number < 10)} for number in range(54)]
    for name, content, phases in (("all", images, None), ("some", later + images, frames)):
        file = write_enhanced(tmp_path / name, content, phases)
        image = pydicom.dcmread(file)
        image.compress(RLELossless)
        image.save_as(file)
        assert_same(load_scan(file), expected)


@pytest.mark.skipif(shutil.which("dcmcjpeg") is None, reason="needs dcmcjpeg of Debian's dcmtk")
def test_frames_in_jpeg_lossless_are_decoded(tmp_path, images, expected):
    file = write_enhanced(tmp_path / "a", images, SOPInstanceUID=generate_uid())
    packed = tmp_path / "packed"
    subprocess.run(["dcmcjpeg", "+e1", "+un", str(file), str(packed)], check=True)
    assert str(pydicom.dcmread(packed).file_meta.TransferSyntaxUID) == "1.2.840.10008.1.2.4.70"
    scan = load_scan(packed)
    np.testing.assert_allclose(in_ras(scan), in_ras(expected), atol=1e-3)
