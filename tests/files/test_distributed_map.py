"""Work on many scans: every one once, also when a worker is killed; failures named and counted."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bundle.ctfindings.files.distributed_map import over_scans
from bundle.ctfindings.files.errors import ScanError

needs_dask = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="Dask is not installed: pip install -e '.[cluster]'"
)
needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")


def _double(number: int) -> int:
    if number == 3:
        raise ScanError("c.nii.gz", "is no scan; give another")
    return 2 * number


TASKS = {"a": 1, "b": 2, "c": 3}


def test_a_scan_that_fails_is_named_and_stops_no_other() -> None:
    outcomes = {outcome.key: outcome for outcome in over_scans(_double, TASKS)}
    assert outcomes["a"][1:] == (2, "") and outcomes["b"][1:] == (4, "")
    assert outcomes["c"][1:] == (None, "c.nii.gz: is no scan; give another")


def test_processes_do_without_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert {outcome.key: outcome.result for outcome in over_scans(_double, TASKS, 2)} == {"a": 2, "b": 4, "c": None}


def _die_first_time(folder: str) -> str:
    """Publishes one file; the first to come to the third task is killed when half of it is done."""
    place = Path(folder)
    with (place.parent / "begun.log").open("a") as log:
        log.write(f"{place.name}\n")
    if place.name == "2" and not (place.parent / "killed").exists():
        (place.parent / "killed").touch()
        place.with_suffix(".half").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
    if (place / "done").exists():
        return "kept"
    place.mkdir()  # Fails when it is there: nothing may be made twice.
    (place / "done").touch()
    return "made"


@needs_dask
@needs_signals
def test_with_a_worker_killed_half_way_nothing_is_lost_and_nothing_done_twice(tmp_path: Path) -> None:
    tasks = {str(number): str(tmp_path / str(number)) for number in range(6)}
    outcomes = list(over_scans(_die_first_time, tasks, workers=2))
    assert (tmp_path / "killed").exists()
    assert sorted(outcome.key for outcome in outcomes) == sorted(tasks)
    assert [outcome.problem for outcome in outcomes] == [""] * 6
    assert all((tmp_path / name / "done").exists() for name in tasks)
    begun = (tmp_path / "begun.log").read_text().split()
    assert begun.count("2") == 2, "the scan of the killed worker was begun again, once"


@needs_signals
def test_without_dask_a_killed_worker_ends_the_run_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    tasks = {str(number): str(tmp_path / str(number)) for number in range(6)}
    with pytest.raises(ValueError, match="give the same command again"):
        list(over_scans(_die_first_time, tasks, workers=2))
    done = {outcome.result for outcome in over_scans(_die_first_time, tasks)}
    assert done <= {"made", "kept"} and all((tmp_path / name / "done").exists() for name in tasks)


def test_a_scheduler_without_dask_is_an_error_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="cluster"):
        list(over_scans(_double, TASKS, scheduler="tcp://127.0.0.1:1"))


@needs_dask
def test_a_scheduler_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bundle.ctfindings.files.distributed_map.CONNECT_SECONDS", 1)
    with pytest.raises(ValueError, match="no Dask scheduler answers"):
        list(over_scans(_double, TASKS, scheduler="tcp://127.0.0.1:1"))


_STOPPED = """
import sys, time
sys.path.insert(0, sys.argv[1])
if __name__ != "__main__":
    time.sleep(1)  # a worker that is still importing
from bundle.ctfindings.files.distributed_map import over_scans
if __name__ == "__main__":
    print("begun", flush=True)
    try:
        list(over_scans(time.sleep, {"a": 30, "b": 30, "c": 30}, 2))
    except KeyboardInterrupt:
        print("stopped", flush=True)
"""


@needs_dask
@needs_signals
def test_ctrl_c_while_workers_start_is_for_the_process_that_waits(tmp_path: Path) -> None:
    """A terminal sends it to all of them; a worker would write a traceback over the one line that says what happened."""
    script = tmp_path / "script.py"
    script.write_text(_STOPPED)
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, str(script), str(root)]
    run = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", start_new_session=True
    )
    assert run.stdout is not None and run.stdout.readline() == "begun\n"
    time.sleep(1.5)
    os.killpg(run.pid, signal.SIGINT)
    output, errors = run.communicate(timeout=120)
    assert (output, errors, run.returncode) == ("stopped\n", "", 0)
