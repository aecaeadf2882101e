"""Takes new series of an archive, answers each once, delivers the results, and writes the worklist.

A series is finished when its line is in the journal. Its folder of results is named by a digest of the series, its
images and the weights, and appears when they are complete, so a run that is killed at any point repeats at most the
step it was in: results that are complete are not made again, and objects that arrived are not sent again. Series may be
answered on a cluster; this process alone delivers results and writes journal and worklist.
"""

import fcntl
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pydicom

from bundle.ctfindings.files.atomic_write import staging_folder
from bundle.ctfindings.files.journal import append, finished
from bundle.ctfindings.files.parallel_map import NoScheduler, Outcome, parallel_map
from bundle.ctfindings.files.progress import say
from bundle.ctfindings.inference.batch.run_archive import JOURNAL_FILE, ArchiveTask, Model, claim_output
from bundle.ctfindings.inference.findings_record import FindingsRecord
from bundle.ctfindings.inference.output.worklist import Entry, write_worklist
from bundle.ctfindings.inference.output.write_files import RECORD_FILE
from bundle.ctfindings.inference.watch.archives import DicomWebArchive, FolderArchive, Series
from bundle.ctfindings.inference.watch.connections import Unreachable
from bundle.ctfindings.inference.watch.delivery import StoreDelivery, StowDelivery
from bundle.ctfindings.inference.watch.series_task import Answered, SeriesTask, answer_series
from bundle.ctfindings.scan.dicom_series import MIN_IMAGES

RESULTS, FETCHED, LOCK = "results", ".fetched", ".lock"
LONGEST_WAIT = 600.0
"""Seconds: longest pause between two attempts to reach a server."""
LONGEST_HOLD = 86400.0
"""Seconds: longest pause between two attempts at a series that failed."""
ATTEMPTS = 5
"""Attempts to reach a server before a single pass gives up."""
AWAY = 3
"""A server is away if it answers for none of so many series; before, it may be the series that it cannot give."""


class Pace(NamedTuple):
    """Times of a watcher in seconds.

    Attributes:
        poll: between two passes; also the first pause after a failure, which doubles with each further one.
        quiet: for how long the images of a series must not have changed before it is taken.
    """

    poll: float = 30.0
    quiet: float = 60.0


class _Failure(NamedTuple):
    """What went wrong with a series in that state, after how many attempts, and when the next one is due."""

    state: str
    problem: str
    attempts: int
    due: float
    away: bool = False  # Whether the server did not answer; nothing is then wrong with the series.


