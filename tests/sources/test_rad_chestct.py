"""From a download of Rad-ChestCT to a datalist, by the command alone: axes, spacing and mapped labels."""

import csv
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from bundle.ctfindings.data.datalist import load_datalist
from bundle.ctfindings.data.transforms import LoadScand
from bundle.ctfindings.files.csv_table import read_table
from bundle.ctfindings.findings import FINDING_NAMES, FINDINGS, LABEL_SETS, finding_index
from bundle.ctfindings.sources.rad_chestct import mapped_abnormalities, read_source

SCRIPT = "prepare_rad_chestct.py"
ABNORMALITIES = sorted(
    {name for finding in FINDINGS for name in (*finding.radchestct, *(finding.radchestct_extended or ()))}
)
LOCATIONS = ("right_upper", "left_lower", "heart")


def write_labels(path: Path, scans: dict[str, set[str]], locations: tuple[str, ...] = LOCATIONS) -> Path:
    """A label table in the publisher's form; each scan has the columns that are named, ``abnormality*location``."""
    columns = (
        [f"{abnormality}*{location}" for abnormality in ABNORMALITIES for location in locations]
        if locations
        else ABNORMALITIES
    )
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["NoteAcc_DEID", *columns])
        for name, positive in scans.items():
            assert positive <= set(columns)
            writer.writerow([name, *("1.0" if column in positive else "0.0" for column in columns)])
    return path


@pytest.fixture
def folder(tmp_path: Path, chest: np.ndarray) -> Path:
    """Six scans as the publisher stores them: down, back, left; int16 HU clipped to +-1000; 0.8 mm."""
    root = tmp_path / "Rad-ChestCT"
    root.mkdir()
    for number, name in enumerate(("trn00001", "trn00002", "val00001", "tst00001", "tst00002", "tst00003")):
        fine = np.kron((chest + number).astype(np.int16), np.ones((4, 4, 5), np.int16)).clip(-1000, 1000)
        np.savez(root / f"{name}.npz", ct=np.ascontiguousarray(fine[::-1, ::-1, ::-1].transpose(2, 1, 0)))
    return root


def test_scans_get_their_axes_and_labels_of_any_location(
    prepare: Any, tmp_path: Path, folder: Path, chest: np.ndarray
) -> None:
    nothing: set[str] = set()
    write_labels(
        folder / "imgtrain_Abnormality_and_Location_Labels.csv",
        {"trn00001": {"nodulegr1cm*heart"}, "trn00002": nothing},
    )
    write_labels(folder / "imgvalid_Abnormality_and_Location_Labels.csv", {"val00001": {"calcification*left_lower"}})
    write_labels(
        folder / "imgtest_Abnormality_and_Location_Labels.csv",
        {"tst00001": nothing, "tst00002": nothing, "tst00003": nothing},
    )
    result = prepare(SCRIPT, folder, "--output", tmp_path / "out")
    assert result.reasons() == {}
    assert {
        split: [study["id"] for study in result.datalist[split]] for split in ("training", "validation", "test")
    } == {
        "training": ["trn00001", "trn00002"],
        "validation": ["val00001"],
        "test": ["tst00001", "tst00002", "tst00003"],
    }
    nodule = result.studies["trn00001"]["labels"]
    assert [FINDING_NAMES[index] for index, value in enumerate(nodule) if value == 1] == ["Lung nodule"]
    assert {FINDING_NAMES[index] for index, value in enumerate(nodule) if value == -1} == set(FINDING_NAMES) - set(
        LABEL_SETS["radchest16"]
    )
    calcified = result.studies["val00001"]["labels"]
    assert calcified[finding_index("Arterial wall calcification")] == 1
    assert calcified[finding_index("Coronary artery wall calcification")] == -1
    (study,) = load_datalist(tmp_path / "out" / "datalist.json", "validation")
    scan = LoadScand("image")(study)["image"]
    np.testing.assert_allclose(np.asarray(scan.affine)[:3, :3], [[0, 0, -0.8], [0, -0.8, 0], [-0.8, 0, 0]])
    ras = nib.as_closest_canonical(nib.Nifti1Image(scan[0].numpy(), np.asarray(scan.affine))).get_fdata()
    np.testing.assert_array_equal(ras[::4, ::4, ::5], (chest + 2).clip(-1000, 1000))
    centre = np.asarray(scan.affine) @ [*((np.asarray(scan.shape[1:]) - 1) / 2), 1]
    np.testing.assert_allclose(centre[:3], 0, atol=1e-9)


def test_the_extended_mapping_knows_all_18_and_says_that_it_compares_with_nobody(
    prepare: Any, tmp_path: Path, folder: Path
) -> None:
    labels = {
        "tst00001": {"air_trapping*right_upper", "coronary_artery_disease*heart"},
        "tst00002": {"calcification*heart"},
    }
    table = write_labels(tmp_path / "imgtest.csv", labels)
    result = prepare(
        SCRIPT, folder, "--labels", table, "--labelling", "extended", "--splits", "test", "--output", tmp_path / "out"
    )
    present = {
        name: {FINDING_NAMES[i] for i, value in enumerate(study["labels"]) if value == 1}
        for name, study in result.studies.items()
    }
    assert present == {
        "tst00001": {"Mosaic attenuation pattern", "Coronary artery wall calcification"},
        "tst00002": set(),
    }
    assert all(-1 not in study["labels"] for study in result.studies.values())
    assert "not comparable with published numbers" in result.card["origin"]["labels"]
    assert result.reasons()["trn00001"] == "no row of labels"


