"""Series answered on a Dask cluster: killed workers and watchers lose nothing and deliver nothing twice."""

import csv
import importlib.util
import json
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from bundle.ctfindings.files import parallel_map
from bundle.ctfindings.inference.batch import run_archive
from bundle.ctfindings.inference.watch.connections import Unreachable
from tests.commands import load_libraries, run, started
from tests.inference.watch.cluster_watcher import cluster_watcher

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("distributed") is None, reason="Dask is not installed: pip install -e '.[cluster]'"
    ),
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs signals"),
]
SERIES = 6
SECONDS = 300
"""A busy machine starts processes slowly."""


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """Two workers in processes of their own, which are started again when they are killed.

    They are forked from the process that has the libraries, and may take their time: Dask gives up a worker that is
    not back after 15 seconds.
    """
    import dask
    from distributed import LocalCluster

    load_libraries()
    patient = {"worker.multiprocessing-method": "forkserver", "deploy.lost-worker-timeout": f"{SECONDS} s"}
    with (
        dask.config.set({f"distributed.{name}": value for name, value in patient.items()}),
        LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster,
    ):
        yield cluster.scheduler_address


@pytest.fixture
def incoming(tmp_path: Path, hu: np.ndarray, affine: np.ndarray, write_dicom: Callable[..., Path]) -> Path:
    for number in range(SERIES):
        write_dicom(tmp_path / "incoming", hu[:8, :8, :6], affine, number=number)
    return tmp_path / "incoming"


def calls(folder: Path) -> Counter[str]:
    """How often each series was answered."""
    return Counter(file.name.split("-")[1] for file in (folder / "marks").glob("call-*"))


def assert_each_was_delivered_once(folder: Path) -> None:
    assert len(list((folder / "arrived").iterdir())) == 2 * SERIES  # A second copy would have been refused.
    with (folder / "output" / "worklist.csv").open(encoding="utf-8", newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["done"] * SERIES
    lines = (folder / "output" / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    assert len({json.loads(line)["key"] for line in lines}) == len(lines) == SERIES
    results = list((folder / "output" / "results").iterdir())
    assert len(results) == SERIES and all(len(list(result.iterdir())) == 3 for result in results)
    assert {result.stat().st_mode & 0o777 for result in results} == {0o700}


@pytest.mark.slow
def test_killed_workers_lose_nothing(
    incoming: Path, tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_archive, "load_service", lambda *_, **__: None)
    watcher = cluster_watcher(incoming, tmp_path, scheduler)
    steps = [tmp_path / "marks" / "capture written", tmp_path / "marks" / "record written"]
    for step in steps:
        step.touch()
    assert watcher.watch(once=True) == 0
    assert_each_was_delivered_once(tmp_path)
    assert not any(step.exists() for step in steps), "two workers were killed"
    assert calls(tmp_path).total() == SERIES + 2
    assert not list((tmp_path / "output" / ".fetched").iterdir()), "nothing of a patient is left by the worker"
    watcher.run_pass()
    assert calls(tmp_path).total() == SERIES + 2, "a further pass does nothing"
    watcher.close()


@pytest.mark.slow
def test_a_killed_watcher_loses_nothing_and_sends_nothing_twice(incoming: Path, tmp_path: Path, scheduler: str) -> None:
    command = ["-m", "tests.inference.watch.cluster_watcher", incoming, tmp_path, scheduler]
    for arrived in (1, 6):
        with started(command) as watcher:
            deadline = time.monotonic() + SECONDS
            while len(list((tmp_path / "arrived").glob("*"))) < arrived:
                assert watcher.process.is_alive() and time.monotonic() < deadline, watcher.finish(0).stderr
                time.sleep(0.01)
            watcher.process.kill()
            watcher.process.join()
    again = run(command, timeout=SECONDS)
    assert again.returncode == 0, again.stderr
    assert_each_was_delivered_once(tmp_path)


def test_a_scheduler_that_is_away_is_asked_again(
    incoming: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parallel_map, "CONNECT_SECONDS", 1)
    monkeypatch.setattr(run_archive, "load_service", lambda *_, **__: None)
    pauses: list[float] = []
    watcher = cluster_watcher(incoming, tmp_path, "tcp://127.0.0.1:1")
    monkeypatch.setattr("bundle.ctfindings.inference.watch.watcher.time.sleep", pauses.append)
    with pytest.raises(Unreachable, match="no Dask scheduler answers"):
        watcher.watch(once=True)
    watcher.close()
    assert capsys.readouterr().out.count("no Dask scheduler answers; start one") == 4
