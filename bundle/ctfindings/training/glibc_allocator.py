"""What glibc does with the memory of freed tensors: kept for the next step, or given back."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # Names and values of glibc's malloc.h.
_MEGABYTE = 2**20


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed memory, so that the tensors of each step need no new pages; call it before the first.

    A training step of the default network is about a fifth faster (``experiments/benchmarks/benchmark.py``). Returns
    whether the allocator accepted the setting; False on other systems than Linux with glibc.
    """
    return _set((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1))


def return_freed_memory() -> bool:
    """Tells glibc to give back what is freed of a megabyte or more, for work that keeps small parts of large tensors.

    Otherwise the parts that are kept lie between freed tensors, whose memory neither fits the next ones nor goes back.
    Returns whether the allocator accepted the setting.
    """
    return _set((_M_MMAP_THRESHOLD, _MEGABYTE))


def _set(*options: tuple[int, int]) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(bool(mallopt(*option)) for option in options)