def test_all_scans_may_be_test(prepare: Any, tmp_path: Path, folder: Path) -> None:
    table = write_labels(tmp_path / "imgtrain.csv", {"trn00001": set(), "TRN00002": set(), "trn00099": set()})
    result = prepare(SCRIPT, folder, "--labels", table, "--splits", "test", "--output", tmp_path / "out")
    assert [study["id"] for study in result.datalist["test"]] == ["trn00001", "TRN00002"]
    assert result.reasons()["trn00099"] == "no such scan"


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            {"imgtrain.csv": "NoteAcc_DEID,nodule\ntrn00001,1\n"},
            "has no column 'catheter_or_port' or 'catheter_or_port\\*LOCATION'",
        ),
        ({"imgtrain.csv": "scan,nodule\ntrn00001,1\n"}, "has no column 'NoteAcc_DEID'"),
        ({"labels.csv": "NoteAcc_DEID,nodule\ntrn00001,1\n"}, "expected train, valid or test in the file name"),
    ],
)
def test_tables_that_cannot_be_used_are_named(
    prepare: Any, tmp_path: Path, folder: Path, tables: dict[str, str], message: str
) -> None:
    for name, text in tables.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(SystemExit, match=message):
        prepare(SCRIPT, folder, "--labels", *(tmp_path / name for name in tables), "--output", tmp_path / "out")


def test_a_scan_in_two_splits_is_refused_and_one_in_two_rows_left_out(
    prepare: Any, tmp_path: Path, folder: Path
) -> None:
    first = write_labels(tmp_path / "imgtrain.csv", {"trn00001": set()})
    second = write_labels(tmp_path / "imgtest.csv", {"tst00001": set(), "trn00001": set()})
    with pytest.raises(SystemExit, match="line 3: trn00001 is also in imgtrain"):
        prepare(SCRIPT, folder, "--labels", first, second, "--output", tmp_path / "out")
    lines = first.read_text().splitlines()
    first.write_text("\n".join([*lines, lines[1], lines[1].replace("trn00001", "trn00002")]))
    result = prepare(SCRIPT, folder, "--labels", first, "--output", tmp_path / "out")
    assert list(result.studies) == ["trn00002"]
    assert result.card["left_out"]["id in several rows"] == 2


def test_a_label_that_is_none_is_named_by_line_and_column(prepare: Any, tmp_path: Path, folder: Path) -> None:
    table = write_labels(tmp_path / "imgtrain.csv", {"trn00001": set()}, locations=())
    table.write_text(table.read_text().replace("trn00001,0.0", "trn00001,maybe"))
    with pytest.raises(SystemExit, match=r"line 2: .* is 'maybe'; labels are 1 and 0"):
        prepare(SCRIPT, folder, "--labels", table, "--labelling", "extended", "--output", tmp_path / "out")


def test_the_publishers_examples_are_read(prepare: Any, tmp_path: Path, shared_data: Path) -> None:
    formats = shared_data / "formats"
    tables = sorted((formats / "radchestct_disease_labels_example").glob("*.csv"))
    source = read_source(formats, tables, "standard", all_test=False)
    assert sorted((each.id, each.split) for each in source.candidates) == [
        ("FAKE000", "training"),
        ("FAKE111", "training"),
        ("FAKE222", "training"),
        ("FAKE333", "training"),
        ("FAKE444", "test"),
        ("FAKE555", "validation"),
        ("FAKE666", "training"),
        ("FAKE777", "training"),
    ]
    (row,) = read_table(formats / "radchestct_disease_labels_example" / "imgtest_BinaryLabels.csv").rows
    labels = next(each.labels for each in source.candidates if each.id == "FAKE444")
    assert labels[finding_index("Atelectasis")] == int(float(row.values["atelectasis"])) == 1
    assert labels[finding_index("Emphysema")] == int(float(row.values["emphysema"])) == 0
    # Random numbers of 8 mm: read, and refused as no chest.
    with pytest.raises(SystemExit, match="no study is left"):
        prepare(SCRIPT, formats, "--labels", *tables, "--output", tmp_path / "out")
    ledger = (tmp_path / "out" / "ledger.csv").read_text()
    assert ledger.count("spans only 8 x 8 x 8 mm") == 8


@pytest.mark.parametrize(
    ("labelling", "file"),
    [("standard", "radchestct_to_ctrate18_standard.json"), ("extended", "radchestct_to_ctrate18.json")],
)
def test_the_mappings_are_those_of_the_published_tables(shared_data: Path, labelling: Any, file: str) -> None:
    published = json.loads((shared_data / "formats" / file).read_text())
    for finding in FINDINGS:
        if labelling == "extended" or finding.name in LABEL_SETS["radchest16"]:
            assert set(mapped_abnormalities(finding, labelling)) == set(published.get(finding.name) or ()), finding.name
