"""Few scans are read at a time, some requests wait for that, and the rest is told to come back."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .usage_error import UsageError


class Admission:
    """Slots for work that needs memory and processors. Threads may share it.

    Args:
        at_once: how many work at a time.
        waiting: how many more may wait, each of them holding a thread of the server.
    """

    def __init__(self, at_once: int = 1, waiting: int = 64) -> None:
        self._places = threading.BoundedSemaphore(at_once + waiting)
        self._slots = threading.BoundedSemaphore(at_once)

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place to wait for a scan; UsageError (503) if all are taken."""
        if not self._places.acquire(blocking=False):
            raise UsageError(503, "the server is reading as many scans as it may; try again in a minute")
        try:
            yield
        finally:
            self._places.release()

    @contextmanager
    def slot(self) -> Iterator[None]:
        """One of the slots, for a request that has a place."""
        with self._slots:
            yield
