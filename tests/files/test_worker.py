"""A process for calls that may crash or stall: what ends it costs one call."""

from __future__ import annotations

import os
import time

import pytest

from bundle.ctfindings.files.worker import Worker


def test_a_call_that_kills_or_stalls_the_process_fails_alone() -> None:
    with pytest.raises(ValueError, match="ended its process"):
        Worker(os._exit, 600)(1)
    with pytest.raises(ValueError, match="took longer than 0"):
        Worker(time.sleep, 0.2)(5)
    with pytest.raises(ValueError, match=r"^an error of the program \(ValueError\)$"):
        Worker(int, 60)("Doe^Jane")
    assert Worker(str.upper, 60)("answered") == "ANSWERED"
