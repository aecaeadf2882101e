"""Headers of folders and zips: what is read, and which zips are rejected before anything is unpacked."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.scan import dicom_headers
from bundle.ctfindings.scan.dicom_headers import DicomFile, is_axial, read_headers, unpacked
from bundle.ctfindings.scan.load_scan import load_scan

WriteDicom = Callable[..., Path]


@pytest.fixture
def series(tmp_path: Path, hu: np.ndarray, affine: np.ndarray, write_dicom: WriteDicom) -> Path:
    return write_dicom(tmp_path / "series", hu, affine, keep=range(5))


@pytest.fixture
def zipped(tmp_path: Path, series: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "series.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(series.iterdir()):
            archive.write(file, f"deep/{file.name}")
        archive.writestr("notes.txt", "text")
        archive.writestr("__MACOSX/._0", "text")
    return tmp_path / "series.zip"


def number(header: pydicom.Dataset) -> int:
    return int(header.InstanceNumber)


def test_a_zip_has_the_headers_of_its_folder(series: Path, zipped: Path) -> None:
    loose = [header.content for header in read_headers(sorted(series.iterdir()), ["InstanceNumber"], number)]
    packed = list(read_headers([zipped], ["InstanceNumber"], number))
    assert [header.content for header in packed] == [*loose, None] and sorted(loose) == [1, 2, 3, 4, 5]
    assert [header.file.path for header in packed] == [zipped] * 6 and packed[-1].file.member == "notes.txt"
    assert not any(header.damage for header in packed)


def test_a_value_that_cannot_be_used_is_damage_and_its_kind_alone_is_told(series: Path) -> None:
    (file, *_) = series.iterdir()
    (header,) = read_headers([file], ["PatientName"], lambda found: int(str(found.get("PatientName", "Doe"))))
    assert header.content is None and header.damage == "ValueError"


def test_members_that_are_asked_for_are_unpacked_under_new_names_and_removed(zipped: Path, series: Path) -> None:
    names = sorted(file.name for file in series.iterdir())
    with unpacked([DicomFile(series / names[0]), DicomFile(zipped, f"deep/{names[1]}")]) as paths:
        assert [path.read_bytes() for path in paths] == [(series / name).read_bytes() for name in names[:2]]
        assert paths[0] == series / names[0] and names[1] not in str(paths[1])
    assert paths[0].exists() and not paths[1].exists()


@pytest.mark.parametrize(
    ("limit", "value", "found"),
    [
        ("MAX_ZIP_MEMBERS", 5, "6 files; at most 5"),
        ("MAX_MEMBER_BYTES", 3000, "bytes in one file; at most 3,000"),
        ("MAX_ZIP_BYTES", 10_000, "bytes in all; at most 10,000"),
        ("MAX_ZIP_RATIO", 1.1, "times its packed size; at most 1"),
    ],
)
def test_a_zip_beyond_a_limit_is_rejected(
    zipped: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: float, found: str
) -> None:
    monkeypatch.setattr(dicom_headers, limit, value)
    for read in (lambda: list(read_headers([zipped], ["InstanceNumber"], number)), lambda: load_scan(zipped)):
        with pytest.raises(ScanError, match=found) as rejected:
            read()
        assert str(rejected.value).startswith(f"{zipped}: unpacks to ") and "give the folder" in str(rejected.value)
        assert rejected.value.code == "zip-beyond-limits"


def test_a_member_that_is_damaged_or_encrypted_is_one_line(zipped: Path) -> None:
    content = bytearray(zipped.read_bytes())
    with zipfile.ZipFile(zipped) as archive:
        start = archive.infolist()[0].header_offset
    content[start + 200 : start + 400] = bytes(200)
    zipped.write_bytes(content)
    with pytest.raises(ScanError, match=r"is a damaged zip .*; copy or download it again"):
        load_scan(zipped)
    with zipfile.ZipFile(zipped) as archive:
        entry = archive.start_dir
    content[start + 6] |= 1
    content[entry + 8] |= 1
    zipped.write_bytes(content)
    with pytest.raises(ScanError, match=r"is encrypted .*; unpack it and give the folder"):
        list(read_headers([zipped], ["InstanceNumber"], number))


@pytest.mark.parametrize(
    ("cosines", "kind", "axial"),
    [
        ([1, 0, 0, 0, 1, 0], ["ORIGINAL", "PRIMARY", "AXIAL"], True),
        ([1, 0, 0, 0, 0.87, 0.5], "ORIGINAL", True),
        ([1, 0, 0, 0, 0.86, 0.51], "ORIGINAL", False),
        ([0, 1, 0, 0, 0, -1], None, False),
        ([1, 0, 0, 0, 1, 0], ["ORIGINAL", "PRIMARY", "localizer"], False),
    ],
)
def test_axial_slices_are_within_a_gantry_tilt_and_not_localizers(cosines: list, kind: object, axial: bool) -> None:
    header = pydicom.Dataset()
    header.ImageOrientationPatient = cosines
    if kind is not None:
        header.ImageType = kind
    assert is_axial(header) is axial
