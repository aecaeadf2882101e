"""What tells a file or folder from what it was before."""

import os
from pathlib import Path

import pytest

from bundle.ctfindings.files.fingerprint import FileSignature, file_signature


def write(path: Path, content: bytes, time_ns: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(time_ns, time_ns))
    return path


def test_a_file_is_its_size_and_time(tmp_path: Path) -> None:
    assert file_signature(write(tmp_path / "a.nii", b"abc", 5_000)) == FileSignature(1, 3, 5_000)


def test_a_folder_is_all_its_files_and_not_its_own_time(tmp_path: Path) -> None:
    write(tmp_path / "series" / "1.dcm", b"abc", 5_000)
    file = write(tmp_path / "series" / "deep" / "2.dcm", b"abcd", 4_000)
    os.utime(tmp_path / "series", ns=(1, 1))
    before = file_signature(tmp_path / "series")
    assert before == FileSignature(2, 7, 5_000)
    write(file, b"dcba", 6_000)
    os.utime(tmp_path / "series", ns=(1, 1))
    assert file_signature(tmp_path / "series") == FileSignature(2, 7, 6_000)


@pytest.mark.parametrize("header", ["scan.mhd", "scan.nhdr", "scan.hdr"])
def test_a_header_is_its_voxels_too(tmp_path: Path, header: str) -> None:
    write(tmp_path / header, b"abc", 5_000)
    write(tmp_path / "scan2.raw", b"other", 9_000)
    write(tmp_path / "scan.raw", b"voxels", 4_000)
    assert file_signature(tmp_path / header) == FileSignature(2, 9, 5_000)
    write(tmp_path / "scan.raw", b"VOXELS", 6_000)
    assert file_signature(tmp_path / header) == FileSignature(2, 9, 6_000)


def test_what_is_not_there_has_no_files(tmp_path: Path) -> None:
    assert file_signature(tmp_path / "none") == file_signature(tmp_path) == FileSignature(0, 0, 0)
