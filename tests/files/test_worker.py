"""A process for calls that may crash or stall: what ends it costs one call."""

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from bundle.ctfindings.files.worker import Worker, call_here


def test_a_call_that_kills_or_stalls_the_process_fails_alone() -> None:
    with pytest.raises(ValueError, match="ended its process"):
        Worker(os._exit, 600)(1)
    with pytest.raises(ValueError, match="took longer than 0"):
        Worker(time.sleep, 0.2)(5)
    with pytest.raises(ValueError, match=r"^an error of the program \(ValueError\)$"):
        Worker(int, 60)("Doe^Jane")
    assert Worker(str.upper, 60)("answered") == "ANSWERED"


def test_an_error_of_the_system_is_named_without_its_file(tmp_path: Path) -> None:
    absent = str(tmp_path / "Doe^Jane" / "scan.nii.gz")
    for call in (Worker(os.stat, 60), partial(call_here, os.stat, 60)):
        with pytest.raises(ValueError, match=r"^cannot be read or written \(No such file or directory\)$"):
            call(absent)


def test_a_call_on_a_worker_of_a_cluster_ends_it_when_it_stalls_and_names_nobody() -> None:
    with pytest.raises(ValueError, match=r"^an error of the program \(ValueError\)$"):
        call_here(int, 60, "Doe^Jane")
    assert call_here(str.upper, 60, "answered") == "ANSWERED"
    stalled = "import time; from bundle.ctfindings.files.worker import call_here; call_here(time.sleep, 0.2, 900)"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", stalled], cwd=root, timeout=300, check=False).returncode == 1
