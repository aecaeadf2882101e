"""Files appear whole, whoever else writes them."""

import os
from pathlib import Path

import pytest

from bundle.ctfindings.files.atomic_write import atomic_path, remove_partials


def test_two_writers_of_one_file_do_not_share_a_temporary_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two machines with one disk may give a process the same number."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    target = tmp_path / "scan.nii.gz"
    with atomic_path(target) as first, atomic_path(target) as second:
        assert first != second and first.suffixes[-2:] == second.suffixes[-2:] == [".nii", ".gz"]
        first.write_text("first")
        second.write_text("second")
    assert target.read_text() == "first" and list(tmp_path.iterdir()) == [target]


def test_what_a_killed_process_left_of_a_file_is_removed(tmp_path: Path) -> None:
    names = [".0123456789abcdef.partial.last.pt", ".0123456789abcdef.partial.best.pt", "last.pt", ".a.partial.last.pt"]
    for name in names:
        (tmp_path / name).touch()
    remove_partials(tmp_path / "last.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])
