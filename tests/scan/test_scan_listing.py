"""Every scan of a folder is listed: files by name in any case, folders of DICOM by content."""

from pathlib import Path

import pytest

from bundle.ctfindings.scan.file_format import scan_stem
from bundle.ctfindings.scan.scan_listing import scans_below


def touch(*paths: Path, content: bytes = b"") -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


DICOM = b"\0" * 128 + b"DICM"


def test_scan_files_are_listed_whatever_the_case_of_their_names(tmp_path: Path) -> None:
    names = ["UP.NII.GZ", "a.nii", "same.nii.gz", "same.nrrd", "sub/b.MHA", "sub/c.nhdr", "d.mhd", "e.Zip"]
    touch(*(tmp_path / name for name in names), tmp_path / "d.raw", tmp_path / "notes.txt")
    touch(tmp_path / "__MACOSX" / "._a.nii", tmp_path / "._a.nii", tmp_path / "text" / "readme.txt")
    assert sorted(scans_below(tmp_path)) == sorted(names)


def test_folders_of_dicom_are_listed_beside_scan_files_and_below_a_dicomdir(tmp_path: Path) -> None:
    touch(tmp_path / "DICOMDIR", tmp_path / "cd/DICOM/ST1/SE1/IM1", tmp_path / "cd/DICOM/ST1/SE2/IM1", content=DICOM)
    touch(tmp_path / "mixed" / "IM1", tmp_path / "mixed" / "deeper" / "IM2", content=DICOM)
    touch(tmp_path / "mixed" / "scan.nii.gz", tmp_path / "cd" / "autorun.inf")
    assert sorted(scans_below(tmp_path)) == ["cd/DICOM/ST1/SE1", "cd/DICOM/ST1/SE2", "mixed", "mixed/scan.nii.gz"]


def test_a_folder_that_is_itself_a_series_is_one_scan(tmp_path: Path) -> None:
    touch(tmp_path / "series" / "IM1", content=DICOM)
    assert scans_below(tmp_path / "series") == {"series": tmp_path / "series"}


@pytest.mark.parametrize(
    ("name", "stem"),
    [("a/b/x.nii.gz", "x"), ("x.NRRD", "x"), ("dicom_folder", "dicom_folder"), ("y.1.zip", "y.1"), ("..", "scan")],
)
def test_stem_is_the_name_without_the_format(name: str, stem: str) -> None:
    assert scan_stem(name) == stem
