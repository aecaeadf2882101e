"""The cache of encoded scans: once, for all who ask, within its bound, and never another scan's value."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from plugins.monailabel.lib.admission import Admission
from plugins.monailabel.lib.encoding_cache import EncodingCache
from plugins.monailabel.lib.usage_error import UsageError


@dataclass
class Value:
    name: str
    nbytes: int = 10


def test_what_many_ask_for_at_once_is_made_once() -> None:
    cache: EncodingCache[Value] = EncodingCache(1000)
    started, release, made = threading.Event(), threading.Event(), []

    def make() -> Value:
        made.append(1)
        started.set()
        release.wait(60)
        return Value("a")

    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(cache.get, "a", make) for _ in range(8)]
        assert started.wait(60)
        release.set()
        values = [future.result(60) for future in waiting]
    assert len(made) == 1
    assert all(value is values[0] for value in values)


def test_values_of_different_keys_are_not_mixed() -> None:
    cache: EncodingCache[Value] = EncodingCache(25, Admission(2))
    names = [f"scan {number % 7}" for number in range(200)]
    with ThreadPoolExecutor(8) as threads:
        values = list(threads.map(lambda name: cache.get(name, lambda: Value(name)), names))
    assert [value.name for value in values] == names


def test_the_least_recently_used_leaves_when_the_bound_is_passed() -> None:
    cache: EncodingCache[Value] = EncodingCache(30)
    for name in ("a", "b", "c"):
        cache.get(name, lambda name=name: Value(name))
    cache.get("a", lambda: pytest.fail("a is kept"))
    cache.get("d", lambda: Value("d"))
    assert list(cache._kept) == ["c", "a", "d"]


def test_a_value_larger_than_the_bound_is_answered_and_not_kept() -> None:
    cache: EncodingCache[Value] = EncodingCache(30)
    assert cache.get("big", lambda: Value("big", 31)).name == "big"
    assert not cache._kept


def test_an_error_reaches_the_one_who_asked_and_is_not_kept() -> None:
    cache: EncodingCache[Value] = EncodingCache(30)

    def fail() -> Value:
        raise ValueError("damaged")

    for _ in range(2):
        with pytest.raises(ValueError, match="damaged"):
            cache.get("a", fail)
    assert cache.get("a", lambda: Value("a")).name == "a"


def test_only_as_many_are_made_at_a_time_as_allowed() -> None:
    cache: EncodingCache[Value] = EncodingCache(1000, Admission(2))
    running, most, lock = [0], [0], threading.Lock()
    both = threading.Barrier(2, timeout=60)

    def make(name: str) -> Value:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        both.wait()
        with lock:
            running[0] -= 1
        return Value(name)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda name: cache.get(name, lambda: make(name)), "abcdef"))
    assert most[0] == 2


def test_who_finds_no_place_to_wait_is_told_to_come_back_and_what_is_kept_is_answered_meanwhile() -> None:
    cache: EncodingCache[Value] = EncodingCache(1000, Admission(1, waiting=1))
    cache.get("kept", lambda: Value("kept"))
    started, release = threading.Event(), threading.Event()

    def make() -> Value:
        started.set()
        release.wait(60)
        return Value("slow")

    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(cache.get, name, make) for name in ("a", "b")]
        assert started.wait(60)
        deadline = time.monotonic() + 60
        while cache._admission._places._value:
            assert time.monotonic() < deadline, "the second request does not wait"
            time.sleep(0.01)
        with pytest.raises(UsageError, match="try again") as refused:
            cache.get("c", make)
        assert refused.value.status == 503
        assert cache.get("kept", make).name == "kept"
        release.set()
        assert [future.result(60).name for future in waiting] == ["slow", "slow"]
