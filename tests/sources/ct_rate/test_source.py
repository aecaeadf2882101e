"""From a download of CT-RATE to a datalist, by the command alone: names, tables, and HU exactly once."""

import csv
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from bundle.ctfindings.data.datalist import load_datalist
from bundle.ctfindings.data.transforms import LoadScand
from bundle.ctfindings.files.csv_table import Row, read_table
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.sources.ct_rate.metadata import stored_of

SCRIPT = "prepare_ct_rate.py"
SPACING = (9.0, 9.0, 12.0)
POSITION = (-140.0, -150.0, -310.5)
"""ImagePositionPatient: the first voxel in LPS."""

AXIAL = "[1, 0, 0, 0, 1, 0]"


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def metadata_row(volume: str, intercept: int, **changes: Any) -> dict[str, Any]:
    """The columns of the real table that are read, in its formats."""
    return {
        "VolumeName": f"{volume}.nii.gz",
        "ImagePositionPatient": str(list(POSITION)),
        "ImageOrientationPatient": AXIAL,
        "Rows": 32,
        "Columns": 32,
        "XYSpacing": f"[{SPACING[0]}, {SPACING[1]}]",
        "RescaleIntercept": intercept,
        "RescaleSlope": 1,
        "NumberofSlices": 24,
        "ZSpacing": SPACING[2],
    } | changes


class Download:
    """A copy of the layout of the download, with small volumes."""

    def __init__(self, root: Path, chest: np.ndarray) -> None:
        self.root, self.chest, self.count = root, chest, 0
        self.metadata: dict[str, list[dict[str, Any]]] = {"train": [], "validation": []}
        self.reports: dict[str, list[dict[str, Any]]] = {"train": [], "validation": []}
        self.labels: dict[str, list[dict[str, Any]]] = {"train": [], "valid": []}

    def volume(
        self, name: str, intercept: int = -1024, fixed: bool = False, hu: bool | None = None, **changes: Any
    ) -> Path:
        """A volume as the publisher stores it: version 1 raw, with a header that says nothing; version 2 in HU with its
        affine.
        """
        self.count += 1
        split, patient, examination, _ = name.split("_")
        folder = (
            self.root
            / "dataset"
            / f"{split}{'_fixed' if fixed else ''}"
            / f"{split}_{patient}"
            / f"{split}_{patient}_{examination}"
        )
        folder.mkdir(parents=True, exist_ok=True)
        # In DICOM columns run to the left and rows to the back, from the first pixel at the right front.
        values = (self.chest[::-1, ::-1] + self.count % 7).astype(np.int16)
        values[0, 0, 0] = self.count
        if not (fixed if hu is None else hu):
            values = (values.astype(np.int32) - intercept).astype(np.int16)
        told = fixed or bool(hu)
        affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0]) if told else np.eye(4)
        affine[:3, 3] = (-POSITION[0], -POSITION[1], POSITION[2]) if told else 0
        nib.save(nib.Nifti1Image(values, affine), folder / f"{name}.nii.gz")
        table = "train" if split == "train" else "validation"
        self.metadata[table].append(metadata_row(name, intercept, **changes))
        return folder / f"{name}.nii.gz"

    def report(
        self, examination: str, findings: str = "No nodule in the lungs.", impression: str = "Not given."
    ) -> None:
        """A report, under the name of the first volume as in the publisher's tables, and labels with nothing but a
        nodule.
        """
        split = examination.split("_")[0]
        row = {"VolumeName": f"{examination}_1.nii.gz", "ClinicalInformation_EN": "Not given.", "Technique_EN": "CT"}
        row |= {"Findings_EN": findings, "Impressions_EN": impression}
        self.reports["train" if split == "train" else "validation"].append(row)

    def label(self, volume: str) -> None:
        """Labels: a lung nodule, and nothing else."""
        values = {name: int(name == "Lung nodule") for name in FINDING_NAMES}
        self.labels[volume.split("_")[0]].append({"VolumeName": f"{volume}.nii.gz", **values})

    def tables(self) -> Path:
        """Writes the tables at their places."""
        for folder, ending, tables in (
            ("radiology_text_reports", "reports", self.reports),
            ("multi_abnormality_labels", "predicted_labels", self.labels),
            ("metadata", "metadata", self.metadata),
        ):
            for split, rows in tables.items():
                if rows:
                    write_table(self.root / "dataset" / folder / f"{split}_{ending}.csv", rows)
        return self.root


@pytest.fixture
def download(tmp_path: Path, chest: np.ndarray) -> Download:
    return Download(tmp_path / "CT-RATE", chest)


def in_ras(study: dict[str, Any]) -> np.ndarray:
    """HU of a loaded study, axes to the left, front and head."""
    image = nib.Nifti1Image(study["image"][0].numpy(), np.asarray(study["image"].affine))
    return np.asarray(nib.as_closest_canonical(image).get_fdata())


