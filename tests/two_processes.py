"""A test file as a program of two ranks, which meet by a file in their folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def in_two_processes(program: Path, folder: Path, timeout: float = 240) -> None:
    """Runs ``python program folder rank`` for ranks 0 and 1, and fails with what they printed.

    Args:
        program: the test file, which calls its rank when it is run.
        folder: where the ranks meet, and leave what they found.
        timeout: in seconds, of each.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, str(program), str(folder)]
    ranks = [
        subprocess.Popen(
            [*command, str(rank)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=timeout)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], "\n".join(outputs)
