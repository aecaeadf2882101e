"""Files below a folder: also those behind links, and a folder linked into itself once."""

from pathlib import Path

import pytest

from bundle.ctfindings.files.atomic_write import atomic_path
from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.files.folders import check_outside, check_writable, files_below, walk_folder


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """``root`` with a file, and links to a folder elsewhere, to itself, and to a file."""
    root, elsewhere = tmp_path / "root", tmp_path / "disk2"
    (root / "a").mkdir(parents=True)
    (elsewhere / "deep").mkdir(parents=True)
    (root / "a" / "one.nii.gz").touch()
    (elsewhere / "deep" / "blob").touch()
    try:
        (root / "b").symlink_to(elsewhere)
        (elsewhere / "deep" / "back").symlink_to(root)
        (root / "a" / "two.nii.gz").symlink_to(elsewhere / "deep" / "blob")
        (root / "a" / "gone.nii.gz").symlink_to(tmp_path / "nothing")
    except OSError:
        pytest.skip("this system makes no links")
    return root


def test_links_to_folders_are_followed_and_files_keep_their_names(linked: Path) -> None:
    found = [path.relative_to(linked).as_posix() for path in files_below(linked)]
    assert found == ["a/one.nii.gz", "a/two.nii.gz", "b/deep/blob"]


def test_what_a_killed_process_left_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / ".partial-abc").mkdir()
    (tmp_path / ".partial-abc" / "evidence.nii.gz").touch()
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "scan.nii.gz") as partial:
        partial.touch()
        left = partial.rename(partial.with_name(partial.name.replace("scan", "other")))
        raise KeyboardInterrupt
    assert left.is_file() and files_below(tmp_path) == []


def test_a_folder_taken_out_of_the_list_is_not_entered(linked: Path) -> None:
    seen = []
    for place, subfolders, _ in walk_folder(linked):
        seen.append(place.name)
        if place.name == "b":
            subfolders.clear()
    assert seen == ["root", "a", "b"]


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="gone: cannot be read"):
        files_below(tmp_path / "gone")


def test_results_may_not_lie_in_a_folder_that_is_read(tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    for inside in (scans, scans / "out"):
        with pytest.raises(ValueError, match=r"--dicom_dir: .* whose scans are read; give a folder outside of it"):
            check_outside(inside, "--dicom_dir", [scans])
    check_outside(tmp_path / "out", "--dicom_dir", [scans, tmp_path / "scan.nii.gz"])


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="this system has no /proc")
def test_a_folder_in_which_no_file_can_be_made_is_refused_even_to_root(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--output: /proc/results cannot be written"):
        check_writable("/proc/results", "--output")
    check_writable(tmp_path / "new" / "results", "--output")
    assert list(tmp_path.iterdir()) == []