def test_raw_and_fixed_volumes_load_as_the_same_hu_at_the_same_place(
    prepare: Any, tmp_path: Path, download: Download
) -> None:
    download.volume("valid_1_a_1", -1024)
    download.volume("valid_2_a_1", -8192)
    download.volume("valid_3_a_1", -8192, fixed=True)
    result = prepare(SCRIPT, download.tables(), "--output", tmp_path / "out")
    assert result.reasons() == {}
    assert result.studies["valid_1_a_1"]["stored"]["intercept"] == -1024
    assert result.studies["valid_2_a_1"]["stored"]["intercept"] == -8192
    assert "stored" not in result.studies["valid_3_a_1"]
    loaded = [LoadScand("image")(study) for study in load_datalist(tmp_path / "out" / "datalist.json", "test")]
    for number, study in enumerate(loaded, start=1):
        # The first stored voxel, which carries the number of the volume, lies at the right front bottom.
        inside = in_ras(study)[:-1, :-1, 1:]
        np.testing.assert_array_equal(inside, download.chest[:-1, :-1, 1:] + number)
        affine = np.asarray(study["image"].affine)
        np.testing.assert_allclose(affine[:3, 3], (-POSITION[0], -POSITION[1], POSITION[2]))
        np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), SPACING)
    assert result.card["origin"]["intensities"] == "2 volumes rescaled by the metadata table, 1 already in HU"
    assert "CC BY-NC-SA 4.0" in result.card["origin"]["licence"]


@pytest.mark.parametrize("intercept", [-1024, -8192])
def test_a_volume_in_hu_where_the_table_asks_for_a_rescale_is_refused(
    prepare: Any, tmp_path: Path, download: Download, intercept: int
) -> None:
    download.volume("valid_1_a_1")
    download.volume("valid_2_a_1", intercept, hu=True)
    result = prepare(SCRIPT, download.tables(), "--output", tmp_path / "out")
    assert result.reasons() == {"valid_2_a_1": "rescaled-twice"}
    (entry,) = (entry for entry in result.ledger if entry["what"] == "left out")
    assert f"is already in HU, but its record gives slope 1 and intercept {intercept}" in entry["detail"]


def test_a_raw_volume_in_a_fixed_folder_is_refused(prepare: Any, tmp_path: Path, download: Download) -> None:
    download.volume("valid_1_a_1", fixed=True)
    download.volume("valid_2_a_1", fixed=True, hu=False)
    result = prepare(SCRIPT, download.tables(), "--output", tmp_path / "out")
    assert result.reasons() == {"valid_2_a_1": "not-in-hu"}


def test_a_folder_that_is_a_link_to_another_disk_is_read(prepare: Any, tmp_path: Path, download: Download) -> None:
    download.volume("valid_1_a_1")
    download.volume("valid_2_a_1", fixed=True)
    elsewhere, place = tmp_path / "disk2", download.root / "dataset" / "valid_fixed"
    place.rename(elsewhere)
    try:
        place.symlink_to(elsewhere, target_is_directory=True)
    except OSError:
        pytest.skip("this system makes no links")
    result = prepare(SCRIPT, download.tables(), "--output", tmp_path / "out")
    assert result.reasons() == {}
    assert set(result.studies) == {"valid_1_a_1", "valid_2_a_1"} and "stored" not in result.studies["valid_2_a_1"]


def test_a_renamed_folder_is_read_by_the_option(prepare: Any, tmp_path: Path, download: Download) -> None:
    download.volume("valid_1_a_1", -8192, hu=True)
    result = prepare(SCRIPT, download.tables(), "--output", tmp_path / "out", "--intensities", "hu")
    assert list(result.studies) == ["valid_1_a_1"] and "stored" not in result.studies["valid_1_a_1"]


def test_reports_and_labels_reach_every_reconstruction(prepare: Any, tmp_path: Path, download: Download) -> None:
    for volume in ("valid_1_a_1", "valid_1_a_2"):
        download.volume(volume, fixed=True)
        download.label(volume)
    download.report("valid_1_a", "A nodule in the right upper lobe.")
    result = prepare(SCRIPT, download.tables(), "--output", tmp_path / "out")
    assert set(result.studies) == {"valid_1_a_1", "valid_1_a_2"}
    for study in result.studies.values():
        assert study["report"] == {
            "findings": "A nodule in the right upper lobe.",
            "impression": "",
        }  # "Not given." is empty.
        assert study["labels"] == [int(name == "Lung nodule") for name in FINDING_NAMES]
        assert study["examination"] == "valid_1_a"
    assert len({study["patient"] for study in result.studies.values()}) == 1
    assert result.card["counts"]["test"]["studies"] == 2 and result.card["counts"]["test"]["examinations"] == 1
    first = prepare(SCRIPT, download.root, "--output", tmp_path / "first", "--reconstructions", "first")
    assert list(first.studies) == ["valid_1_a_1"] and first.reasons() == {"valid_1_a_2": "further reconstruction"}


