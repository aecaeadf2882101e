"""Encoded scans, kept within a bound of memory; a scan that many ask for at once is encoded once."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar

from .admission import Admission


class Sized(Protocol):
    """A value that knows its memory."""

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        ...


Value = TypeVar("Value", bound=Sized)


class EncodingCache(Generic[Value]):
    """Least recently used values are dropped when their sum exceeds the bound. Threads may share it.

    Args:
        max_bytes: of all values together. A single larger value is answered but not kept.
        admission: how many values are made at a time, and how many requests may wait for one, so that the memory and
            threads for making them are bounded too.
    """

    def __init__(self, max_bytes: int, admission: Admission | None = None) -> None:
        self.max_bytes = max_bytes
        self._kept: OrderedDict[Hashable, Value] = OrderedDict()
        self._in_flight: dict[Hashable, Future[Value]] = {}
        self._lock = threading.Lock()
        self._admission = admission or Admission()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a key; made by the first that asks, while others that ask for it wait for the same.

        An error reaches all of them and is not kept: the next one to ask tries again. UsageError if too many wait.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        with self._admission.place():
            return self._made(key, make)

    def _made(self, key: Hashable, make: Callable[[], Value]) -> Value:
        with self._lock:
            if key in self._kept:  # Made while this request came here.
                return self._kept[key]
            future = self._in_flight.get(key)
            first = future is None
            if future is None:
                future = self._in_flight[key] = Future()
        if first:
            try:
                with self._admission.slot():
                    value = make()
            except BaseException as error:
                with self._lock:
                    del self._in_flight[key]
                future.set_exception(error)
            else:
                with self._lock:
                    self._keep(key, value)
                    del self._in_flight[key]
                future.set_result(value)
        return future.result()

    def _keep(self, key: Hashable, value: Value) -> None:
        self._kept[key] = value
        while self._kept and sum(kept.nbytes for kept in self._kept.values()) > self.max_bytes:
            self._kept.popitem(last=False)