class Watcher:
    """Watches one archive.

    Args:
        archive: where the series are.
        delivery: where the results go; None leaves them in the output folder.
        address: of the delivery; results are delivered again to another one.
        output: folder of the results, of the journal and of the worklist. One watcher uses it at a time.
        model: bundle and weights.
        find: writes the findings record and DICOM objects of a task; pickled for a cluster.
        pace: its times.
        first: findings that come first in the worklist.
        scheduler: address of a Dask scheduler whose workers answer the series; None for this process.

    Raises:
        ValueError: if another watcher uses the output, or it holds results of other weights.
    """

    def __init__(
        self,
        archive: FolderArchive | DicomWebArchive,
        delivery: StowDelivery | StoreDelivery | None,
        address: str,
        output: Path,
        model: Model,
        find: Callable[[ArchiveTask], str | None],
        pace: Pace,
        first: Sequence[str] = (),
        scheduler: str | None = None,
    ) -> None:
        self.archive, self.delivery, self.address, self.output = archive, delivery, address, output
        self.model, self.find, self.pace, self.first, self.scheduler = model, find, pace, first, scheduler
        output.mkdir(parents=True, exist_ok=True)
        self._lock = (output / LOCK).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(
                f"{output}: another watcher uses this folder; stop it, or give another --output"
            ) from error
        self.weights = claim_output(output, model)
        self._seen: dict[str, tuple[str, float]] = {}  # state of a series, and since when
        self._failed: dict[str, _Failure] = {}
        self._ignored = 0

    def watch(self, once: bool = False) -> int:
        """Passes until it is stopped, or with ``once`` until no series is waiting; returns how many failed.

        Unreachable with ``once``, if a server does not answer ``ATTEMPTS`` times.
        """
        silent = 0
        while True:
            try:
                entries = self.run_pass()
                silent, pause = 0, self.pace.poll
            except Unreachable as error:
                silent += 1
                if once and silent >= ATTEMPTS:
                    raise
                pause = min(max(self.pace.poll, 1.0) * 2 ** (silent - 1), LONGEST_WAIT)
                _log(f"{error}; next attempt in {pause:.0f} s")
            else:
                waiting = [entry for entry in entries if entry.status == "waiting"]
                if once and not entries:
                    _log(f"no CT series of at least {MIN_IMAGES} images or frames found that the search takes")
                if once and not waiting:
                    return sum(entry.status == "failed" for entry in entries)
                if once:
                    pause = max(self.pace.quiet, 0.1)
            time.sleep(pause)

    def close(self) -> None:
        """Lets another watcher use the output."""
        self._lock.close()

    def run_pass(self) -> list[Entry]:
        """Looks once, and finishes every series that is ready; returns the worklist.

        Unreachable if a server answers for no series that was tried. What is finished is in the worklist.
        """
        self._remove_leftovers()
        listed = {series.uid: series for series in self.archive.listed()}
        if self.archive.ignored != self._ignored:
            self._ignored = self.archive.ignored
            _log(f"{self._ignored} files without SeriesInstanceUID ignored")
        self._seen = {
            uid: seen
            if (seen := self._seen.get(uid)) and seen[0] == series.state
            else (series.state, time.monotonic() - series.age)
            for uid, series in listed.items()
        }
        signatures = {uid: json.dumps([series.state, self.address]) for uid, series in listed.items()}
        journal = self.output / JOURNAL_FILE
        kept = finished(signatures, journal, lambda _, result: (self.output / result["folder"] / RECORD_FILE).is_file())
        entries = {
            uid: Entry(**kept[uid]) if uid in kept else self._unfinished(series) for uid, series in listed.items()
        }
        due = {uid: self._task(series) for uid, series in listed.items() if uid not in kept and self._is_due(series)}
        away: list[tuple[Series, str]] = []
        reached = False
        try:
            for answered in parallel_map(answer_series, due, scheduler=self.scheduler, fatal=OSError):
                uid, series = answered.key, listed[answered.key]
                outcome, unreachable = self._delivered(series, answered)
                if unreachable:
                    away.append((series, unreachable))
                    if len(away) >= AWAY and not reached:
                        break
                    continue
                reached = True
                if not outcome.problem:
                    append(journal, uid, signatures[uid], outcome.result)
                    entries[uid] = Entry(**outcome.result)
                    self._failed.pop(uid, None)
                else:
                    self._fail(series, outcome.problem)
                    entries[uid] = self._unfinished(series)
            if reached or len(away) >= AWAY:
                for series, unreachable in away:
                    self._fail(series, unreachable, away=True)
                    entries[series.uid] = self._unfinished(series)
            if away and not reached:
                raise Unreachable(away[-1][1])
        except NoScheduler as error:
            raise Unreachable(str(error)) from error
        except OSError as error:
            problem = f"results cannot be written ({error.strerror or type(error).__name__})"
            raise ValueError(f"{self.output}: {problem}; free some space, then start again") from error
        finally:
            ordered = write_worklist(self.output, list(entries.values()), self.first)
        self._remove_leftovers()
        return ordered

    def _remove_leftovers(self) -> None:
        """Removes what killed processes left, which names patients.

        It is moved away first: a worker that outlived its watcher then fails, where it would answer half a series.
        """
        leftovers = [
            *self.output.glob(".partial-*"),
            self.output / FETCHED,
            *(self.output / RESULTS).glob(".partial-*"),
        ]
        with staging_folder(self.output / RESULTS) as trash:
            for left in leftovers:
                with suppress(FileNotFoundError):
                    left.rename(trash / left.name)
        (self.output / FETCHED).mkdir()

    def _folder(self, series: Series) -> Path:
        content = json.dumps([series.uid, series.state, self.weights])
        return self.output / RESULTS / hashlib.sha256(content.encode()).hexdigest()[:16]

    def _task(self, series: Series) -> SeriesTask:
        fetch = self.archive.fetching(series)
        return SeriesTask(series.uid, fetch, self.output / FETCHED, self._folder(series), self.model, self.find)

    def _delivered(self, series: Series, answered: Outcome) -> tuple[Outcome, str]:
        """The outcome of a series after its delivery, and why a server did not answer; empty if it did."""
        if answered.problem or answered.result.unreachable:
            return answered, "" if answered.problem else answered.result.unreachable
        try:  # A map of one series, which turns other errors into a problem.
            (outcome,) = parallel_map(
                self._deliver, {answered.key: (series, answered.result)}, fatal=(Unreachable, OSError)
            )
        except Unreachable as error:
            return answered, str(error)
        return outcome, ""

    def _deliver(self, finished: tuple[Series, Answered]) -> dict[str, Any]:
        """The worklist entry of a series, after its results are delivered."""
        started, (series, answered) = time.perf_counter(), finished
        folder = self._folder(series)
        record = FindingsRecord.from_json((folder / RECORD_FILE).read_text(encoding="utf-8"))
        files = sorted(folder.glob("*.dcm"))
        sent = self.delivery.send(files) if self.delivery and files else 0
        present = [answer for answer in record.ordered() if answer.present]
        seconds = answered.seconds + time.perf_counter() - started
        assessed = any(answer.present is not None for answer in record.findings)
        found = f"{len(present)} findings" if assessed else "no finding was assessed"
        _log(f"{name_in_log(series.uid)}: {found}, {len(files)} objects, {sent} sent, {seconds:.1f} s")
        return Entry(
            series.uid,
            series.study,
            "done",
            "" if files else answered.without_dicom or "no DICOM objects could be made of this series",
            notice=record.notice or "",
            present={answer.name: answer.probability for answer in present},
            folder=folder.relative_to(self.output).as_posix(),
            objects=len(files),
            **_study_of(files),
        )._asdict()

    def _is_due(self, series: Series) -> bool:
        if series.left_out:
            return False
        failure = self._failed.get(series.uid)
        if failure and failure.state == series.state:
            return time.monotonic() >= failure.due
        return time.monotonic() - self._seen[series.uid][1] >= self.pace.quiet

    def _fail(self, series: Series, problem: str, away: bool = False) -> None:
        before = self._failed.get(series.uid)
        attempts = 1 + (before.attempts if before and before.state == series.state else 0)
        pause = min(self.pace.poll * 2**attempts, LONGEST_HOLD)
        self._failed[series.uid] = _Failure(series.state, problem, attempts, time.monotonic() + pause, away)
        _log(f"{name_in_log(series.uid)}: {problem}")

    def _unfinished(self, series: Series) -> Entry:
        if series.left_out:
            return Entry(series.uid, series.study, "left out", f"not of the chest: {series.left_out}")
        failure = self._failed.get(series.uid)
        if failure and failure.state == series.state:
            status = "waiting" if failure.away and failure.attempts < ATTEMPTS else "failed"
            return Entry(series.uid, series.study, status, failure.problem)
        return Entry(series.uid, series.study, "waiting")


def name_in_log(uid: str) -> str:
    """What a series is called in the log: the first eight digits of the SHA-256 of its UID."""
    return f"series {hashlib.sha256(uid.encode()).hexdigest()[:8]}"


def _study_of(files: Sequence[Path]) -> dict[str, str]:
    """Date and accession number of the study, by which a PACS finds it."""
    if not files:
        return {}
    header = pydicom.dcmread(files[0], stop_before_pixels=True, specific_tags=["StudyDate", "AccessionNumber"])
    return {"date": str(header.get("StudyDate") or ""), "accession": str(header.get("AccessionNumber") or "")}


def _log(line: str) -> None:
    say(f"{time.strftime('%H:%M:%S')} {line}")
