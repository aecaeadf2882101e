"""Parallel map: one function over many scans, in this process, in several, or on a Dask cluster."""

import importlib.util
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import resource_tracker
from typing import Any, NamedTuple

from joblib import cpu_count
from joblib.externals.loky import FIRST_COMPLETED, BrokenProcessPool, ProcessPoolExecutor, wait

from bundle.ctfindings.files.errors import scan_error_in
from bundle.ctfindings.files.progress import progress_bar

CONNECT_SECONDS = 20
KILLED = "its worker process was killed twice, possibly out of memory; run the command again with fewer workers"


class NoScheduler(ValueError):
    """The Dask scheduler does not answer, or no longer."""


Run = Callable[[Any], tuple[Any, str]]
"""Result and problem of an argument, see ``Outcome``."""


class Outcome(NamedTuple):
    """Outcome of one task."""

    key: str
    result: Any  # what the function returned; None if it failed
    problem: str = ""  # why it failed, in one line; empty if it did not
    kept: bool = False  # whether the result comes from the journal of an earlier run


def parallel_map(
    work: Callable[[Any], Any],
    tasks: Mapping[str, Any],
    workers: int = 1,
    scheduler: str | None = None,
    *,
    fatal: type[Exception] | tuple[type[Exception], ...] = (),
    progress: str = "",
    finished: int = 0,
) -> Iterator[Outcome]:
    """Yields the outcome of every task as soon as it is there. A task that fails does not stop the others.

    If a worker process is killed, its task runs once more on its own, so the function may be called again for the same
    task: it must check for its finished result first and write it atomically (``atomic_path``).

    Args:
        work: function of a module; workers import it by name.
        tasks: argument by key.
        workers: number of processes; 1 runs in this process and starts none.
        scheduler: address of a running Dask scheduler, such as ``tcp://10.0.0.5:8786``, whose workers are used instead.
        fatal: errors that end the whole map, such as OSError where a full disk would fail every task.
        progress: label of the progress bar; no bar if empty.
        finished: tasks that an earlier run finished, for the progress bar.

    Raises:
        ValueError: if Dask is not installed.
        NoScheduler: if the scheduler does not answer, or goes away meanwhile.
    """
    run = partial(_guarded, work, fatal)
    if scheduler is not None and tasks:
        outcomes = _on_dask(run, tasks, scheduler)
    elif workers <= 1 or len(tasks) <= 1:
        outcomes = (Outcome(key, *run(argument)) for key, argument in tasks.items())
    else:
        outcomes = _in_processes(run, tasks, min(workers, len(tasks)))
    yield from progress_bar(outcomes, progress, finished + len(tasks), initial=finished, unit="")


def _guarded(
    work: Callable[[Any], Any], fatal: type[Exception] | tuple[type[Exception], ...], argument: Any
) -> tuple[Any, str]:
    try:
        return work(argument), ""
    except fatal:
        raise
    except Exception as error:
        cause = scan_error_in(error) or error
        kind = "" if isinstance(cause, ValueError) else f"{type(cause).__name__}: "
        return None, " ".join(f"{kind}{cause}".split())


def _in_processes(run: Run, tasks: Mapping[str, Any], workers: int) -> Iterator[Outcome]:
    """A killed worker breaks its pool. A new pool goes on, and tasks that were running are retried one at a time."""
    waiting = dict(tasks)
    while waiting:
        running: dict[Any, str] = {}
        with _pool(workers) as pool, suppress(BrokenProcessPool):
            while waiting or running:
                with _without_ctrl_c():
                    for key in list(waiting)[: workers - len(running)]:
                        running[pool.submit(run, waiting[key])] = key
                        del waiting[key]
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    outcome = future.result()
                    yield Outcome(running.pop(future), *outcome)
        if running and workers == 1:
            yield Outcome(next(iter(running.values())), None, KILLED)
        else:
            yield from _in_processes(run, {key: tasks[key] for key in running.values()}, 1)


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Fresh interpreters, which do not import the caller's main module; they share the cores and end with the block."""
    threads = str(max(1, cpu_count() // workers))
    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    pool = ProcessPoolExecutor(workers, env=dict.fromkeys(variables, threads))
    try:
        yield pool
    except BaseException:
        pool.shutdown(kill_workers=True)
        raise
    pool.shutdown()


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Processes started in this block never see Ctrl-C, which would make each print a traceback."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # Its start lifts the mask of the thread that starts it.
    # Workers and the threads that manage them inherit the mask; a blocked signal is delivered when it is lifted.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _on_dask(run: Run, tasks: Mapping[str, Any], scheduler: str) -> Iterator[Outcome]:
    """Dask gives the task of a killed worker to another worker, and fails it after three."""
    if importlib.util.find_spec("distributed") is None:
        raise ValueError("--scheduler needs Dask, which is not installed; install it: pip install -e '.[cluster]'")
    from distributed import Client, KilledWorker, as_completed

    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        problem = "no Dask scheduler answers; start one (docs/scaling.md) or check the address"
        raise NoScheduler(f"{scheduler}: {problem}") from error
    with client:
        futures = {client.submit(run, argument, pure=False): key for key, argument in tasks.items()}
        for future in as_completed(list(futures)):
            if future.cancelled():
                raise NoScheduler(f"{scheduler}: the Dask scheduler went away; start it and the command again")
            killed = isinstance(future.exception(), KilledWorker)
            yield Outcome(futures.pop(future), *((None, KILLED) if killed else future.result()))
            future.release()
