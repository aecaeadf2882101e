"""Memory of large tensors on a CPU: kept by the process between steps instead of given back and asked for again."""

from __future__ import annotations

import ctypes
import sys

# Names and values of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed memory, so that the tensors of each step need no new pages from the system.

    A training step of the default network is about a fifth faster for it (``experiments/benchmarks/benchmark.py``). It
    does nothing on other systems, and must be called before the first large tensor to be of use.

    Returns:
        Whether the allocator took the setting.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return False
    return bool(libc.mallopt(_M_MMAP_MAX, 0)) and bool(libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
