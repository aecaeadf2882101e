"""On what a benchmark was run."""

from __future__ import annotations

import os
import platform
from typing import Any

import torch


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, threads and version of PyTorch; no name of the host."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"processor": platform.machine(), "cores": cores, "threads": torch.get_num_threads(), "torch": torch.__version__}
