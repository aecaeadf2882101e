"""Work in several processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from typing import TypeVar

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class WorkerKilled(ValueError):
    """A process ended before its work, most likely for want of memory."""


def usable_cores() -> int:
    """Cores that this process may use; not every system tells, and then all that there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def process_context() -> BaseContext:
    """Processes that start at once: on Linux a fork, as PyTorch's data loaders use; a fresh interpreter elsewhere.

    A fresh interpreter would import the caller's main module with all of MONAI in it, in every worker.
    """
    return multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")


def in_parallel(
    work: Callable[[Argument], Result], tasks: Mapping[str, Argument], workers: int
) -> Iterator[tuple[str, Result]]:
    """The result of each task by its key, as soon as it is there.

    Args:
        work: a function of a module; processes import it by name.
        tasks: argument by key.
        workers: processes; 1 works in this process.

    Raises:
        WorkerKilled: what was given before stays.
    """
    if workers <= 1:
        for key, argument in tasks.items():
            yield key, work(argument)
        return
    with ProcessPoolExecutor(workers, mp_context=process_context()) as pool:
        futures = {pool.submit(work, argument): key for key, argument in tasks.items()}
        try:
            for future in as_completed(futures):
                key = futures.pop(future)
                yield key, future.result()
        except BrokenProcessPool as error:
            raise WorkerKilled(
                "a worker was killed, perhaps for want of memory; give the same command again with fewer workers"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)
