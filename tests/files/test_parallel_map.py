"""Parallel map: every task runs once, also when a worker is killed; failures are named."""

import errno
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.files.parallel_map import NoScheduler, parallel_map
from tests.ports import free_port

needs_dask = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="Dask is not installed: pip install -e '.[cluster]'"
)
needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")


def _double(number: int) -> int:
    if number == 3:
        raise ScanError("c.nii.gz", "is no scan; give another", "not-a-scan")
    return 2 * number


TASKS = {"a": 1, "b": 2, "c": 3}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_scan_that_fails_is_named_and_stops_no_other(workers: int) -> None:
    outcomes = {outcome.key: outcome for outcome in parallel_map(_double, TASKS, workers)}
    assert outcomes["a"][1:3] == (2, "") and outcomes["b"][1:3] == (4, "")
    assert outcomes["c"][1:3] == (None, "c.nii.gz: is no scan; give another [not-a-scan]")


def _disk_is_full(number: int) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_that_would_fail_every_task_ends_the_map(workers: int) -> None:
    with pytest.raises(OSError, match="No space left"):
        list(parallel_map(_disk_is_full, TASKS, workers, fatal=OSError))


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


@needs_signals
def test_with_a_worker_killed_half_way_nothing_is_lost_and_nothing_done_twice(tmp_path: Path) -> None:
    tasks = {str(number): str(tmp_path / str(number)) for number in range(6)}
    outcomes = list(parallel_map(_die_first_time, tasks, workers=2))
    assert (tmp_path / "killed").exists()
    assert sorted(outcome.key for outcome in outcomes) == sorted(tasks)
    assert [outcome.problem for outcome in outcomes] == [""] * 6
    assert all((tmp_path / name / "done").exists() for name in tasks)
    begun = (tmp_path / "begun.log").read_text().split()
    assert begun.count("2") == 2, "the scan of the killed worker was begun again, once"


def _die_of_two(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@needs_signals
def test_a_scan_that_kills_every_worker_loses_only_itself() -> None:
    outcomes = list(parallel_map(_die_of_two, {str(number): number for number in range(5)}, workers=2))
    assert sorted(outcome.result for outcome in outcomes if not outcome.problem) == [0, 1, 3, 4]
    assert ["out of memory" in outcome.problem for outcome in outcomes if outcome.problem] == [True]


def test_a_scheduler_without_dask_is_an_error_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="cluster"):
        list(parallel_map(_double, TASKS, scheduler="tcp://127.0.0.1:1"))


@needs_dask
def test_a_scheduler_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bundle.ctfindings.files.parallel_map.CONNECT_SECONDS", 1)
    with pytest.raises(ValueError, match="no Dask scheduler answers"):
        list(parallel_map(_double, TASKS, scheduler="tcp://127.0.0.1:1"))


@needs_dask
def test_the_workers_of_a_dask_cluster_do_the_work() -> None:
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, processes=False, protocol="tcp://", host="127.0.0.1", dashboard_address=None
    ) as cluster:
        outcomes = list(parallel_map(_double, TASKS, scheduler=cluster.scheduler_address))
    assert {outcome.key: outcome.result for outcome in outcomes} == {"a": 2, "b": 4, "c": None}


@needs_dask
@needs_signals
def test_a_scheduler_that_goes_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import distributed

    port = free_port()
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen([*command, "--no-dashboard"], stderr=subprocess.DEVNULL) as scheduler:
        as_completed = distributed.as_completed

        def killed(futures: list[distributed.Future]) -> distributed.as_completed:
            scheduler.kill()
            return as_completed(futures)

        monkeypatch.setattr(distributed, "as_completed", killed)
        monkeypatch.setattr("bundle.ctfindings.files.parallel_map.CONNECT_SECONDS", 300)
        try:
            with pytest.raises(NoScheduler, match="the Dask scheduler went away"):
                list(parallel_map(_double, TASKS, scheduler=f"tcp://127.0.0.1:{port}"))  # It has no worker.
        finally:
            scheduler.kill()


_STOPPED = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored if the tests are a background job of a shell
sys.path.insert(0, sys.argv[1])
from bundle.ctfindings.files.parallel_map import parallel_map
if __name__ == "__main__":
    print("begun", flush=True)
    try:
        list(parallel_map(time.sleep, {"a": 30, "b": 30, "c": 30}, 2))
    except KeyboardInterrupt:
        print("stopped", flush=True)
"""


@needs_signals
@pytest.mark.parametrize("seconds", [0.3, 3])
def test_ctrl_c_is_for_the_process_that_waits(tmp_path: Path, seconds: float) -> None:
    """A terminal sends it to all of them; a worker would print a traceback."""
    script = tmp_path / "script.py"
    script.write_text(_STOPPED)
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, str(script), str(root)]
    run = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", start_new_session=True
    )
    assert run.stdout is not None and run.stdout.readline() == "begun\n"
    time.sleep(seconds)
    os.killpg(run.pid, signal.SIGINT)
    output, errors = run.communicate(timeout=300)
    # joblib's tracker may warn of a lock that the pool was about to make.
    assert (output, run.returncode) == ("stopped\n", 0) and "Traceback" not in errors, errors
