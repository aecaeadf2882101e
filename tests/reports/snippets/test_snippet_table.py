"""The miner's command line: what it writes, what it prints, and what it refuses."""

import csv
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Run = Callable[..., None]
NODULE = "A 6 mm nodule in the lingula (series 3, image 20)."


@pytest.fixture
def run(bundle_root: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    def call(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["mine_snippets.py", *map(str, arguments)])
        runpy.run_path(str(bundle_root / "scripts" / "mine_snippets.py"), run_name="__main__")

    return call


def table(path: Path, *rows: tuple[str, str], columns: tuple[str, str] = ("id", "findings")) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def content(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_output_has_the_documented_columns(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(table(tmp_path / "in.csv", ("a", NODULE), ("b", "No nodule.")), tmp_path / "out.csv")
    assert content(tmp_path / "out.csv") == [
        ["id", "series", "image", "snippet", "rule", "confidence"],
        ["a", "3", "20", "A 6 mm nodule in the lingula.", "series_image", "high"],
    ]
    printed = capsys.readouterr().out
    assert "1 snippets in 1 of 2 reports" in printed
    assert "A 6 mm nodule" in printed


def test_sample_0_prints_nothing_of_a_report(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(table(tmp_path / "in.csv", ("Mueller_Anna", NODULE)), tmp_path / "out.csv", "--sample", "0")
    printed = "".join(capsys.readouterr())
    assert "nodule" not in printed and "Mueller" not in printed


def test_a_negative_sample_is_refused_before_anything_is_written(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(table(tmp_path / "in.csv", ("a", NODULE)), tmp_path / "out.csv", "--sample", "-1")
    assert stopped.value.code == 2 and "expected 0 or more, got -1" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()


def test_with_dicom_only_what_has_a_place_is_written_and_the_rest_is_counted(
    run: Run,
    tmp_path: Path,
    write_dicom: Callable[..., Path],
    hu: np.ndarray,
    affine: np.ndarray,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_dicom(tmp_path / "archive" / "a", hu, affine, number=3)
    rows = [
        ("a", NODULE),
        ("a", "Nodule in the left apex (series 3, image 99)."),
        ("a", "Nodule in the right apex (series 7, image 20)."),
        ("a", "Nodule in the right base (image 1)."),
        ("c", NODULE),
    ]
    run(
        table(tmp_path / "in.csv", *rows),
        tmp_path / "out.csv",
        "--dicom",
        tmp_path / "archive",
        "--refused",
        tmp_path / "refused.csv",
    )
    z = [(affine @ [0, 0, level, 1])[2] for level in (19, 0)]
    assert [(row[0], row[1], row[2], float(row[6])) for row in content(tmp_path / "out.csv")[1:]] == [
        ("a", "3", "20", pytest.approx(z[0])),
        ("a", "3", "1", pytest.approx(z[1])),
    ]
    assert content(tmp_path / "refused.csv") == [
        ["id", "line", "series", "image", "reason"],
        ["a", "3", "3", "99", "no such image"],
        ["a", "4", "7", "20", "no such series"],
        ["c", "6", "3", "20", "no such study"],
    ]
    printed = capsys.readouterr().out
    for reason in ("no such image", "no such series", "no such study"):
        assert reason in printed


def test_a_single_study_is_taken_for_a_single_id_but_never_for_several(
    run: Run, tmp_path: Path, write_dicom: Callable[..., Path], hu: np.ndarray, affine: np.ndarray
) -> None:
    write_dicom(tmp_path / "archive", hu, affine, number=3)
    run(table(tmp_path / "one.csv", ("x", NODULE)), tmp_path / "one_out.csv", "--dicom", tmp_path / "archive")
    run(
        table(tmp_path / "two.csv", ("x", NODULE), ("y", NODULE)),
        tmp_path / "two_out.csv",
        "--dicom",
        tmp_path / "archive",
    )
    assert len(content(tmp_path / "one_out.csv")) == 2
    assert len(content(tmp_path / "two_out.csv")) == 1


def test_columns_may_be_named(run: Run, tmp_path: Path) -> None:
    rows = table(tmp_path / "in.csv", ("a", "Rundherd links (Serie 3, Bild 45)."), columns=("Fall", "Text der Klinik"))
    run(rows, tmp_path / "out.csv", "--id-column", "Fall", "--text-columns", "Text der Klinik")
    assert content(tmp_path / "out.csv")[1][:3] == ["a", "3", "45"]


@pytest.mark.parametrize(
    ("columns", "arguments", "message"),
    [
        (("id", "findings"), ["--text-columns", "finding"], "did you mean 'findings'"),
        (("id", "words"), [], "no text column found"),
        (("number", "findings"), [], "no id column found"),
        (("id", "findings"), ["--dicom", "absent"], "folder not found"),
    ],
)
def test_errors_of_use_are_one_line_and_leave_no_file(
    run: Run, tmp_path: Path, columns: tuple[str, str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(table(tmp_path / "in.csv", ("a", NODULE), columns=columns), tmp_path / "out.csv", *arguments)
    assert message in str(stopped.value) and "\n" not in str(stopped.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_a_file_is_never_written_over(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("precious")
    with pytest.raises(SystemExit, match="exists already"):
        run(table(tmp_path / "in.csv", ("a", NODULE)), tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "precious"
