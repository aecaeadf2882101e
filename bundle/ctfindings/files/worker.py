"""Calls that may crash or stall: in one process, which is replaced when a call kills or stalls it, or on a cluster."""

import os
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

from joblib.externals.loky import BrokenProcessPool, get_reusable_executor

from bundle.ctfindings.files.errors import ScanError, causes


class Worker:
    """Runs a function of a module in the process.

    Args:
        work: the function; what it keeps in a module stays between calls.
        seconds: time after which a call is ended.
    """

    def __init__(self, work: Callable[[Any], Any], seconds: float) -> None:
        self.work, self.seconds = work, seconds

    def __call__(self, argument: Any) -> Any:
        """What the function returns.

        ValueError with the text of a ScanError of the function; or if it failed otherwise, in words without those of a
        library, which may name a patient; or the process was killed, or took too long.
        """
        executor = get_reusable_executor(1, timeout=None, initializer=_start, initargs=(os.getpid(),))
        try:
            result, problem = executor.submit(_call, self.work, argument).result(self.seconds)
        except TimeoutError as error:
            executor.shutdown(kill_workers=True)
            raise ValueError(f"took longer than {self.seconds:g} s and was ended") from error
        except BrokenProcessPool as error:
            raise ValueError("ended its process, possibly out of memory") from error
        if problem:
            raise ValueError(problem)
        return result


def call_here(work: Callable[[Any], Any], seconds: float, argument: Any) -> Any:
    """What the function returns, and errors as those of ``Worker``, in this process; one that takes too long ends it.

    For a worker of a cluster, which is replaced.
    """
    timer = threading.Timer(seconds, os._exit, [1])
    timer.daemon = True
    timer.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result, problem = _call(work, argument)
    finally:
        timer.cancel()
    if problem:
        raise ValueError(problem)
    return result


def _start(parent: int) -> None:
    """Nothing of a library is printed, and the process ends with its parent, also when that is killed."""
    warnings.simplefilter("ignore")

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _call(work: Callable[[Any], Any], argument: Any) -> tuple[Any, str]:
    """Result and problem; an error itself does not pass between processes."""
    try:
        return work(argument), ""
    except Exception as error:
        for link in causes(error):
            if isinstance(link, ScanError):
                return None, str(link)
            if isinstance(link, OSError):
                return None, f"cannot be read or written ({link.strerror or type(link).__name__})"
        return None, f"an error of the program ({type(error).__name__})"
