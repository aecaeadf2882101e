"""The command ``ct-findings``: mistakes are reported before PyTorch and MONAI are imported, and DICOM becomes DICOM."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

from tests.commands import run
from tests.small_scan import WriteDicom


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["none.nii.gz", "-o", "out"], "none.nii.gz: no such file or folder; check the path"),
        (["configs", "-o", "out", "--bundle", "docs"], "give the root folder of the bundle as --bundle"),
        (["configs", "-o", "README.md"], "-o: README.md is a file; give a folder for the results"),
        (["configs", "-o", "configs/out"], "-o: configs/out lies in configs, whose scans are read; give a folder"),
        (["configs"], "the following arguments are required: -o/--output"),
        (["configs", "-o", "out", "--querry", "fluid"], "--querry: no such option; did you mean --query?"),
        (["configs", "-o", "out", "--xyz=1"], "--xyz: no such option; see --help"),
        (["configs", "-o", "out", "--overlays", "configs/gone.json"], "--overlays: configs/gone.json: no such file"),
    ],
)
def test_a_mistake_is_reported_before_anything_heavy_is_imported(
    bundle_root: Path, arguments: list[str], expected: str
) -> None:
    line, imported = refusal(bundle_root, "-m", "bundle.ctfindings", *arguments)
    assert expected in line and not imported & {"torch", "monai", "numpy"}


def test_a_missing_table_is_reported_before_pytorch_and_monai_are_imported(bundle_root: Path, tmp_path: Path) -> None:
    line, imported = refusal(bundle_root, "scripts/prepare_csv.py", "gone.csv", "--output", str(tmp_path / "out"))
    assert line == "error: gone.csv: no such file; check the path" and not imported & {"torch", "monai"}


def refusal(folder: Path, *arguments: str) -> tuple[str, set[str]]:
    """Last line of a command that fails, and the packages that it imported."""
    command = [sys.executable, "-X", "importtime", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert result.returncode in (1, 2)
    lines = result.stderr.splitlines()
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in lines if "|" in line}
    assert "bundle" in imported
    return lines[-1], imported


def test_a_dicom_scan_gets_its_objects_and_a_wrong_path_beside_it_is_named_at_the_end(
    write_dicom: WriteDicom, hu: np.ndarray, affine: np.ndarray, tmp_path: Path
) -> None:
    # A configuration of MONAI would read "#" and "$" in a text.
    series = write_dicom(tmp_path / "$series #1", hu, affine)
    out, objects = tmp_path / "out#2", tmp_path / "objects"
    wrong = [tmp_path / "gone.nii.gz", tmp_path / "**" / "*.nrrd"]
    done = run(["-m", "bundle.ctfindings", series, *wrong, "-o", out, "-q", "fluid #2", "--dicom-dir", objects])
    assert done.returncode == 1, done.stderr
    last = f"error: 2 of 3 scans could not be used; {out / 'findings.csv'} gives the reasons"
    assert done.stderr.splitlines()[-1] == last
    assert "terminating due to exception" not in done.stderr
    with (out / "findings.csv").open(encoding="utf-8", newline="") as file:
        rows = {Path(row["id"]).name: row for row in csv.DictReader(file)}
    assert {name: row["status"] for name, row in rows.items()} == {
        series.name: "done", "gone.nii.gz": "failed", "*.nrrd": "failed"
    }  # fmt: skip
    source = pydicom.dcmread(next(series.iterdir()), stop_before_pixels=True)
    written = [pydicom.dcmread(path, stop_before_pixels=True) for path in (objects / series.name).rglob("*.dcm")]
    assert {"SR", "SEG"} <= {each.Modality for each in written}
    assert {each.StudyInstanceUID for each in written} == {source.StudyInstanceUID}
    record = json.loads((out / series.name / "findings.json").read_text(encoding="utf-8"))
    assert record["scan"]["format"] == "DICOM" and record["queries"][0]["text"] == "fluid #2"
