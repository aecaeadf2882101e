"""One function over many scans: in this process, in several, or on a Dask cluster. A scan that fails is reported and
stops no other.
"""

from __future__ import annotations

import importlib.util
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from multiprocessing import resource_tracker
from typing import Any, NamedTuple

from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.files.process_pool import WorkerKilled, in_parallel

CONNECT_SECONDS = 20


class Outcome(NamedTuple):
    """What became of one scan.

    Attributes:
        key: of the task.
        result: what the function gave; None when it failed.
        problem: one line on why it failed; empty when it did not.
    """

    key: str
    result: Any
    problem: str = ""


def over_scans(
    work: Callable[[Any], Any], tasks: Mapping[str, Any], workers: int = 1, scheduler: str | None = None
) -> Iterator[Outcome]:
    """The outcome of every task, in any order.

    The function may be called again for a scan whose worker was killed, so it must look for its finished result first
    and write it in one move (``atomic_path``, ``publish_once``): then nothing is lost and nothing is there twice.

    Args:
        work: a function of a module; processes import it by name.
        tasks: argument by key.
        workers: processes of this machine; 1 works in this process. With Dask installed a killed worker is replaced.
        scheduler: address of a running Dask scheduler, such as ``tcp://10.0.0.5:8786``, whose workers do it instead.

    Raises:
        ValueError: when Dask is asked for and missing, the scheduler does not answer, or a process was killed and Dask
            is not there to replace it. What was finished stays.
    """
    has_dask = importlib.util.find_spec("distributed") is not None
    if scheduler is not None and not has_dask:
        raise ValueError(
            "a scheduler was given, but Dask is not installed; install the extra: pip install -e '.[cluster]'"
        )
    if scheduler is None and (workers <= 1 or len(tasks) <= 1):
        for key, argument in tasks.items():
            yield Outcome(key, *_guarded(work, argument))
    elif has_dask:
        yield from _on_dask(work, tasks, workers, scheduler)
    else:
        yield from _in_processes(work, tasks, workers)


def _guarded(work: Callable[[Any], Any], argument: Any) -> tuple[Any, str]:
    """The result and no problem, or no result and the problem in one line."""
    try:
        return work(argument), ""
    except Exception as error:
        cause = _cause(error)
        kind = "" if isinstance(cause, ValueError) else f"{type(cause).__name__}: "
        return None, " ".join(f"{kind}{cause}".split())


def _cause(error: BaseException) -> BaseException:
    """The error of a scan, which MONAI wraps in one of its own; any other as it is."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, ScanError):
            return link
        link = link.__cause__ or link.__context__
    return error


def _on_dask(
    work: Callable[[Any], Any], tasks: Mapping[str, Any], workers: int, scheduler: str | None
) -> Iterator[Outcome]:
    from distributed import as_completed as completed

    with _client(min(workers, len(tasks)), scheduler) as client:
        futures = {client.submit(_guarded, work, argument, pure=False): key for key, argument in tasks.items()}
        for future in completed(list(futures)):
            key = futures.pop(future)
            error = future.exception()
            if error is None:
                yield Outcome(key, *future.result())
            else:
                # Several workers died on this scan: it is left out, the others go on.
                yield Outcome(
                    key, None, f"its workers were killed, perhaps for want of memory ({type(error).__name__})"
                )
            future.release()


@contextmanager
def _client(workers: int, scheduler: str | None) -> Iterator[Any]:
    """A client of the scheduler, or of workers that are started here, on the loopback address, and stopped in the end."""
    from distributed import Client, LocalCluster

    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{scheduler}: no Dask scheduler answers there; start one (docs/scaling.md) or check the address"
            ) from error
        with client:
            yield client
        return
    with _without_ctrl_c():
        local = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,
            dashboard_address=None,
            silence_logs=50,
        )
    with local, Client(local) as client:
        yield client


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Threads that are started here, and their processes, never see Ctrl-C; in this thread it comes at the end of the
    block.

    A terminal sends it to all processes of a command: each worker would write a traceback. A cluster that is half built
    cannot be closed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: pressed.append(number))
    # Not before the tracker of resources has started: it unblocks the signal in the thread that starts it. Windows has
    # neither.
    masked = hasattr(signal, "pthread_sigmask")
    if masked:
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if masked:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


def _in_processes(work: Callable[[Any], Any], tasks: Mapping[str, Any], workers: int) -> Iterator[Outcome]:
    try:
        for key, found in in_parallel(partial(_guarded, work), tasks, workers):
            yield Outcome(key, *found)
    except WorkerKilled as error:
        raise WorkerKilled(
            f"{error}, or install Dask, which replaces a killed worker: pip install -e '.[cluster]'"
        ) from error
