"""The watcher with a fabricated service: every series is answered and delivered once, whatever happens meanwhile."""

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import CTImageStorage

from bundle.ctfindings.inference.batch import run_archive
from bundle.ctfindings.inference.batch.run_archive import ArchiveTask, Model
from bundle.ctfindings.inference.watch import archives
from bundle.ctfindings.inference.watch.archives import FolderArchive, Series, search_from
from bundle.ctfindings.inference.watch.connections import Unreachable, check_address
from bundle.ctfindings.inference.watch.series_task import SeriesTask, answer_series
from bundle.ctfindings.inference.watch.watcher import Pace, Watcher
from tests.enhanced_ct import write_enhanced
from tests.inference.watch.fabricated import Killed, Service

SEARCH = {"Modality": "CT"}


class Receiver:
    """Keeps how often each object arrived; it may be away, or kill the watcher after an object or after all."""

    def __init__(self) -> None:
        self.arrived: Counter[str] = Counter()
        self.away = 0
        self.killed_after: int | None = None

    def send(self, files: Sequence[Path]) -> int:
        if self.away:
            self.away -= 1
            raise Unreachable("the DICOMweb server does not answer")
        uids = [str(pydicom.dcmread(file).SOPInstanceUID) for file in files]
        missing = [uid for uid in uids if uid not in self.arrived]
        for number, uid in enumerate(missing, start=1):
            self.arrived[uid] += 1
            if self.killed_after == number:
                self.killed_after = None
                raise Killed
        return len(missing)


def note(folders: list[Path], task: ArchiveTask) -> None:
    """Notes the folder of the images, and writes a record."""
    folders.append(Path(task.study["image"]))
    task.target.parent.mkdir(parents=True)
    task.target.write_text("{}")


@pytest.fixture
def incoming(tmp_path: Path, hu: np.ndarray, affine: np.ndarray, write_dicom: Callable[..., Path]) -> Path:
    """Two series in one folder whose name is that of the patient, and a file that is not DICOM."""
    folder = tmp_path / "Doe^Jane"
    for number in (1, 2):
        write_dicom(folder, hu[:8, :8, :6], affine, number=number)
    for name in ("notes.txt", "old.zip"):
        (folder / name).write_text("nothing")
    return folder


