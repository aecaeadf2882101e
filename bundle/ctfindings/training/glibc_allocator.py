"""Keeps the memory of freed tensors in the process, for faster training on a CPU."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # Names and values of glibc's malloc.h.


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed memory, so that the tensors of each step need no new pages; call it before the first.

    A training step of the default network is about a fifth faster (``experiments/benchmarks/benchmark.py``). Returns
    whether the allocator accepted the setting; False on other systems than Linux with glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
