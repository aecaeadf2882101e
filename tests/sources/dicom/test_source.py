"""From an archive of DICOM and a table of reports to de-identified scans and a datalist, by the command alone."""

import csv
import json
import shutil
import signal
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from bundle.ctfindings.data.datalist import load_datalist
from bundle.ctfindings.data.transforms import LoadScand
from bundle.ctfindings.findings import finding_index
from bundle.ctfindings.scan.dicom_headers import DicomFile
from bundle.ctfindings.sources.dicom import convert as dicom_convert
from tests.enhanced_ct import images_of, write_enhanced

SCRIPT = "prepare_dicom.py"
AFFINE = np.diag([9.0, 9.0, 12.0, 1.0])
WriteDicom = Callable[..., Path]
AddStudy = Callable[..., Path]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    folder.mkdir()
    return folder


@pytest.fixture
def add_study(archive: Path, chest: np.ndarray, write_dicom: WriteDicom) -> AddStudy:
    """A study of one series in a folder of its own, with the numbers of a patient in every header."""

    def add(
        folder: str, accession: str, patient: str = "4711", uid: str | None = None, shift: int = 0, **series: Any
    ) -> Path:
        place = write_dicom(archive / folder, chest + shift, AFFINE, **series)
        uid = uid or generate_uid()
        for file in place.iterdir():
            image = pydicom.dcmread(file)
            if "AccessionNumber" in image:
                continue
            image.StudyInstanceUID, image.AccessionNumber, image.PatientID = uid, accession, patient
            image.PatientName, image.PatientBirthDate, image.StudyDate = "Doe^Jane", "19560231", "20240315"
            image.InstitutionName, image.ReferringPhysicianName = "St Elsewhere", "Roe^Richard"
            image.save_as(file)
        return place

    return add


def write_reports(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_studies_become_scans_and_reports_are_joined_by_accession(
    prepare: Any, tmp_path: Path, archive: Path, add_study: AddStudy, chest: np.ndarray
) -> None:
    add_study("deep/down/a", "A1", shift=1)
    add_study("b", "A2", shift=2)
    report = {"Fall": "A1", "Befund": "A nodule (series 3, image 20).", "Erguss": "0"}
    table = write_reports(tmp_path / "reports.csv", [report, {"Fall": "A9", "Befund": "No scan.", "Erguss": "1"}])
    columns = ["id=Fall", "findings=Befund", "label:Pleural effusion=Erguss"]
    before = {path: path.read_bytes() for path in archive.rglob("*") if path.is_file()}
    result = prepare(SCRIPT, archive, "--reports", table, "--output", tmp_path / "out", "--columns", *columns)
    (study,) = (each for each in result.studies.values() if "report" in each)
    assert study["labels"][finding_index("Pleural effusion")] == 0 and study["report"]["findings"] == report["Befund"]
    # Image 20 is the 20th slice from below, at 19 steps of 12 mm.
    assert study["snippets"] == [{"text": "A nodule.", "series": 3, "image": 20, "z_mm": pytest.approx(228.0)}]
    assert len(result.studies) == 2 and result.card["counts"]["all"]["patients"] == 1
    assert [
        (entry["line"], entry["id"], entry["reason"]) for entry in result.ledger if entry["what"] == "left out"
    ] == [("3", "", "no such scan")]
    assert result.card["flagged"] == {"no report": 1}
    values = []
    for split in ("training", "validation", "test"):
        for loaded in load_datalist(tmp_path / "out" / "datalist.json", split):
            scan = LoadScand("image")(loaded)["image"]
            ras = nib.as_closest_canonical(nib.Nifti1Image(scan[0].numpy(), np.asarray(scan.affine)))
            values.append(int(ras.get_fdata()[0, 0, 0] - chest[0, 0, 0]))
            np.testing.assert_array_equal(ras.get_fdata(), chest + values[-1])
            np.testing.assert_allclose(ras.affine, AFFINE, atol=1e-4)
    assert sorted(values) == [1, 2]
    assert {path: path.read_bytes() for path in archive.rglob("*") if path.is_file()} == before


def test_an_enhanced_ct_converts_as_its_single_images(
    tmp_path: Path, chest: np.ndarray, write_dicom: WriteDicom
) -> None:
    folder = write_dicom(tmp_path / "single", chest, AFFINE)
    enhanced = write_enhanced(tmp_path / "enhanced", images_of(folder))
    converted = []
    for name, files in (("a", list(folder.iterdir())), ("b", [enhanced])):
        target = tmp_path / f"{name}.nii.gz"
        wanted = dicom_convert.Conversion(name, [DicomFile(file) for file in files], target)
        assert dicom_convert.convert(wanted) == {"problem": "", "kind": "", "warnings": []}
        converted.append(nib.load(target))
    np.testing.assert_array_equal(*(image.get_fdata() for image in converted))
    np.testing.assert_array_equal(*(image.affine for image in converted))


def test_no_name_number_or_date_is_in_outputs_or_on_the_terminal(
    prepare: Any, tmp_path: Path, archive: Path, add_study: AddStudy, capfd: pytest.CaptureFixture[str]
) -> None:
    place = add_study("Doe_Jane_4711", "ACC77", description="Doe Jane follow up")
    uid = str(pydicom.dcmread(next(place.iterdir())).StudyInstanceUID)
    add_study("Doe_Jane_4711", "ACC77", uid=uid, number=9, description="Doe Jane thick", keep=range(0, 24, 4))
    add_study("Doe_Jane_gap", "ACC78", keep=[*range(8), *range(12, 24)])
    table = write_reports(
        tmp_path / "r.csv",
        [{"accession": "ACC77", "report_file": "ACC77.txt"}, {"accession": "ACC99", "report_file": ""}],
    )
    result = prepare(SCRIPT, archive, "--reports", table, "--output", tmp_path / "out")
    assert len(result.studies) == 1 and sorted(result.card["left_out"]) == ["missing-slices", "no such scan"]
    assert result.card["flagged"]["scan with a warning"] == 1
    secrets = ("Doe", "Jane", "4711", "ACC77", "ACC78", "ACC99", uid, "20240315", "19560231", "Elsewhere", "Roe")
    # The datalist's table and archive are named by the user; what stands in them is not.
    texts = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "out").glob("*") if path.is_file()}
    for path in (tmp_path / "out" / "scans").iterdir():
        texts[path.name] = nib.load(path).header.binaryblock.decode("latin-1")
    texts["terminal"] = "".join(capfd.readouterr())
    for name, text in texts.items():
        content = text.replace(str(tmp_path), "")
        assert not [secret for secret in secrets if secret in content], name