class Setup:
    """What stays when a watcher is killed."""

    def __init__(self, incoming: Path, output: Path, weights: Path) -> None:
        self.incoming, self.output = incoming, output
        self.service, self.receiver = Service(), Receiver()
        self.model = Model(".", str(weights))

    def start(self, pace: Pace = Pace(0.0, 0.0), **settings: Any) -> Watcher:  # noqa: B008
        archive = FolderArchive(self.incoming, SEARCH)
        return Watcher(archive, self.receiver, "there", self.output, self.model, self.service, pace, **settings)

    def rows(self) -> list[dict[str, str]]:
        with (self.output / "worklist.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture
def setup(incoming: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    monkeypatch.setattr(run_archive, "load_service", lambda *_, **__: None)  # The stand-in for the service needs none.
    (tmp_path / "model.pt").write_bytes(b"weights")
    return Setup(incoming, tmp_path / "output", tmp_path / "model.pt")


@pytest.mark.parametrize("step", ["capture written", "report written", "record written", "first sent", "all sent"])
def test_a_killed_watcher_loses_nothing_and_sends_nothing_twice(setup: Setup, step: str) -> None:
    setup.service.killed_after = step
    setup.receiver.killed_after = {"first sent": 1, "all sent": 2}.get(step)
    watcher = setup.start()
    with pytest.raises(Killed):
        watcher.watch(once=True)
    watcher.close()
    watcher = setup.start()
    assert watcher.watch(once=True) == 0
    assert len(setup.receiver.arrived) == 4 and set(setup.receiver.arrived.values()) == {1}
    repeated = step.endswith("written")
    assert sorted(setup.service.calls.values()) == [1, 1 + repeated], "complete results are not made again"
    assert [row["status"] for row in setup.rows()] == ["done", "done"]
    assert not list((setup.output / ".fetched").iterdir())
    calls = setup.service.calls.total()
    watcher.watch(once=True)
    assert setup.service.calls.total() == calls


def test_the_log_calls_a_series_by_a_digest(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    watcher = setup.start()
    uids = sorted(series.uid for series in watcher.archive.listed())
    setup.service.unusable = {uids[0]}
    assert watcher.watch(once=True) == 1
    said = capsys.readouterr().out
    assert "holds no chest" in said and "1 findings" in said
    for uid in uids:
        assert uid not in said and f"series {hashlib.sha256(uid.encode()).hexdigest()[:8]}: " in said


def test_a_task_is_shown_without_names() -> None:
    """Dask logs the arguments of a call that failed."""
    folder = Path("/incoming/Doe^Jane")
    task = SeriesTask("1.2.840.7", partial(print, folder), folder, folder, Model(".", "w"), partial(print, folder))
    assert "Doe" not in f"{task} {task!r}" and "1.2.840.7" not in f"{task} {task!r}"


def test_a_bad_series_stops_no_other_and_waits_longer_each_time(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    watcher = setup.start(Pace(10.0, 0.0))
    bad = min(series.uid for series in watcher.archive.listed())
    setup.service.unusable = {bad}
    assert [entry.status for entry in watcher.run_pass()] == ["done", "failed"]
    assert setup.rows()[1]["reason"] == "holds no chest; give another one [not-a-chest]"
    for seconds, calls in ((19.0, 1), (2.0, 2), (38.0, 2), (3.0, 3)):
        now += seconds
        watcher.run_pass()
        assert setup.service.calls[bad] == calls
    setup.service.unusable = set()
    newest = setup.incoming / "new"
    image = next(file for file in setup.incoming.iterdir() if file.read_bytes().find(bad.encode()) > 0)
    newest.write_bytes(image.read_bytes())
    assert [entry.status for entry in watcher.run_pass()] == ["done", "done"], "new images are tried at once"


def test_a_server_that_is_away_is_asked_again_after_growing_pauses(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    setup.receiver.away = 6  # Three passes over two series.
    watcher = setup.start()
    assert watcher.watch(once=True) == 0
    assert pauses == [1.0, 2.0, 4.0]
    assert set(setup.service.calls.values()) == {1} and len(setup.receiver.arrived) == 4
    said = capsys.readouterr().out
    assert said.count("does not answer; next attempt in") == 3
    assert "Doe" not in said and "4711" not in said and str(setup.incoming) not in said
    watcher.close()
    setup.receiver.away = 99
    with pytest.raises(Unreachable):
        Watcher(
            watcher.archive, setup.receiver, "elsewhere", setup.output, setup.model, setup.service, Pace(0, 0)
        ).watch(once=True)
    assert [row["status"] for row in setup.rows()] == ["waiting", "waiting"], "another receiver gets them again"


def test_a_series_that_the_server_does_not_give_holds_up_no_other(setup: Setup) -> None:
    setup.receiver.away = 1
    watcher = setup.start(Pace(0.0, 0.0))
    assert sorted(entry.status for entry in watcher.run_pass()) == ["done", "waiting"]
    assert "does not answer" in next(row["reason"] for row in setup.rows() if row["status"] == "waiting")
    assert [entry.status for entry in watcher.run_pass()] == ["done", "done"]


def test_a_uid_that_is_no_uid_names_no_folder(tmp_path: Path) -> None:
    folders: list[Path] = []
    for number, uid in enumerate(("1.2/../../3", "/1.2", "9" * 300)):
        task = SeriesTask(
            uid, lambda folder: None, tmp_path, tmp_path / str(number), Model(".", "w"), partial(note, folders)
        )
        answer_series(task)
    assert all(folder.parent.parent == tmp_path for folder in folders) and len(folders) == 3


def test_a_server_that_does_not_count_images_is_fetched_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = SimpleNamespace(iter_series=lambda *uids, media_types: iter(()))
    monkeypatch.setattr(archives, "dicomweb_client", lambda url: client)
    archives._download("https://pacs", Series("1.2", "1.3", ""), tmp_path)
    with pytest.raises(ValueError, match="0 of 3 images arrived"):
        archives._download("https://pacs", Series("1.2", "1.3", "3"), tmp_path)


def test_a_series_is_taken_when_no_image_has_come_for_a_while(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = setup.start(Pace(1.0, 100.0))
    clock = os.times().elapsed
    monkeypatch.setattr("time.monotonic", lambda: clock)
    assert [entry.status for entry in watcher.run_pass()] == ["waiting", "waiting"]
    clock += 101
    assert [entry.status for entry in watcher.run_pass()] == ["done", "done"]


def test_one_watcher_uses_an_output_at_a_time(setup: Setup) -> None:
    first = setup.start()
    with pytest.raises(ValueError, match="another watcher uses this folder"):
        setup.start()
    first.close()
    setup.start().close()


def test_series_of_a_mixed_folder_are_told_apart_and_searched(setup: Setup, tmp_path: Path) -> None:
    archive = FolderArchive(setup.incoming, {"SeriesNumber": "2", "SeriesDescription": "Ch*"})
    (series,) = archive.listed()
    target = tmp_path / "fetched"
    target.mkdir()
    archive.fetching(series)(target)
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in target.iterdir()]
    assert len(headers) == 6 and {str(header.SeriesInstanceUID) for header in headers} == {series.uid}
    assert not FolderArchive(setup.incoming, {"Modality": "MR"}).listed() and not archive.ignored
    assert search_from(["BodyPartExamined=CHEST"]) == {"Modality": "CT", "BodyPartExamined": "CHEST"}
    for wrong in ("CT", "Modalty=CT"):
        with pytest.raises(ValueError, match="KEYWORD=VALUE"):
            search_from([wrong])


def test_an_image_that_cannot_be_opened_is_tried_again(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = FolderArchive(setup.incoming, SEARCH)
    (closed, *_) = sorted(setup.incoming.glob("*_*"))
    read = Path.open

    def refuse(path: Path, *args: Any, **settings: Any) -> Any:
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *args, **settings)

    with monkeypatch.context() as patch:  # The rights of a file do not stop root.
        patch.setattr(Path, "open", refuse)
        before = archive.listed()
    after = archive.listed()
    assert sorted(series.state.split(":")[0] for series in before) == ["5", "6"]
    assert [series.state.split(":")[0] for series in after] == ["6", "6"]


def test_a_series_whose_images_were_removed_since_it_was_listed_is_not_answered_in_part(
    setup: Setup, tmp_path: Path
) -> None:
    archive = FolderArchive(setup.incoming, SEARCH)
    (series, _) = archive.listed()
    fetch = archive.fetching(series)
    next(file for file in setup.incoming.glob("*_*") if pydicom.dcmread(file).SeriesInstanceUID == series.uid).unlink()
    task = SeriesTask(series.uid, fetch, tmp_path, tmp_path / "results", setup.model, partial(note, []))
    with pytest.raises(ValueError, match="5 of 6 images are there; it is tried again later"):
        answer_series(task)
    assert not (tmp_path / "results").exists()


def test_a_series_of_another_body_part_is_left_out_with_its_reason(setup: Setup) -> None:
    parts = {"1": "HEAD", "2": ""}
    for file in setup.incoming.glob("*_*"):
        header = pydicom.dcmread(file)
        header.BodyPartExamined = parts[str(header.SeriesNumber)]
        header.SeriesDescription = ""
        header.save_as(file)
    assert setup.start().watch(once=True) == 0
    done, left_out = setup.rows()
    assert (done["status"], left_out["status"]) == ("done", "left out")
    assert left_out["reason"] == "not of the chest: BodyPartExamined names HEAD"
    assert setup.service.calls.total() == 1, "it is not read"
    assert not any(series.left_out for series in FolderArchive(setup.incoming, {"BodyPartExamined": "H*"}).listed())


def test_a_folder_without_a_series_says_so_and_counts_what_was_ignored(
    setup: Setup, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in setup.incoming.glob("*_*"):
        header = pydicom.dcmread(file)
        header.SeriesInstanceUID = ""
        header.save_as(file)
    assert setup.start().watch(once=True) == 0
    said = capsys.readouterr().out
    assert "12 files without SeriesInstanceUID ignored" in said
    assert "no CT series of at least 5 images or frames found" in said


def test_an_enhanced_ct_is_a_series_of_its_frames(setup: Setup, tmp_path: Path) -> None:
    images = [pydicom.dcmread(file) for file in setup.incoming.glob("*_*")][:5]
    folder = tmp_path / "enhanced"
    whole = write_enhanced(folder / "whole", images, SeriesInstanceUID="1.2.3")
    write_enhanced(folder / "short", images[:4], SeriesInstanceUID="1.2.4")
    write_enhanced(folder / "other", images, SeriesInstanceUID="1.2.5", SOPClassUID=CTImageStorage)
    archive = FolderArchive(folder, SEARCH)
    (series,) = archive.listed()
    assert series.uid == "1.2.3"
    (tmp_path / "fetched").mkdir()
    archive.fetching(series)(tmp_path / "fetched")
    assert [file.resolve() for file in (tmp_path / "fetched").iterdir()] == [whole]


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("http://127.0.0.1:8042/dicom-web", ""),
        ("dicom://PACS@localhost:4242", ""),
        ("https://pacs.example.org/dicom-web", ""),
        ("http://pacs.example.org/dicom-web", "not encrypted"),
        ("dicom://PACS@10.0.0.5:104", "not encrypted"),
        ("ftp://127.0.0.1", "expected http"),
    ],
)
def test_results_leave_this_machine_encrypted_only(address: str, problem: str) -> None:
    if not problem:
        check_address(address, "--send", insecure=False)
        return
    with pytest.raises(ValueError, match=problem):
        check_address(address, "--send", insecure=False)
    if "encrypted" in problem:
        check_address(address, "--send", insecure=True)
