"""From a table to a datalist and a data card, by the command alone."""

import csv
import json
import runpy
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest

from bundle.ctfindings.data.datalist import load_datalist
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.sources.preparation.scan_facts import read_all_facts
from bundle.ctfindings.sources.user_table import read_source

Run = Callable[..., None]
SHAPE = (64, 52, 44)


@pytest.fixture
def run(bundle_root: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    def call(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["prepare_csv.py", *map(str, arguments), "--workers", "1"])
        runpy.run_path(str(bundle_root / "scripts" / "prepare_csv.py"), run_name="__main__")

    return call


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Six small chests."""
    folder = tmp_path / "scans"
    folder.mkdir()
    x, y, z = np.meshgrid(*(np.arange(size, dtype=float) for size in SHAPE), indexing="ij")
    hu = np.full(SHAPE, -1000.0)
    hu[((x - 32) / 26) ** 2 + ((y - 28) / 18) ** 2 < 1] = 40
    for centre in (20, 44):
        hu[((x - centre) / 8) ** 2 + ((y - 28) / 11) ** 2 + ((z - 22) / 18) ** 2 < 1] = -850
    affine = np.diag([4.0, 4.0, 5.0, 1.0])
    for number in range(6):
        nib.save(nib.Nifti1Image((hu + number).astype(np.int16), affine), folder / f"s{number}.nii.gz")
    return folder


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def read(output: Path) -> tuple[dict[str, Any], dict[str, Any], list[list[str]]]:
    with (output / "ledger.csv").open(encoding="utf-8", newline="") as file:
        ledger = list(csv.reader(file))[1:]
    datalist, card = (
        json.loads((output / name).read_text(encoding="utf-8")) for name in ("datalist.json", "data_card.json")
    )
    return datalist, card, ledger


def plain(paths: list[Path]) -> dict[Path, dict[str, Any]]:
    """Scans whose files say all themselves."""
    return {path: {} for path in paths}


def studies_of(datalist: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {study["id"]: study for split in ("training", "validation", "test") for study in datalist[split]}


def test_columns_of_any_name_become_study_records(run: Run, tmp_path: Path, scans: Path) -> None:
    rows = [
        {
            "Fall": f"f{number}",
            "PatNr": f"Meier{number // 2}",
            "Datei": f"s{number}.nii.gz",
            "Text": "The heart is enlarged. No pleural effusion.",
            "Erguss": "nein",
            "Cardiomegaly": "1",
        }
        for number in range(6)
    ]
    table = write(tmp_path / "t.csv", rows)
    columns = ["id=Fall", "patient=PatNr", "image=Datei", "findings=Text", "label:pleural effusion=Erguss"]
    run(
        table, "--output", tmp_path / "out", "--scans", scans, "--fractions", "0.4", "0.3", "0.3", "--columns", *columns
    )
    datalist, card, ledger = read(tmp_path / "out")
    assert ledger == []
    study = studies_of(datalist)["f3"]
    assert study["report"]["findings"] == "The heart is enlarged. No pleural effusion."
    assert study["labels"][FINDING_NAMES.index("Pleural effusion")] == 0
    assert study["labels"][FINDING_NAMES.index("Cardiomegaly")] == 1
    assert study["labels"].count(-1) == 16
    assert "heart" in study["captions"]
    loaded = [
        each
        for split in ("training", "validation", "test")
        for each in load_datalist(tmp_path / "out" / "datalist.json", split)
    ]
    assert {Path(each["image"]).resolve() for each in loaded} == set(scans.iterdir())
    assert card["counts"]["all"] == {
        "studies": 6,
        "examinations": 6,
        "patients": 3,
        "with report": 6,
        "with labels": 6,
        "with anatomy mask": 0,
        "with finding masks": 0,
        "with snippets": 0,
        "snippets": 0,
    }
    assert card["prevalence"]["Cardiomegaly"]["all"] == {"present": 6, "absent": 0, "unknown": 0}
    assert card["scans"]["extent_mm"]["bottom-top"] == [220.0] * 5
    assert {"Cardiomegaly", "Pleural effusion"} == {name for split in card["without_auc"].values() for name in split}
    assert card["scans"]["orientation"] == {"RAS": 6}


def test_a_patient_is_in_one_split_and_not_named(run: Run, tmp_path: Path, scans: Path) -> None:
    rows = [
        {"id": f"f{number}", "patient": "Meier" if number % 2 else "Huber", "image": f"s{number}.nii.gz"}
        for number in range(6)
    ]
    run(write(tmp_path / "t.csv", rows), "--output", tmp_path / "out", "--scans", scans)
    datalist, _, _ = read(tmp_path / "out")
    for patient in {study["patient"] for study in studies_of(datalist).values()}:
        assert (
            sum(
                any(study["patient"] == patient for study in datalist[split])
                for split in ("training", "validation", "test")
            )
            == 1
        )
    for file in ("datalist.json", "data_card.json", "data_card.html", "ledger.csv"):
        text = (tmp_path / "out" / file).read_text(encoding="utf-8")
        assert "Meier" not in text and "Huber" not in text


def test_the_table_may_name_the_splits(run: Run, tmp_path: Path, scans: Path) -> None:
    rows = [
        {
            "id": f"f{n}",
            "patient": f"p{n // 2}",
            "image": f"s{n}.nii.gz",
            "split": ("train", "", "val", "val", "", "test")[n],
        }
        for n in range(6)
    ]
    run(write(tmp_path / "t.csv", rows), "--output", tmp_path / "out", "--scans", scans)
    datalist, _, _ = read(tmp_path / "out")
    # A study without a split goes where its patient is.
    assert {split: [study["id"] for study in datalist[split]] for split in ("training", "validation", "test")} == {
        "training": ["f0", "f1"],
        "validation": ["f2", "f3"],
        "test": ["f4", "f5"],
    }


def test_a_study_that_is_left_out_still_names_the_split_of_its_patient(run: Run, tmp_path: Path, scans: Path) -> None:
    (scans / "broken.nii.gz").write_bytes(b"no gzip")
    rows = [
        {"id": "left_out", "patient": "p", "image": "broken.nii.gz", "split": "test"},
        {"id": "kept", "patient": "p", "image": "s0.nii.gz", "split": ""},
    ]
    table = write(tmp_path / "t.csv", rows)
    run(table, "--output", tmp_path / "out", "--scans", scans, "--fractions", "1", "0", "0")
    datalist, _, ledger = read(tmp_path / "out")
    assert [entry[2] for entry in ledger if entry[0] == "left out"] == ["left_out"]
    assert [study["id"] for study in datalist["test"]] == ["kept"] and not datalist["training"]


def test_what_cannot_be_used_is_named_by_row_and_the_rest_is_kept(run: Run, tmp_path: Path, scans: Path) -> None:
    nib.save(nib.Nifti1Image(np.full(SHAPE, 7, np.uint8), np.diag([4.0, 4.0, 5.0, 1.0])), scans / "mask.nii.gz")
    (scans / "broken.nii.gz").write_bytes(b"no gzip")
    rows = [
        {"id": "good", "image": "s0.nii.gz", "report": "No nodule."},
        {"id": "silent", "image": "s1.nii.gz", "report": "Not given."},
        {"id": "ghost", "image": "absent.nii.gz", "report": "A report."},
        {"id": "twice", "image": "s2.nii.gz"},
        {"id": "twice", "image": "s3.nii.gz"},
        {"id": "one", "image": "s4.nii.gz"},
        {"id": "other", "image": "s4.nii.gz"},
        {"id": "bad", "image": "broken.nii.gz"},
        {"id": "no_hu", "image": "mask.nii.gz"},
        {"id": "masked", "image": "s5.nii.gz", "anatomy": "nowhere.nii.gz"},
    ]
    before = {path: path.read_bytes() for path in scans.iterdir()}
    (scans / "extra.nii.gz").write_bytes(before[scans / "s0.nii.gz"])
    run(write(tmp_path / "t.csv", rows), "--output", tmp_path / "out", "--scans", scans)
    datalist, card, ledger = read(tmp_path / "out")
    assert set(studies_of(datalist)) == {"good", "silent", "masked"}
    assert card["left_out"] == {
        "no such scan": 1,
        "id in several rows": 2,
        "scan in several rows": 2,
        "wrong-content": 1,
        "not-in-hu": 1,
    }
    assert [entry[:3] for entry in ledger if entry[0] == "left out" and entry[3] == "id in several rows"] == [
        ["left out", "5", "twice"],
        ["left out", "6", "twice"],
    ]
    noticed = {(entry[2], entry[3]) for entry in ledger if entry[0] == "flagged"}
    assert {
        ("silent", "no report"),
        ("masked", "no such anatomy file"),
        ("extra.nii.gz", "scan without a row"),
    } <= noticed
    assert {path: path.read_bytes() for path in before} == before


def test_dicom_studies_get_their_snippets_in_mm(
    run: Run, tmp_path: Path, write_dicom: Callable[..., Path], hu: np.ndarray, affine: np.ndarray
) -> None:
    write_dicom(tmp_path / "scans" / "a", hu, affine, number=3)
    report = "A nodule in the left apex (series 3, image 20). A scar in the right base (series 3, image 99)."
    run(
        write(tmp_path / "t.csv", [{"id": "a", "report": report}]),
        "--output",
        tmp_path / "out",
        "--scans",
        tmp_path / "scans",
    )
    datalist, card, _ = read(tmp_path / "out")
    (snippet,) = studies_of(datalist)["a"]["snippets"]
    assert snippet == {
        "text": "A nodule in the left apex.",
        "series": 3,
        "image": 20,
        "z_mm": pytest.approx((affine @ [0, 0, 19, 1])[2]),
    }
    assert card["flagged"]["snippet: no such image"] == 1


def test_a_study_whose_images_have_no_number_stays_without_snippets(
    run: Run, tmp_path: Path, write_dicom: Callable[..., Path], hu: np.ndarray, affine: np.ndarray
) -> None:
    for name in ("Doe_Jane", "numbered"):
        write_dicom(tmp_path / "scans" / name, hu + (name == "numbered"), affine, number=3)
    for file in (tmp_path / "scans" / "Doe_Jane").iterdir():
        image = pydicom.dcmread(file)
        del image.InstanceNumber
        image.save_as(file)
    report = "A nodule in the left apex (series 3, image 20)."
    rows = [{"id": f"s{n}", "image": name, "report": report} for n, name in enumerate(("Doe_Jane", "numbered"))]
    run(write(tmp_path / "t.csv", rows), "--output", tmp_path / "out", "--scans", tmp_path / "scans")
    datalist, card, ledger = read(tmp_path / "out")
    studies = studies_of(datalist)
    assert "snippets" not in studies["s0"] and len(studies["s1"]["snippets"]) == 1
    assert card["flagged"] == {"snippet: no-dicom-images": 1}
    assert "Doe" not in str(ledger)


def test_labels_may_be_read_from_the_reports_where_the_table_has_none(
    run: Run, tmp_path: Path, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {
            "id": "s0",
            "image": "s0.nii.gz",
            "report": "Bilateral pleural effusion. No consolidation.",
            "Consolidation": "1",
        }
    ]
    run(write(tmp_path / "t.csv", rows), "--output", tmp_path / "out", "--scans", scans, "--labels-from-reports")
    labels = studies_of(read(tmp_path / "out")[0])["s0"]["labels"]
    assert labels[FINDING_NAMES.index("Pleural effusion")] == 1
    assert labels[FINDING_NAMES.index("Consolidation")] == 1  # the table wins
    one_sided = "Pleural effusion, Consolidation"
    assert f"warning: no training study is known to be without {one_sided}: training" in capsys.readouterr().out
    assert f"from their labels: {one_sided}." in (tmp_path / "out" / "data_card.html").read_text(encoding="utf-8")

    both = ["--labels-from-reports", "--unmentioned-absent"]
    run(tmp_path / "t.csv", "--output", tmp_path / "closed", "--scans", scans, *both)
    datalist, card, _ = read(tmp_path / "closed")
    assert sorted(studies_of(datalist)["s0"]["labels"]) == [0] * 16 + [1, 1]
    assert card["origin"]["labels"] == "table, else report, not mentioned counts as absent"


@pytest.mark.parametrize(
    ("rows", "arguments", "message"),
    [
        ([{"id": "a", "image": "s0.nii.gz", "Lung nodule": "2"}], [], "line 2: Lung nodule is '2'"),
        (
            [{"id": "a", "image": "s0.nii.gz", "split": "fold 3"}],
            [],
            "line 2: expected a split (training, validation or test), got 'fold 3'",
        ),
        ([{"words": "a", "number": "1"}], [], "has neither an id nor an image"),
        ([{"id": "a", "image": "s0.nii.gz"}], ["--columns", "findings=Befund"], "has no column 'Befund' for findings"),
        ([{"id": "a", "image": "s0.nii.gz"}], ["--columns", "label:Pneumonia=id"], "'Pneumonia' is not a finding"),
        ([{"id": "a", "image": "s0.nii.gz"}], ["--columns", "colour=id"], "'colour' is not a field"),
        ([{"id": "a", "image": "s0.nii.gz"}], ["--fractions", "0.5", "0.1", "0.1"], "do not add up to 1"),
        ([{"id": "a", "image": "s0.nii.gz"}], ["--unmentioned-absent"], "no effect without --labels-from-reports"),
        (
            [
                {"id": "a", "image": "s0.nii.gz", "patient": "p", "split": "train"},
                {"id": "b", "image": "s1.nii.gz", "patient": "p", "split": "test"},
            ],
            [],
            "patients in two splits: 1, the first in lines 2, 3",
        ),
    ],
)
def test_errors_of_use_are_one_line_and_leave_no_datalist(
    run: Run, tmp_path: Path, scans: Path, rows: list[dict[str, Any]], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(write(tmp_path / "t.csv", rows), "--output", tmp_path / "out", "--scans", scans, *arguments)
    assert message in str(stopped.value) and "\n" not in str(stopped.value)
    assert not (tmp_path / "out" / "datalist.json").exists()


def test_nothing_is_written_over(run: Run, tmp_path: Path, scans: Path) -> None:
    table = write(tmp_path / "t.csv", [{"id": "a", "image": "s0.nii.gz"}])
    run(table, "--output", tmp_path / "out", "--scans", scans)
    with pytest.raises(SystemExit, match="exists already"):
        run(table, "--output", tmp_path / "out", "--scans", scans)


def test_a_stopped_run_reads_no_scan_twice_but_a_changed_one_again(
    tmp_path: Path, scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, paths = tmp_path / "out" / "scans.jsonl", sorted(scans.iterdir())
    first = dict(read_all_facts(plain(paths[:4]), journal, workers=1))
    with journal.open("a") as file:
        file.write('{"file": "cut off')
    opened: list[Path] = []
    from bundle.ctfindings.sources.preparation import scan_facts

    whole = scan_facts.load_scan
    monkeypatch.setattr(scan_facts, "load_scan", lambda path, stored: opened.append(path) or whole(path, stored))
    paths[1].write_bytes(paths[5].read_bytes() + b"\0")
    again = dict(read_all_facts(plain(paths), journal, workers=1))
    assert sorted(opened) == [paths[1], paths[4], paths[5]]
    assert again[paths[0]] == first[paths[0]]
    assert set(again) == set(paths)
    opened.clear()
    assert dict(read_all_facts(plain(paths), journal, workers=1)) == again
    assert opened == []


def test_a_scan_whose_record_changes_is_read_again(tmp_path: Path, scans: Path) -> None:
    path, journal = scans / "s0.nii.gz", tmp_path / "scans.jsonl"
    (as_it_is,) = (facts for _, facts in read_all_facts({path: {}}, journal, workers=1))
    (twice,) = (facts for _, facts in read_all_facts({path: {"intercept": -1024}}, journal, workers=1))
    assert (as_it_is.problem, twice.kind) == ("", "rescaled-twice")
    assert dict(read_all_facts({path: {}}, journal, workers=1))[path] == as_it_is


def test_workers_give_what_one_process_gives(tmp_path: Path, scans: Path) -> None:
    paths = sorted(scans.iterdir())
    alone = dict(read_all_facts(plain(paths), tmp_path / "one.jsonl", workers=1))
    assert dict(read_all_facts(plain(paths), tmp_path / "two.jsonl", workers=2)) == alone


def test_the_page_loads_nothing_and_escapes_what_it_shows(run: Run, tmp_path: Path, scans: Path) -> None:
    table = write(tmp_path / "t.csv", [{"id": "a", "image": "s0.nii.gz", "report": "No nodule."}])
    run(table, "--output", tmp_path / "out", "--scans", scans, "--name", "<script>alert(1)</script>")
    page = (tmp_path / "out" / "data_card.html").read_text(encoding="utf-8")
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "://" not in page and "src=" not in page
    assert "Research only" in page


def test_backslashes_and_accents_of_another_system_name_the_same_file_and_a_wrong_path_drops_its_row_only(
    tmp_path: Path,
) -> None:
    for name in (unicodedata.normalize("NFD", "Müller/größe.nii.gz"), "a.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    cells = {
        "windows": ".\\a.nii.gz",
        "macos": "Müller\\größe.nii.gz",
        "long": "x" * 5000,
        "nul": "a\0b.nii.gz",
        "": "",
    }
    table = write(tmp_path / "table.csv", [{"id": name, "image": cell} for name, cell in cells.items()])
    source = read_source(table, {}, None)
    assert {each.id: each.image.name for each in source.candidates} == {
        "windows": "a.nii.gz", "macos": unicodedata.normalize("NFD", "größe.nii.gz")
    }  # fmt: skip
    assert [entry.reason for entry in source.ledger.left_out] == ["no such scan", "no such scan", "no id"]
    listed = write(tmp_path / "ids.csv", [{"id": "größe", "findings": "Clear."}])
    (found,) = read_source(listed, {}, tmp_path / unicodedata.normalize("NFD", "Müller")).candidates
    assert found.image.exists()
