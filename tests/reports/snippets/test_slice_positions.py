"""From series and image numbers to world z, and what cannot be resolved."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from bundle.ctfindings.reports.snippets.slice_positions import Studies
from bundle.ctfindings.scan.load_scan import ScanError
from tests.enhanced_ct import images_of, write_enhanced

WriteDicom = Callable[..., Path]


def read(folder: Path) -> Studies:
    studies = Studies(folder)
    for _ in studies.read():
        pass
    return studies


@pytest.fixture
def archive(tmp_path: Path, write_dicom: WriteDicom, hu: np.ndarray, affine: np.ndarray) -> Path:
    write_dicom(tmp_path / "archive" / "scan_1", hu, affine, number=3)
    return tmp_path / "archive"


def test_image_of_a_series_is_found_at_its_world_z(archive: Path, affine: np.ndarray) -> None:
    study = read(archive).find("scan_1")
    assert study is not None
    # The fixture numbers slices from the bottom: image 1 is voxel 0.
    for image in (1, 17, 44):
        assert study.position(3, image).z_mm == pytest.approx((affine @ [0, 0, image - 1, 1])[2])
    assert study.position(3, 11, 21).z_mm == pytest.approx((affine @ [0, 0, 15, 1])[2])


def test_what_is_not_there_is_named(archive: Path) -> None:
    study = read(archive).find("scan_1")
    assert study is not None
    assert study.position(4, 10).problem == "no such series"
    assert study.position(3, 45).problem == "no such image"
    assert study.position(3, 40, 50).problem == "no such image"
    assert study.position(3, 0).problem == "no such image"
    assert read(archive).find("scan_2") is None


def test_a_series_that_is_not_ct_is_named_whatever_the_image(archive: Path) -> None:
    for file in (archive / "scan_1").iterdir():
        header = pydicom.dcmread(file)
        header.Modality = "RTSTRUCT"
        header.save_as(file)
    study = read(archive).find("scan_1")
    assert study is not None
    assert study.position(3, 10).problem == study.position(3, 400).problem == "not a CT image"


def test_an_image_with_a_damaged_header_is_passed_over(archive: Path) -> None:
    (file,) = (archive / "scan_1").glob("*_010")
    content = file.read_bytes()
    assert content.count(b"\x20\x00\x13\x00IS") == 1
    file.write_bytes(content.replace(b"\x20\x00\x13\x00IS", b"\x20\x00\x13\x00I\xff"))
    study = read(archive).find("scan_1")
    assert (
        study is not None
        and study.position(3, 11).problem == "no such image"
        and study.position(3, 12).z_mm is not None
    )


def test_series_may_be_left_out_only_where_there_is_one(
    archive: Path, write_dicom: WriteDicom, hu: np.ndarray, affine: np.ndarray
) -> None:
    study = read(archive).find("scan_1")
    assert study is not None and study.position(None, 10).series == 3
    write_dicom(archive / "scan_1", hu, affine, number=4)
    study = read(archive).find("scan_1")
    assert study is not None and study.position(None, 10).problem == "series not named"


def test_two_series_of_one_number_at_other_places_are_ambiguous(
    archive: Path, write_dicom: WriteDicom, hu: np.ndarray, affine: np.ndarray
) -> None:
    lower = affine.copy()
    lower[2, 3] -= 30
    write_dicom(archive / "scan_1", hu, lower, number=3)
    study = read(archive).find("scan_1")
    assert study is not None and study.position(3, 10).problem == "ambiguous"


def test_localizers_coronal_and_secondary_images_have_no_z(
    archive: Path, write_dicom: WriteDicom, hu: np.ndarray, affine: np.ndarray
) -> None:
    write_dicom(archive / "scan_1", hu, affine, number=1, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))
    write_dicom(archive / "scan_1", hu, affine, number=602, orientation=(1, 0, 0, 0, 0, -1))
    write_dicom(archive / "scan_1", hu, affine, number=99, image_type=("DERIVED", "SECONDARY", "OTHER"))
    study = read(archive).find("scan_1")
    assert study is not None
    assert [study.position(series, 5).problem for series in (1, 602, 99)] == [
        "not axial",
        "not axial",
        "not a CT image",
    ]
    assert study.position(None, 5).series == 3


def test_a_frame_of_an_enhanced_ct_is_the_image_of_its_number(archive: Path, affine: np.ndarray) -> None:
    images = images_of(archive / "scan_1")
    write_enhanced(archive / "whole" / "a", images)
    write_enhanced(archive / "parts" / "a", images[:20], ConcatenationUID="1.2.3", ConcatenationFrameOffsetNumber=0)
    write_enhanced(archive / "parts" / "b", images[20:], ConcatenationUID="1.2.3", ConcatenationFrameOffsetNumber=20)
    studies = read(archive)
    for name in ("whole", "parts"):
        study = studies.find(name)
        assert study is not None
        for image in (1, 21, 44):
            assert study.position(3, image).z_mm == pytest.approx((affine @ [0, 0, image - 1, 1])[2])
        assert study.position(None, 45).problem == "no such image"


def test_tilted_images_count_with_their_centre(
    tmp_path: Path, write_dicom: WriteDicom, hu: np.ndarray, affine: np.ndarray
) -> None:
    write_dicom(tmp_path / "tilted", hu, affine, tilt_degrees=20.0)
    study = read(tmp_path).find("tilted")
    assert study is not None
    rise = np.sin(np.radians(20)) * 2.5 * (hu.shape[1] - 1) / 2
    assert study.position(3, 10).z_mm == pytest.approx((affine @ [0, 0, 9, 1])[2] + rise, abs=1e-3)


def test_a_study_is_found_by_zip_name_accession_number_and_uid(archive: Path, tmp_path: Path) -> None:
    for file in (archive / "scan_1").iterdir():
        image = pydicom.dcmread(file)
        image.AccessionNumber, image.StudyInstanceUID = "A77", "1.2.3"
        image.save_as(file)
    with zipfile.ZipFile(archive / "packed.zip", "w") as packed:
        for file in (archive / "scan_1").iterdir():
            packed.write(file, f"deep/er/{file.name}")
    shutil.rmtree(archive / "scan_1")
    studies = read(archive)
    for identity in ("packed", "A77", "1.2.3"):
        study = studies.find(identity)
        assert study is not None and study.position(3, 1).z_mm is not None
    assert studies.only_study is not None


def test_folder_without_dicom_is_refused(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("nothing")
    with pytest.raises(ScanError, match="contains no DICOM images"):
        read(tmp_path)
    with pytest.raises(ScanError, match="folder not found"):
        Studies(tmp_path / "absent")


def test_images_of_a_real_series_lie_every_3_mm_from_the_top(shared_data: Path, tmp_path: Path) -> None:
    """134 images with a series number of 0; the study holds a structure set as series 3 as well."""
    archive = shared_data / "dicom" / "nsclc_lung1-001_full_chest.zip"
    (tmp_path / archive.name).symlink_to(archive)
    study = read(tmp_path).find(archive.stem)
    assert study is not None
    assert [study.position(None, image).z_mm for image in range(1, 135)] == pytest.approx(
        [-282.5 - 3 * step for step in range(134)]
    )
    assert study.position(0, 134).z_mm == pytest.approx(-681.5)
    assert study.position(None, 135).problem == "no such image"
    assert study.position(3, 2).problem == "not a CT image"


def test_real_series_whose_number_was_removed_resolves_images_alone(shared_data: Path, tmp_path: Path) -> None:
    archive = shared_data / "dicom" / "ts_example_20_slices.zip"
    (tmp_path / archive.name).symlink_to(archive)
    study = read(tmp_path).find(archive.stem)
    assert study is not None
    assert study.position(None, 277).z_mm == pytest.approx(-786.5)
    assert study.position(2, 277).problem == "no such series"