def test_the_longest_axial_original_series_is_taken(
    prepare: Any, tmp_path: Path, archive: Path, add_study: AddStudy, chest: np.ndarray
) -> None:
    uid = generate_uid()
    add_study("s", "A1", uid=uid, number=3)
    add_study("s", "A1", uid=uid, number=1, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"), keep=[0])
    add_study("s", "A1", uid=uid, number=7, image_type=("DERIVED", "SECONDARY", "MPR"))
    add_study("t", "A2", number=1, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))
    result = prepare(SCRIPT, archive, "--output", tmp_path / "out")
    (identity,) = result.studies
    warnings = [entry["detail"] for entry in result.ledger if entry["id"] == identity]
    assert (
        len(warnings) == 1
        and "series 3 (24 images) was read, not: " in warnings[0]
        and "series 7 (24 images)" in warnings[0]
    )
    assert result.card["left_out"] == {"no-axial-series": 1}


def test_a_tilted_gantry_is_kept_in_the_geometry_and_noticed(
    prepare: Any, tmp_path: Path, archive: Path, add_study: AddStudy
) -> None:
    add_study("s", "A1", tilt_degrees=12.0)
    result = prepare(SCRIPT, archive, "--output", tmp_path / "out")
    assert any("tilted by 12.0 degrees" in entry["detail"] for entry in result.ledger)
    (study,) = result.studies.values()
    axes = nib.load(tmp_path / "out" / study["image"]).affine[:3, :3]
    unit = axes / np.linalg.norm(axes, axis=0)
    assert np.degrees(np.arcsin(abs(unit[:, 1] @ unit[:, 2]))) == pytest.approx(12.0, abs=0.1)


def test_zips_read_as_folders_and_damaged_ones_are_counted(
    prepare: Any, tmp_path: Path, archive: Path, add_study: AddStudy
) -> None:
    place = add_study("case7", "A1")
    with zipfile.ZipFile(archive / "case7.zip", "w") as packed:
        for file in place.iterdir():
            packed.write(file, f"x/{file.name}")
        packed.writestr("x/notes.txt", "text")
    shutil.rmtree(place)
    (archive / "bad.zip").write_bytes(b"PK no zip")
    table = write_reports(tmp_path / "r.csv", [{"id": "case7", "report": "A scar (series 3, image 5)."}])
    result = prepare(SCRIPT, archive, "--reports", table, "--join", "folder", "--output", tmp_path / "out")
    (study,) = result.studies.values()
    assert study["snippets"][0]["z_mm"] == pytest.approx(48.0)
    assert result.card["flagged"] == {"files that are not DICOM": 1, "zips that cannot be opened": 1}


