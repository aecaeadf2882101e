"""What the benchmarks share: the shortest time, the peak memory, the hardware, and the record that is written."""

import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from joblib import cpu_count

from bundle.ctfindings.files.atomic_write import atomic_path

ROOT = Path(__file__).resolve().parents[2]
"""Root of the checkout."""


def shortest_seconds(task: Callable[[], object], repeats: int) -> float:
    """Shortest time of some runs in seconds, after one that is not counted."""
    task()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        task()
        times.append(time.perf_counter() - started)
    return min(times)


def peak_megabytes() -> float:
    """Largest memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)


def last_line_of(arguments: Sequence[str]) -> str:
    """Last line that a Python script prints in a process of its own."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, encoding="utf-8")
    return done.stdout.splitlines()[-1]


def hardware() -> dict[str, Any]:
    """Processor, cores that this process may use, threads and version of PyTorch; not the name of the host."""
    return {
        "processor": platform.machine(),
        "cores": cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def write_record(path: Path | None, record: Mapping[str, Any]) -> None:
    """Writes the numbers of a benchmark, with the hardware, as JSON; without a path nothing is written."""
    if path is not None:
        with atomic_path(path) as temporary:
            content = json.dumps({"hardware": hardware(), **record}, indent=2)
            temporary.write_text(content + "\n", encoding="utf-8")