def test_the_publishers_validation_is_the_test_and_training_patients_are_not_parted(
    prepare: Any, tmp_path: Path, download: Download
) -> None:
    for patient in range(1, 9):
        for examination in "ab":
            download.volume(f"train_{patient}_{examination}_1", fixed=True)
    download.volume("valid_1_a_1", fixed=True)
    result = prepare(SCRIPT, download.tables(), "--output", tmp_path / "out", "--dev-share", "0.5", "--seed", "1")
    assert [study["id"] for study in result.datalist["test"]] == ["valid_1_a_1"]
    ids = {
        split: {study["id"].rsplit("_", 2)[0] for study in result.datalist[split]}
        for split in ("training", "validation")
    }
    assert ids["training"] and ids["validation"] and not ids["training"] & ids["validation"]
    assert ids["training"] | ids["validation"] == {f"train_{patient}" for patient in range(1, 9)}
    other = prepare(SCRIPT, download.root, "--output", tmp_path / "none", "--dev-share", "0")
    assert other.datalist["validation"] == [] and len(other.datalist["training"]) == 16


def test_what_cannot_be_used_is_named_and_the_source_is_left_alone(
    prepare: Any, tmp_path: Path, download: Download
) -> None:
    download.volume("train_1_a_1")
    download.report("train_1_a")
    download.volume("train_1_a_2").write_bytes(b"no gzip")
    download.volume("train_2_a_1", RescaleIntercept="")
    download.volume("train_3_a_1")
    download.metadata["train"].pop()
    download.volume("train_4_a_1")
    download.metadata["train"].append(metadata_row("train_4_a_1", -8192))
    download.volume("train_5_a_1", fixed=True)
    download.volume("train_5_a_1")
    download.volume("train_11755_a_2")
    download.volume("train_6_a_1")
    download.volume("train_7_a_1", ZSpacing=6.0)
    copied = download.volume("train_8_a_1")
    for name in ("train_9_a_1", "train_8_a_2"):
        download.volume(name).write_bytes(copied.read_bytes())
    download.label("train_9_a_1")
    double = download.root / "dataset" / "train" / "again" / "train_10_a_1.nii.gz"
    double.parent.mkdir()
    double.write_bytes(download.volume("train_10_a_1").read_bytes())
    download.report("train_99_a")
    download.report("valid_1_a")
    download.label("train_1_a_1")
    (download.root / "dataset" / "metadata").mkdir(parents=True)
    (download.root / "dataset" / "metadata" / "no_chest_train.txt").write_text(
        "VolumeName\n# heads\ntrain_6_a_1.nii.gz, head\n"
    )
    segmentation = download.root / "dataset" / "ts_seg" / "train" / "train_1_a_1.nii.gz"
    segmentation.parent.mkdir(parents=True)
    segmentation.write_bytes(copied.read_bytes())
    root = download.tables()
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    result = prepare(SCRIPT, root, "--output", tmp_path / "out")
    assert set(result.studies) == {"train_1_a_1", "train_5_a_1", "train_7_a_1"}
    assert result.reasons() == {
        "train_1_a_2": "wrong-content",
        "train_2_a_1": "invalid metadata",
        "train_3_a_1": "no row of metadata",
        "train_4_a_1": "rows that contradict each other",
        "train_11755_a_2": "known to be broken",
        "train_6_a_1": "on the list no_chest_train.txt",
        "train_8_a_1": "copy of another scan",
        "train_8_a_2": "copy of another scan",
        "train_9_a_1": "copy of another scan",
        "train_10_a_1": "two scans of one name",
        "train_99_a_1": "no such scan",
    }
    assert result.card["left_out"]["copy of another scan"] == 3
    noticed = {(entry["id"], entry["reason"]) for entry in result.ledger if entry["what"] == "flagged"}
    assert {
        ("train_5_a_1", "raw and fixed volume"),
        ("train_5_a_1", "no report"),
        ("train_7_a_1", "no labels"),
        ("valid", "no volume of a split"),
    } <= noticed
    assert "stored" not in result.studies["train_5_a_1"]
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_a_fixed_volume_whose_header_is_not_that_of_the_table_is_noticed(
    prepare: Any, tmp_path: Path, download: Download
) -> None:
    download.volume("train_1_a_1", fixed=True, ZSpacing=6.0)
    download.volume("train_2_a_1", fixed=True, NumberofSlices=48)
    download.volume("train_3_a_1", fixed=True)
    result = prepare(SCRIPT, download.tables(), "--output", tmp_path / "out", "--dev-share", "0")
    different = {
        entry["id"]: entry["detail"]
        for entry in result.ledger
        if entry["reason"] == "size or spacing differs from the table"
    }
    assert different == {
        "train_1_a_1": "the file has voxels of 9 x 9 x 12 mm, the table says 9 x 9 x 6",
        "train_2_a_1": "the file has 32 x 32 x 24 voxels, the table says 32 x 32 x 48",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dev-share", "1"], "--dev-share: expected a number from 0 to below 1, got 1"),
        (["--reports", "absent.csv"], "absent.csv: no such file"),
        (["--skip", "bad.txt"], "line 2: expected a name such as train_1_a_1, train_1_a or train_1, got 'head'"),
        (["--labels", "few.csv"], "has no column 'Medical material'"),
    ],
)
def test_errors_of_use_are_one_line(
    prepare: Any,
    tmp_path: Path,
    download: Download,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.txt").write_text("train_1_a_1\nhead scan\n", encoding="utf-8")
    Path("few.csv").write_text("VolumeName,Lung nodule\ntrain_1_a_1.nii.gz,1\n", encoding="utf-8")
    download.volume("train_1_a_1")
    with pytest.raises(SystemExit) as stopped:
        prepare(SCRIPT, download.tables(), "--output", tmp_path / "out", *arguments)
    assert message in str(stopped.value) and "\n" not in str(stopped.value)
    assert not (tmp_path / "out" / "datalist.json").exists()


def test_raw_volumes_without_any_metadata_are_refused_at_once(prepare: Any, tmp_path: Path, download: Download) -> None:
    download.volume("train_1_a_1")
    with pytest.raises(SystemExit, match="need the rescale of a metadata table"):
        prepare(SCRIPT, download.root, "--output", tmp_path / "out")


def test_a_rotated_series_keeps_its_geometry() -> None:
    row = Row(
        2,
        {
            key: str(value)
            for key, value in metadata_row("train_1_a_1", -1024, ImageOrientationPatient="[0, 1, 0, -1, 0, 0]").items()
        },
    )
    affine = np.asarray(stored_of(row).affine)
    # Along a row to the back, along a column to the right; their normal points to the head.
    np.testing.assert_allclose(affine[:3, 0], [0, -9, 0])
    np.testing.assert_allclose(affine[:3, 1], [9, 0, 0])
    np.testing.assert_allclose(affine[:3, 2], [0, 0, 12])


def test_every_row_of_the_real_metadata_table_is_read(shared_data: Path) -> None:
    table = read_table(shared_data / "reports" / "ctrate_validation_metadata.csv")
    stored = [stored_of(row) for row in table.rows]
    assert len(stored) == 3039
    assert (
        sum(each.intercept == -8192 for each in stored) == 850
        and sum(each.intercept == -1024 for each in stored) == 2189
    )
    for each, row in zip(stored, table.rows, strict=True):
        spacing = np.linalg.norm(np.asarray(each.affine)[:3, :3], axis=0)
        assert (
            spacing[2] == pytest.approx(float(row.values["ZSpacing"]))
            and np.linalg.det(np.asarray(each.affine)[:3, :3]) > 0
        )


def test_the_real_tables_meet_their_volumes(
    prepare: Any, tmp_path: Path, download: Download, shared_data: Path
) -> None:
    reports = shared_data / "reports" / "ctrate_validation_reports.csv"
    metadata = shared_data / "reports" / "ctrate_validation_metadata.csv"
    rows = {row.values["VolumeName"].removesuffix(".nii.gz"): row.values for row in read_table(metadata).rows}
    names = {row.values["VolumeName"] for row in read_table(reports).rows}
    wanted = [name for name in rows if name.rsplit("_", 1)[0] in names]
    low = [name for name in wanted if rows[name]["RescaleIntercept"] == "-8192"][:2]
    plain = [
        name for name in wanted if rows[name]["RescaleIntercept"] == "-1024" and float(rows[name]["ZSpacing"]) >= 1.5
    ][:2]
    for name in (*low, *plain):
        path = download.volume(name, int(rows[name]["RescaleIntercept"]))
        values = np.asarray(nib.load(path).dataobj)
        # Small pixels and thin slices: enough of them to span a chest.
        nib.save(nib.Nifti1Image(np.kron(values, np.ones((6, 6, 6), values.dtype)), np.eye(4)), path)
    result = prepare(SCRIPT, download.root, "--reports", reports, "--metadata", metadata, "--output", tmp_path / "out")
    assert set(result.studies) == {*low, *plain}
    assert {name: result.studies[name]["stored"]["intercept"] for name in result.studies} == {
        name: float(rows[name]["RescaleIntercept"]) for name in result.studies
    }
    assert all(study["report"]["findings"] and study["captions"] for study in result.studies.values())
    assert result.card["left_out"]["no such scan"] == 996 - len({name.rsplit("_", 1)[0] for name in result.studies})
