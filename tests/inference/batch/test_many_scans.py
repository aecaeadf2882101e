"""Many scans with one start: what arguments name, and that one bad file stops no other."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from bundle.ctfindings.inference.batch.many_scans import Scan, expand_scans, find_in_scans
from bundle.ctfindings.inference.service import load_service


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_files_folders_globs_and_tables_become_scans_once(tmp_path: Path) -> None:
    names = ["a.nii.gz", "b.nrrd", "folder/c.mha", "folder/notes.txt", "more/d.nii", "more/e.nii"]
    touch(*(tmp_path / name for name in names))
    (tmp_path / "list.csv").write_text("image,note\nmore/e.nii,x\na.nii.gz,y\n")
    given = [tmp_path / "a.nii.gz", tmp_path / "*.nrrd", tmp_path / "folder", tmp_path / "list.csv"]
    scans = expand_scans([str(path) for path in given])
    assert [scan.path.name for scan in scans] == ["a.nii.gz", "b.nrrd", "c.mha", "e.nii"]
    assert {scan.place for scan in scans} == {Path()}


def test_scans_of_one_name_get_folders_of_their_own(tmp_path: Path) -> None:
    touch(tmp_path / "x" / "scan.nii.gz", tmp_path / "x" / "scan.nrrd", tmp_path / "y" / "scan.nii.gz")
    scans = expand_scans([str(tmp_path / "x"), str(tmp_path / "y")])
    assert [scan.place for scan in scans] == [Path(), Path("x"), Path("y")]


def test_a_folder_without_scans_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names no scan"):
        expand_scans([str(tmp_path)])


def test_a_bad_scan_is_listed_with_its_reason_and_the_others_are_written(
    tmp_path: Path, bundle_root: Path, untrained_weights: Path, phantom_scan: tuple[Path, Path]
) -> None:
    good = [tmp_path / "one.nii.gz", tmp_path / "two.nii.gz"]
    for path in good:
        shutil.copy(phantom_scan[0], path)
    bad = tmp_path / "bad.nii.gz"
    bad.write_text("no scan")
    service = load_service(bundle_root, untrained_weights, device="cpu")
    scans = [Scan(path, Path()) for path in (good[0], bad, good[1])]
    summary, problems = find_in_scans(service, scans, tmp_path / "out", ["fluid around the lung"])
    assert list(problems) == [str(bad)] and "[wrong-content]" in problems[str(bad)]
    with summary.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["done", "failed", "done"]
    for path in good:
        folder = tmp_path / "out" / path.name.removesuffix(".nii.gz")
        assert {file.name for file in folder.iterdir()} >= {"findings.json", "report.html"}
        record = json.loads((folder / "findings.json").read_text(encoding="utf-8"))
        assert record["queries"][0]["text"] == "fluid around the lung"
    assert not (tmp_path / "out" / "bad").exists()