def test_a_slice_is_looked_up_in_its_own_study_of_a_zip(
    prepare: Any, tmp_path: Path, archive: Path, add_study: AddStudy
) -> None:
    places = [add_study("short", "A1", keep=range(4, 20)), add_study("long", "A2", shift=1)]
    with zipfile.ZipFile(archive / "both.zip", "w") as packed:
        for place in places:
            for file in place.iterdir():
                packed.write(file, f"{place.name}/{file.name}")
            shutil.rmtree(place)
    text = "A scar (series 3, image 23). A nodule (series 3, image 5)."
    table = write_reports(tmp_path / "r.csv", [{"id": "A1", "report": text}])
    result = prepare(SCRIPT, archive, "--reports", table, "--output", tmp_path / "out")
    (study,) = (each for each in result.studies.values() if "report" in each)
    assert [snippet["image"] for snippet in study["snippets"]] == [5]  # Image 23 is one of the other study.
    assert result.card["flagged"]["snippet: no such image"] == 1


def test_files_with_a_damaged_header_are_counted_and_named_by_the_key_alone(
    prepare: Any, tmp_path: Path, archive: Path, add_study: AddStudy
) -> None:
    (last,) = add_study("Doe_Jane", "A1").glob("*_023")
    content = last.read_bytes()
    assert content.count(b"\x08\x00\x60\x00CS") == 1
    last.write_bytes(content.replace(b"\x08\x00\x60\x00CS", b"\x08\x00\x60\x00C\xff"))
    result = prepare(SCRIPT, archive, "--output", tmp_path / "out", "--key", tmp_path / "key.csv")
    assert len(result.studies) == 1 and result.card["flagged"] == {
        "files that cannot be opened, or DICOM files with a damaged header": 1
    }
    assert last.name not in (tmp_path / "out" / "ledger.csv").read_text() + json.dumps(result.card)
    with (tmp_path / "key.csv").open(newline="") as file:
        assert [row["folder"] for row in csv.DictReader(file)] == ["Doe_Jane", str(last)]


def test_rows_and_studies_that_do_not_match_one_to_one_are_named_by_line(
    prepare: Any, tmp_path: Path, archive: Path, add_study: AddStudy
) -> None:
    add_study("a", "A1", shift=1)
    add_study("b", "A2", shift=2)
    add_study("c", "A2", shift=3)
    add_study("d", "A3", shift=4)
    mixed = generate_uid()
    add_study("e", "A4", patient="1", uid=mixed, keep=range(12))
    add_study("f", "A4", patient="2", uid=mixed, keep=range(12, 24))
    rows = [
        {"accession": name, "report": f"Text {line}."} for line, name in enumerate(("A1", "A2", "A3", "A3"), start=2)
    ]
    result = prepare(
        SCRIPT, archive, "--reports", write_reports(tmp_path / "r.csv", rows), "--output", tmp_path / "out"
    )
    assert [(entry["line"], entry["reason"]) for entry in result.ledger if entry["what"] == "left out"] == [
        ("3", "several studies of one number"),
        ("4", "study in several rows"),
        ("5", "study in several rows"),
        ("0", "study of two patients"),
    ]
    assert len(result.studies) == 4
    assert [study["report"]["findings"] for study in result.studies.values() if "report" in study] == ["Text 2."]


def test_a_patient_in_two_splits_is_refused(prepare: Any, tmp_path: Path, archive: Path, add_study: AddStudy) -> None:
    add_study("a", "A1", shift=1)
    add_study("b", "A2", shift=2)
    table = write_reports(
        tmp_path / "r.csv", [{"accession": "A1", "split": "train"}, {"accession": "A2", "split": "test"}]
    )
    with pytest.raises(SystemExit, match="patients in two splits: 1, the first in lines 2, 3") as stopped:
        prepare(SCRIPT, archive, "--reports", table, "--output", tmp_path / "out")
    assert "4711" not in str(stopped.value)


