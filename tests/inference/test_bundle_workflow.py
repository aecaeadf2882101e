"""Many scans in one run of the inference workflow: they are read ahead, and one bad scan stops no other."""

import csv
import json
import shutil
import threading
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from ignite.engine import Engine, Events
from monai.data import Dataset

from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.inference.bundle_workflow import FindingsInferer, FindingsWriter, ReadAhead, check_request
from bundle.ctfindings.inference.findings_record import FindingsRecord, ModelInfo, ScanInfo
from bundle.ctfindings.inference.output.write_files import RECORD_FILE
from bundle.ctfindings.inference.service import FindingsService


def run(service: FindingsService, scans: list[Path], writer: FindingsWriter) -> None:
    records = [{"image": str(path), "folder": path.name.removesuffix(".nii.gz")} for path in scans]
    studies = ReadAhead(Dataset(records, service.preprocessing))
    inferer = FindingsInferer(service, ["fluid around the lung"])

    def step(engine: Engine, study: Any) -> dict[str, Any]:
        return {"pred": inferer(None, None, study)}

    engine = Engine(step)
    writer.attach(engine)
    engine.run(studies, epoch_length=len(studies))


def test_a_bad_scan_is_listed_with_its_reason_and_the_others_are_written(
    service: FindingsService, phantom_scan: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = [tmp_path / name for name in ("one.nii.gz", "bad.nii.gz", "two.nii.gz")]
    for path in scans[::2]:
        shutil.copy(phantom_scan[0], path)
    scans[1].write_text("no scan")
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"1 of 3 scans could not be used; .*findings.csv gives the reasons"):
        run(service, scans, FindingsWriter(out, dicom_dir=tmp_path / "dicom"))
    with (out / "findings.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["done", "failed", "done"]
    assert "[wrong-content]" in rows[1]["reason"]
    for row, name in ((rows[0], "one"), (rows[2], "two")):
        assert {file.name for file in (out / name).iterdir()} >= {"findings.json", "report.html"}
        record = json.loads((out / name / "findings.json").read_text(encoding="utf-8"))
        assert row["query: fluid around the lung"] == f"{record['queries'][0]['score']:.4f}"
        assert row["query: fluid around the lung percentile"] == str(record["queries"][0]["percentile"])
        assert row["notice"] == (record["notice"] or "")
    assert not (out / "bad").exists()
    said = capsys.readouterr()
    assert said.out.count("DICOM: none; the scan is NIfTI without DICOM headers") == 2
    written = sum((out / name / "evidence.nii.gz").exists() for name in ("one", "two"))
    assert said.out.count("Evidence: no evidence.nii.gz, because") == 2 - written
    assert "3/3" in said.err


def test_a_single_bad_scan_is_its_own_error_and_leaves_nothing(service: FindingsService, tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="no such file or folder"):
        run(service, [tmp_path / "gone.nii.gz"], FindingsWriter(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_ctrl_c_keeps_what_was_done(tmp_path: Path) -> None:
    """Two scans that cannot be used, and Ctrl-C at the third: the table has the two."""

    def step(engine: Engine, study: dict[str, Any]) -> dict[str, Any]:
        if study["image"] == "three":
            raise KeyboardInterrupt
        return {"pred": None}

    studies = [
        {"image": name, "folder": name, "problem": ScanError(name, "empty", "no-file")}
        for name in ("one", "two", "three")
    ]
    engine = Engine(step)
    FindingsWriter(tmp_path / "out").attach(engine)
    with pytest.raises(KeyboardInterrupt):
        engine.run(studies)
    with (tmp_path / "out" / "findings.csv").open(encoding="utf-8", newline="") as file:
        assert [(row["id"], row["reason"][:10]) for row in csv.DictReader(file)] == [
            ("one", "one: empty"),
            ("two", "two: empty"),
        ]


def test_ctrl_c_while_a_scan_is_written_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The main thread waits for the last scan when Ctrl-C arrives."""
    interrupted = threading.Event()

    def write(self: FindingsWriter, scan: Any, answered: Any, folder: str) -> None:
        assert interrupted.wait(60)
        record = cast(Any, FindingsRecord)(
            scan=ScanInfo(folder, "NIfTI", (4, 4, 4), (1, 1, 1), "RAS", np.eye(4).tolist(), (4, 4, 4)),
            model=ModelInfo("bundle", "0", "0", "tower"),
            findings=[],
        )
        (self.output_dir / folder).mkdir(parents=True)
        (self.output_dir / folder / RECORD_FILE).write_text(record.to_json(), encoding="utf-8")

    wait = Future.result

    def result(self: Future[None], timeout: float | None = None) -> None:
        if not interrupted.is_set():
            interrupted.set()
            raise KeyboardInterrupt
        wait(self, timeout)

    monkeypatch.setattr(FindingsWriter, "write", write)
    monkeypatch.setattr(Future, "result", result)
    scan = SimpleNamespace(meta={"filename_or_obj": "one"})
    engine = Engine(lambda engine, study: {"pred": object()})
    FindingsWriter(tmp_path / "out").attach(engine)
    with pytest.raises(KeyboardInterrupt):
        engine.run([{"scan": scan, "folder": "one"}])
    with (tmp_path / "out" / "findings.csv").open(encoding="utf-8", newline="") as file:
        assert [(row["id"], row["status"]) for row in csv.DictReader(file)] == [("one", "done")]


def test_results_that_cannot_be_written_are_one_line_that_names_the_folder(
    service: FindingsService, phantom_scan: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "output").write_text("a file where the folder should be")
    with pytest.raises(ValueError, match=r"output: results cannot be written there \(.*\); free some space"):
        run(service, [phantom_scan[0]], FindingsWriter(tmp_path / "output"))


def test_the_next_scan_is_read_while_the_one_before_is_used() -> None:
    second_is_read = threading.Event()

    def read(study: dict[str, int]) -> dict[str, int]:
        if study["number"] == 1:
            second_is_read.set()
        return study

    studies = ReadAhead(Dataset([{"number": 0}, {"number": 1}, {"number": 2}], read))
    for study in studies:
        if study["number"] == 0:
            assert second_is_read.wait(60)
    assert len(studies) == 3


def test_nobody_waits_for_a_scan_that_is_still_read_after_ctrl_c() -> None:
    go_on = threading.Event()

    def read(study: dict[str, int]) -> dict[str, int]:
        assert study["number"] == 0 or go_on.wait(60)
        return study

    studies = iter(ReadAhead(Dataset([{"number": 0}, {"number": 1}, {"number": 2}], read)))
    next(studies)
    late = threading.Timer(20.0, go_on.set)
    late.start()
    studies.close()  # type: ignore[attr-defined]
    assert not go_on.is_set()
    late.cancel()
    go_on.set()


def test_a_scan_is_counted_when_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, go_on, counted = FindingsWriter(tmp_path), threading.Event(), []
    monkeypatch.setattr(writer, "write", lambda *_: go_on.wait(60))

    def step(engine: Engine, study: dict[str, Any]) -> dict[str, Any]:
        return {"pred": SimpleNamespace()}

    def look(engine: Engine) -> None:
        counted.append(writer._bar.n)
        go_on.set()

    engine = Engine(step)
    writer.attach(engine)
    engine.add_event_handler(Events.ITERATION_COMPLETED, look)
    monkeypatch.setattr(writer, "_write_summary", lambda: tmp_path)
    scans = {name: SimpleNamespace(meta={"filename_or_obj": name}) for name in ("one", "two")}
    engine.run([{"scan": scan, "folder": name} for name, scan in scans.items()])
    assert (counted[0], writer._bar.n) == (0, 2)


def test_an_error_of_the_program_is_not_taken_for_a_bad_scan() -> None:
    def fail(_: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(RuntimeError, match="applying transform"):
        list(ReadAhead(Dataset([{}], fail)))


def test_results_lie_outside_the_scans_and_where_files_can_be_written(tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    (tmp_path / "file").touch()
    record = [{"image": str(scans)}]
    with pytest.raises(ValueError, match=r"output_dir: .* whose scans are read; give a folder outside of it"):
        check_request(str(scans), record, [], "present", scans / "out")
    with pytest.raises(ValueError, match=r"dicom_dir: .* whose scans are read"):
        check_request(str(scans), record, [], "present", tmp_path / "out", scans)
    with pytest.raises(ValueError, match=r"output_dir: .*file is a file; give a folder"):
        check_request(str(scans), record, [], "present", tmp_path / "file" / "out")
    check_request(str(scans), record, [], "present", tmp_path / "out", tmp_path / "dicom")
