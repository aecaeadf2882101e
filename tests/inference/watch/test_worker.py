"""The process that answers series: what ends it costs one series."""

from __future__ import annotations

import os
import time

import pytest

from bundle.ctfindings.inference.watch.worker import Worker


def test_a_series_that_kills_or_stalls_the_process_fails_alone() -> None:
    with pytest.raises(ValueError, match="ended the process"):
        Worker(os._exit, 600)(1)
    with pytest.raises(ValueError, match="took longer than 0"):
        Worker(time.sleep, 0.2)(5)
    with pytest.raises(ValueError, match=r"^an error of the program \(ValueError\)$"):
        Worker(int, 60)("Doe^Jane")
    assert Worker(str.upper, 60)("answered") == "ANSWERED"