def test_the_hashes_depend_on_the_salt_alone_and_the_key_is_written_when_asked(
    prepare: Any, tmp_path: Path, archive: Path, add_study: AddStudy
) -> None:
    add_study("a", "A1")
    first = prepare(SCRIPT, archive, "--output", tmp_path / "one", "--key", tmp_path / "key.csv")
    second = prepare(SCRIPT, archive, "--output", tmp_path / "two", "--salt", tmp_path / "one" / "salt.txt")
    third = prepare(SCRIPT, archive, "--output", tmp_path / "three")
    assert set(first.studies) == set(second.studies) != set(third.studies)
    with (tmp_path / "key.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["id"] in first.studies and row["AccessionNumber"] == "A1" and row["PatientID"] == "4711"
    assert (tmp_path / "key.csv").stat().st_mode & 0o077 == 0
    assert (tmp_path / "one" / "salt.txt").stat().st_mode & 0o077 == 0
    (tmp_path / "short").write_text("abc")
    with pytest.raises(SystemExit, match="at least 16 characters"):
        prepare(SCRIPT, archive, "--output", tmp_path / "four", "--salt", tmp_path / "short")


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes: writing fails as on a full disk."""
    resource = pytest.importorskip("resource", reason="only where files can be limited in size")
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_stops_in_one_line_and_the_next_run_goes_on(
    prepare: Any, tmp_path: Path, archive: Path, add_study: AddStudy, chest: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_study("a", "A1", shift=1)
    add_study("b", "A2", shift=2, slope=0.5)
    converted: list[str] = []
    whole = dicom_convert.convert

    def convert(task: dicom_convert.Conversion) -> dict[str, Any]:
        converted.append(task.id)
        if len(converted) == 2:
            with small_files(1000):
                return whole(task)
        return whole(task)

    monkeypatch.setattr("bundle.ctfindings.sources.dicom.source.convert", convert)
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as stopped:
        prepare(SCRIPT, archive, "--output", out)
    assert "what was prepared is kept" in str(stopped.value) and "\n" not in str(stopped.value)
    kept = list((out / "scans").iterdir())
    assert [path.name for path in kept] == [f"{converted[0]}.nii.gz"] and not (out / "datalist.json").exists()
    nib.load(kept[0]).get_fdata()
    result = prepare(SCRIPT, archive, "--output", out)
    assert len(result.studies) == 2 and converted == [converted[0], converted[1], converted[1]]


def test_a_scan_that_was_removed_is_converted_again(
    prepare: Any, tmp_path: Path, archive: Path, add_study: AddStudy
) -> None:
    add_study("a", "A1")
    arguments = (SCRIPT, archive, "--output", tmp_path / "out", "--key", tmp_path / "key.csv")
    prepare(*arguments)
    (scan,) = (tmp_path / "out" / "scans").iterdir()
    scan.unlink()
    for name in ("datalist.json", "data_card.json", "data_card.html", "ledger.csv"):
        (tmp_path / "out" / name).unlink()
    assert len(prepare(*arguments).studies) == 1 and scan.is_file()
    with pytest.raises(SystemExit, match="exists already with other content"):
        prepare(SCRIPT, archive, "--output", tmp_path / "other", "--key", tmp_path / "key.csv")


def test_workers_give_what_one_process_gives(tmp_path: Path, archive: Path, add_study: AddStudy) -> None:
    from bundle.ctfindings.sources.dicom.source import ArchiveOptions, read_source

    for number in range(3):
        add_study(f"s{number}", f"A{number}", shift=number)
    (tmp_path / "salt").write_text("0123456789abcdef")
    sources = [
        read_source(archive, ArchiveOptions(salt=tmp_path / "salt"), tmp_path / f"out{workers}", workers)
        for workers in (1, 2)
    ]
    first, second = ([(each.id, each.patient, each.warnings) for each in source.candidates] for source in sources)
    assert first == second and len(first) == 3


@pytest.mark.slow
def test_both_real_series_are_prepared(prepare: Any, tmp_path: Path, archive: Path, shared_data: Path) -> None:
    for path in sorted((shared_data / "dicom").glob("*.zip")):
        (archive / path.name).symlink_to(path)
    result = prepare(SCRIPT, archive, "--output", tmp_path / "out")
    assert len(result.studies) == 2 and result.card["left_out"] == {}
    entries = [json.loads(line)["result"] for line in (tmp_path / "out" / "scans.jsonl").read_text().splitlines()]
    assert [512, 512, 134] in [entry["shape"] for entry in entries]
