"""The command that labels a table of reports, as a user runs it."""

import csv
import subprocess
from pathlib import Path

import pytest

from bundle.ctfindings.files.csv_table import read_table
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.reports.report_table import CAPTION_COLUMNS, ReportCounts, read_reports
from tests import commands

ROOT = Path(__file__).resolve().parents[2]
ROWS = [
    ("scan_a", "Heart size is normal. 6 mm nodule, in the lingula. No pleural effusion.", "Nodule in the lingula."),
    ("scan_b", "Not given.", "Not given."),
    ("scan_c", "Emphysema cannot be excluded. Sarcoidosis.", "Pericardial effusion."),
]


def write(path: Path, repeats: int = 1) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("VolumeName", "Findings_EN", "Impressions_EN"))
        writer.writerows(ROWS * repeats)
    return path


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return commands.run(["scripts/label_reports.py", *arguments])


def test_one_row_for_each_report_with_the_labels_in_order(tmp_path: Path) -> None:
    output = tmp_path / "labels.csv"
    columns = ["--text-columns", "Findings_EN,Impressions_EN", "--id-column", "VolumeName"]
    result = run(write(tmp_path / "reports.csv", repeats=100), output, *columns, "--processes", 2)
    assert result.returncode == 0, result.stderr
    with output.open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file))
    assert header == ["VolumeName", *FINDING_NAMES, *CAPTION_COLUMNS]
    assert [row[0] for row in rows] == ["scan_a", "scan_b", "scan_c"] * 100
    assert rows[:3] == rows[-3:]
    a, b, c = (dict(zip(header, row, strict=True)) for row in rows[:3])
    assert (a["Lung nodule"], a["Pleural effusion"], a["Emphysema"]) == ("1", "0", "-1")
    assert (a["caption_heart"], a["normal_heart"], a["normal_lung"]) == ("Heart size is normal.", "1", "0")
    assert {b[name] for name in FINDING_NAMES} == {"-1"} and b["caption_lung"] == b["normal_lung"] == ""
    assert (c["Pericardial effusion"], c["Emphysema"]) == ("1", "-1")
    assert "300 reports" in result.stdout and "100 of them without text" in result.stdout
    assert "100  Sarcoidosis." in result.stdout
    assert "scan_a" not in result.stdout + result.stderr


def test_a_file_that_exists_is_not_written_over(tmp_path: Path) -> None:
    output = tmp_path / "labels.csv"
    output.write_text("mine", encoding="utf-8")
    result = run(write(tmp_path / "reports.csv"), output)
    assert result.returncode == 1
    assert result.stderr == f"error: {output}: exists already; remove it or choose another file\n"
    assert output.read_text(encoding="utf-8") == "mine"


def test_a_missing_column_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    output = tmp_path / "labels.csv"
    result = run(write(tmp_path / "reports.csv"), output, "--text-columns", "Finding_EN")
    assert result.returncode == 1
    assert "has no column 'Finding_EN'" in result.stderr and "did you mean 'Findings_EN'?" in result.stderr
    assert result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["reports.csv"]


@pytest.mark.parametrize("processes", [1, 2])
def test_reports_come_in_the_order_of_the_table(tmp_path: Path, processes: int) -> None:
    table = read_table(write(tmp_path / "reports.csv", repeats=100))
    counts = ReportCounts()
    reports = list(read_reports(table, ["Findings_EN", "Impressions_EN"], processes))
    for report in reports:
        counts.add(report)
    assert [bool(report.captions) for report in reports] == [True, False, True] * 100
    assert (counts.reports, counts.empty, counts.unplaced["Sarcoidosis."]) == (300, 100, 100)
    assert (counts.labels["Lung nodule", 1], counts.captions["heart", False]) == (100, 100)


def test_a_column_named_for_the_impression_comes_first_in_the_captions(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "reports.csv"))
    first = next(read_reports(table, ["Findings_EN", "Impressions_EN"]))
    assert first.captions["lung"].text.startswith("Nodule in the lingula.")
