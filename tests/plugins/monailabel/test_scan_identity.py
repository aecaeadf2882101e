"""Which scan is this: by content, not by name, and anew when the files change."""

import hashlib
import os
from pathlib import Path

import pytest

from plugins.monailabel.lib.scan_identity import ScanIdentity


def test_a_file_is_its_content(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(b"scan")
    (tmp_path / "b.nii").write_bytes(b"scan")
    identity = ScanIdentity()
    assert (
        identity.digest(tmp_path / "a.nii")[1]
        == identity.digest(tmp_path / "b.nii")[1]
        == hashlib.sha256(b"scan").hexdigest()
    )


def test_a_changed_file_is_another_scan_even_at_the_same_size(tmp_path: Path) -> None:
    file = tmp_path / "a.nii"
    file.write_bytes(b"scan")
    os.utime(file, ns=(1, 1))
    identity = ScanIdentity()
    before = identity.digest(file)[1]
    file.write_bytes(b"SCAN")
    assert identity.digest(file)[1] != before


def test_an_unchanged_file_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.nii"
    file.write_bytes(b"scan")
    identity = ScanIdentity()
    before = identity.digest(file)
    monkeypatch.setattr("plugins.monailabel.lib.scan_identity._content_digest", lambda *_: pytest.fail("read again"))
    assert identity.digest(file) == before


def test_folders_whose_files_share_bytes_differently_are_different(tmp_path: Path) -> None:
    for folder, files in {
        "one": {"1": b"ab", "2": b"c"},
        "two": {"1": b"a", "2": b"bc"},
        "three": {"1": b"ab", "3": b"c"},
    }.items():
        (tmp_path / folder).mkdir()
        for name, content in files.items():
            (tmp_path / folder / name).write_bytes(content)
    identity = ScanIdentity()
    assert len({identity.digest(tmp_path / folder)[1] for folder in ("one", "two", "three")}) == 3


def test_no_more_paths_are_remembered_than_asked(tmp_path: Path) -> None:
    identity = ScanIdentity(remembered=2)
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode())
        identity.digest(tmp_path / name)
    assert len(identity._known) == 2


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ScanIdentity().digest(tmp_path / "nothing.nii")
