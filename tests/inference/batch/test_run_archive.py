"""An archive: every scan has its record once, failures are rows with a reason, and a second run does only what is
missing.
"""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pydicom
import pytest

from bundle.ctfindings.inference.batch.run_archive import Model, run_archive, scans_of
from bundle.ctfindings.phantom.dataset import make_case, write_nifti
from tests.small_scan import WriteDicom


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scans, one of them in a subfolder, and a file that is none."""
    folder = tmp_path_factory.mktemp("scans")
    (folder / "deeper").mkdir()
    for index, name in enumerate(("one.nii.gz", "deeper/two.nii.gz")):
        _, hu, _, _, affine = make_case(seed=1, index=index)
        write_nifti(folder / name, hu[::3, ::3, ::2], affine @ np.diag([3.0, 3, 2, 1]))
    (folder / "broken.nii.gz").write_bytes(b"nothing")
    return folder


@pytest.fixture(scope="module")
def model(bundle_root: Path) -> Model:
    return Model(str(bundle_root), str(bundle_root / "models" / "model.pt"))


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def test_every_scan_has_a_record_and_a_row_and_a_second_run_does_what_is_missing(
    scans: Path, tmp_path: Path, model: Model
) -> None:
    report = run_archive(scans_of(scans), tmp_path, model)
    assert (report.done, report.kept, list(report.problems)) == (2, 0, ["broken.nii.gz"])
    rows = rows_of(report.summary)
    assert rows["broken.nii.gz"]["status"] == "failed" and "broken.nii.gz" in rows["broken.nii.gz"]["reason"]
    records = sorted((tmp_path / "scans").glob("**/findings.json"))
    assert len(records) == 2
    os.umask(umask := os.umask(0o077))
    for path in records:
        assert path.parent.stat().st_mode & 0o777 == 0o777 & ~umask, "results are for whom the umask lets in"
        record = json.loads(path.read_text())
        row = next(row for key, row in rows.items() if key.endswith(record["scan"]["file"]))
        for answer in record["findings"]:
            assert float(row[answer["name"]]) == pytest.approx(answer["probability"], abs=1e-4)
            present = answer["present"]
            assert row[f"{answer['name']} present"] == ("" if present is None else str(int(present)))
    before = {path: path.stat().st_mtime_ns for path in records}
    records[0].unlink()
    records[0].parent.rmdir()
    assert run_archive(scans_of(scans), tmp_path, model)[1:3] == (1, 1)
    assert records[1].stat().st_mtime_ns == before[records[1]], "a finished scan is not done again"


def test_a_series_whose_headers_no_result_can_have_keeps_its_findings(
    tmp_path: Path, model: Model, write_dicom: WriteDicom, hu: np.ndarray, affine: np.ndarray
) -> None:
    for file in write_dicom(tmp_path / "scans" / "series", hu, affine).iterdir():
        image = pydicom.dcmread(file)
        image.PatientName = ["Doe^Jane", "Roe^Jane"]
        image.save_as(file)
    report = run_archive(scans_of(tmp_path / "scans"), tmp_path / "out", model, dicom_dir=tmp_path / "objects")
    assert report.problems == {} and list(report.without_dicom.values()) == [
        "a value of the headers is not allowed in DICOM results [dicom-refused]"
    ]
    assert len(list((tmp_path / "out").glob("scans/**/findings.json"))) == 1 and not (tmp_path / "objects").exists()


def test_a_dicom_scan_gets_its_objects_and_another_the_reason_why_it_has_none(
    scans: Path, tmp_path: Path, model: Model, write_dicom: WriteDicom, hu: np.ndarray, affine: np.ndarray
) -> None:
    write_dicom(tmp_path / "mixed" / "series", hu, affine)
    (tmp_path / "mixed" / "one.nii.gz").symlink_to(scans / "one.nii.gz")
    objects = tmp_path / "objects"
    for kept in (0, 2):
        report = run_archive(scans_of(tmp_path / "mixed"), tmp_path / "out", model, dicom_dir=objects, anonymous=True)
        assert (report.kept, report.problems) == (kept, {})
        assert {Path(key).name for key in report.without_dicom} == {"one.nii.gz"}
    assert {path.name for path in objects.iterdir()} == {"series"}
    written = {path.stem: pydicom.dcmread(path, stop_before_pixels=True) for path in (objects / "series").iterdir()}
    assert {"report", "capture"} <= written.keys() and not any(each.PatientName for each in written.values())
    with pytest.raises(ValueError, match="--dicom_dir"):
        run_archive(scans_of(tmp_path / "mixed"), tmp_path / "out", model, dicom_dir=tmp_path / "mixed" / "series")


def test_findings_of_other_weights_are_not_mixed(
    scans: Path, tmp_path: Path, model: Model, untrained_weights: Path
) -> None:
    run_archive({}, tmp_path, model)
    with pytest.raises(ValueError, match="other weights"):
        run_archive({}, tmp_path, model._replace(ckpt_path=str(untrained_weights)))


def test_weights_that_cannot_be_loaded_do_not_claim_the_folder(scans: Path, tmp_path: Path, model: Model) -> None:
    (tmp_path / "notes.md").write_text("no weights")
    with pytest.raises(ValueError, match=r"notes\.md: cannot be read as a checkpoint"):
        run_archive(scans_of(scans), tmp_path / "out", model._replace(ckpt_path=str(tmp_path / "notes.md")))
    assert not (tmp_path / "out").exists()


def test_a_datalist_gives_masks_storage_and_patients_along(tmp_path: Path) -> None:
    path = tmp_path / "datalist.json"
    stored = {"slope": 1, "intercept": -8192}
    path.write_text(
        json.dumps(
            {
                "training": [{"id": "a", "image": "a.nii.gz", "stored": stored, "patient": "p"}],
                "test": [{"id": "b", "image": "b.nii.gz"}],
            }
        )
    )
    assert scans_of(path) == {
        "a": {"image": str(tmp_path / "a.nii.gz"), "stored": stored, "patient": "p", "folder": "a"},
        "b": {"image": str(tmp_path / "b.nii.gz"), "patient": "b", "folder": "b"},
    }
    assert list(scans_of(path, ("test",))) == ["b"]


def test_the_scans_of_a_datalist_get_their_records(scans: Path, tmp_path: Path, model: Model) -> None:
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps({"test": [{"id": "a", "image": str(scans / "one.nii.gz"), "patient": "Doe^Jane"}]}))
    report = run_archive(scans_of(path), tmp_path / "out", model)
    assert (report.done, report.problems) == (1, {})
    assert "Doe" not in (tmp_path / "out" / "scans" / "a" / "findings.json").read_text()


def test_a_folder_without_scans_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names no scan"):
        scans_of(tmp_path)
    with pytest.raises(ValueError, match="nothing: no such file or folder; check the path"):
        scans_of(tmp_path / "nothing")
