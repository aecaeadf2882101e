"""The scans that a request names: files, folders, globs and tables, each with a folder of results."""

from pathlib import Path

import pytest

from bundle.ctfindings.inference.batch.scan_list import list_scans, scan_records


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_files_folders_globs_and_tables_become_scans_once(tmp_path: Path) -> None:
    names = ["a.nii.gz", "b.nrrd", "folder/c.mha", "folder/notes.txt", "more/d.nii", "more/e.nii"]
    touch(*(tmp_path / name for name in names))
    (tmp_path / "list.csv").write_text("image,note\nmore/e.nii,x\na.nii.gz,y\n")
    scans = list_scans([tmp_path / "a.nii.gz", tmp_path / "*.nrrd", tmp_path / "folder", tmp_path / "list.csv"])
    found = {scan.path.relative_to(tmp_path).as_posix(): scan.folder.as_posix() for scan in scans}
    assert found == {"a.nii.gz": "a", "b.nrrd": "b", "folder/c.mha": "c", "more/e.nii": "more/e"}


def test_results_lie_as_the_scans_do_in_their_folder(tmp_path: Path) -> None:
    touch(tmp_path / "x" / "scan.nii.gz", tmp_path / "y" / "scan.nii.gz", tmp_path / "y" / "scan.nrrd")
    folders = {scan.name: scan.folder.as_posix() for scan in list_scans([tmp_path])}
    assert folders == {
        "x/scan.nii.gz": "x/scan", "y/scan.nii.gz": "y/scan.nii.gz", "y/scan.nrrd": "y/scan.nrrd"
    }  # fmt: skip
    files = [scan.folder.as_posix() for scan in list_scans([tmp_path / "x/scan.nii.gz", tmp_path / "y/scan.nii.gz"])]
    assert files == ["x/scan", "y/scan"]


def test_no_two_scans_share_a_folder(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("x/p/a.nii.gz", "y/p/a.nii.gz", "z/a-2.nii.gz")]
    touch(*paths)
    assert [scan.folder.as_posix() for scan in list_scans(paths)] == ["a-1", "a-3", "a-2"]


def test_a_name_of_dots_alone_and_one_outside_the_table_stay_inside_the_output(tmp_path: Path) -> None:
    touch(tmp_path / "a.nii", tmp_path / "lists" / "...nii")
    (tmp_path / "lists" / "list.csv").write_text(f"path\n../a.nii\n{tmp_path / 'lists' / '...nii'}\n")
    assert [scan.folder.as_posix() for scan in list_scans([tmp_path / "lists" / "list.csv"])] == ["a", "scan"]


def test_an_argument_that_names_no_scan_is_named_and_stops_no_other(tmp_path: Path) -> None:
    touch(tmp_path / "a.nii")
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.csv").write_text("note\nx\n")
    wrong = {"empty": "names no scan", "*.nrrd": "names no scan", "list.csv": "rename that of the scans to image"}
    for name, problem in wrong.items():
        with pytest.raises(ValueError, match=problem):
            list_scans([tmp_path / name])
    records = scan_records([str(tmp_path / name) for name in ("a.nii", *wrong)])
    assert [Path(each["image"]).name for each in records] == ["a.nii", *wrong]
    assert ["problem" in each for each in records] == [False, True, True, True]


def test_a_sign_that_monai_replaces_in_an_option_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "scan #1.nii")
    with pytest.raises(ValueError, match="use ct-findings, or rename it"):
        list_scans([tmp_path / "scan ::1.nii"])


def test_a_missing_file_is_left_to_its_reader(tmp_path: Path) -> None:
    assert [scan.folder for scan in list_scans([tmp_path / "gone.nii.gz"])] == [Path("gone")]


def test_scans_and_masks_pair() -> None:
    one = {"image": "a.nii", "folder": "a"}
    assert scan_records("a.nii") == [one]
    assert scan_records(["a.nii", "b.nii"], [None, "m.nii"]) == [
        one,
        {"image": "b.nii", "folder": "b", "anatomy": "m.nii"},
    ]
    assert scan_records("a.nii", stored={"intercept": -8192}) == [{**one, "stored": {"intercept": -8192}}]
    assert scan_records(None) == []
    with pytest.raises(ValueError, match="1 masks were given for 2 scans"):
        scan_records(["a.nii", "b.nii"], "m.nii")
    with pytest.raises(ValueError, match=r"stored: expected a mapping such as .*, got -8192"):
        scan_records("a.nii", stored=-8192)  # type: ignore[arg-type]
