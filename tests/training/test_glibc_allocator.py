"""Freed memory is given back or kept, as asked."""

import subprocess
import sys
from pathlib import Path

import pytest

MODULE = Path(__file__).resolve().parents[2] / "bundle" / "ctfindings" / "training" / "glibc_allocator.py"

FREES_BELOW_A_SMALL_ARRAY = """
import runpy, sys
import numpy as np
assert runpy.run_path(sys.argv[1])[sys.argv[2]]()
first = np.ones(5_000_000, dtype=np.uint8)
del first  # From now on glibc itself would keep arrays of this size.
large = [np.ones(5_000_000, dtype=np.uint8) for _ in range(50)]
small = np.ones(50_000, dtype=np.uint8)
del large
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")))
"""


def megabytes_after(setting: str) -> float:
    command = [sys.executable, "-c", FREES_BELOW_A_SMALL_ARRAY, str(MODULE), setting]
    return int(subprocess.run(command, capture_output=True, check=True, timeout=120).stdout) / 1000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the allocator of glibc")
def test_freed_memory_is_returned_or_kept() -> None:
    returned, kept = megabytes_after("return_freed_memory"), megabytes_after("keep_freed_memory")
    assert kept - returned == pytest.approx(250, abs=40)
