"""On what a benchmark was run."""

from __future__ import annotations

import platform
from typing import Any

import torch
from joblib import cpu_count


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, threads and version of PyTorch; no name of the host."""
    return {
        "processor": platform.machine(),
        "cores": cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
