"""Costs of adaptation are measured on cached scans alone, and the walk from start to end on what a hospital exports."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from bundle.ctfindings.data.scan_cache import FetchTask
from bundle.ctfindings.findings import FINDING_NAMES, finding_index
from bundle.ctfindings.scan.load_scan import load_scan
from experiments.adapt.costs import Repeated
from experiments.adapt.end_to_end import chosen_studies, write_dicom, write_reports


class Cached:
    """The dataset of some studies, whose entries are files of a folder."""

    def __init__(self, folder: Path, studies: list[dict[str, Any]]) -> None:
        self.folder, self.data = folder, studies

    def __len__(self) -> int:
        return len(self.data)

    def task(self, index: int) -> FetchTask:
        return FetchTask(str(self.folder / self.data[index]["id"]), self.data[index], None)  # type: ignore[arg-type]


def test_cached_scans_are_repeated_as_studies_of_other_patients_and_never_encoded(tmp_path: Path) -> None:
    own = [{"id": name, "patient": "p", "labels": [place]} for place, name in enumerate("abc")]
    encoded: Any = SimpleNamespace(
        datalist=Path("datalist.json"),
        splits=["training"],
        studies=lambda: own,
        dataset=lambda studies: Cached(tmp_path, studies),
    )
    repeated = Repeated(encoded, 7)
    studies = repeated.studies()
    assert len({study["id"] for study in studies}) == len({study["patient"] for study in studies}) == 7
    assert [study["labels"] for study in studies] == [[0], [1], [2], [0], [1], [2], [0]]
    for name in "ab":
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="no tokens of c"):
        repeated.dataset(studies)
    (tmp_path / "c").touch()
    assert [study["id"] for study in repeated.dataset(studies[2:5]).data] == ["c", "a", "b"]


def hybrid(name: str, patient: str, drawn: str | None) -> dict[str, Any]:
    labels = [-1] * len(FINDING_NAMES)
    labels[finding_index(drawn or "Lung nodule")] = int(drawn is not None)
    sites = {} if drawn is None else {"sites": [{"finding": drawn}]}
    return {"id": name, "image": f"{name}.nii.gz", "patient": patient, "labels": labels, **sites}


def test_one_scan_of_a_patient_is_taken_for_each_drawn_finding_and_its_report_says_so(tmp_path: Path) -> None:
    given = [("base", None), ("n0", "Lung nodule"), ("n1", "Lung nodule"), ("e", "Emphysema"), ("o", "Lung opacity")]
    studies = [hybrid(name, "p", drawn) for name, drawn in given]
    (tmp_path / "datalist.json").write_text(json.dumps({"training": studies, "test": [hybrid("other", "q", None)]}))
    chosen = chosen_studies(tmp_path)
    assert [study["id"] for study in chosen] == ["base", "n0", "o", "other"]
    write_reports(tmp_path / "reports.csv", chosen)
    with (tmp_path / "reports.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["split"] for row in rows] == ["test"] * 4
    texts = [row["findings"] for row in rows]
    assert texts == ["No lung nodule.", "Lung nodule.", "Lung opacity.", "No lung nodule."]


def test_a_scan_that_is_written_as_dicom_is_read_with_its_values_and_place(tmp_path: Path) -> None:
    hu = np.random.default_rng(0).integers(-1000, 1000, (40, 36, 30)).astype(np.int16)
    hu[:, :18] = -1000
    affine = np.array([[-2.0, 0, 0, 50], [0, 3, 0, -80], [0, 0, 4, 20], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(hu, affine), tmp_path / "scan.nii.gz")
    write_dicom(tmp_path / "series", tmp_path / "scan.nii.gz", "p", 1)
    file, series = (load_scan(tmp_path / name) for name in ("scan.nii.gz", "series"))
    for scan in (file, series):
        scan.affine = scan.affine.double()
    for place in ([50.0, -80, 20], [-28, 25, 136], [0, -20, 60]):
        values = []
        for scan in (file, series):
            index = np.rint(np.linalg.inv(scan.affine.numpy()) @ [*place, 1])[:3].astype(int)
            values.append(float(scan[(0, *index)]))
        assert values[0] == values[1]


def test_a_tilted_scan_is_refused(tmp_path: Path) -> None:
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[1, 2] = 0.5
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), affine), tmp_path / "scan.nii.gz")
    with pytest.raises(ValueError, match="without rotation"):
        write_dicom(tmp_path / "series", tmp_path / "scan.nii.gz", "p", 1)
