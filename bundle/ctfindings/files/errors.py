"""Error of a scan file that cannot be used."""

from __future__ import annotations

from pathlib import Path


class ScanError(ValueError):
    """File that cannot be used; the message is one line, ``FILE: problem; remedy``.

    Its ``kind`` is the problem in a few words, the same for all files that have it, to count by.
    """

    def __init__(self, path: str | Path, problem: str, kind: str = "unusable scan") -> None:
        super().__init__(f"{path}: " + " ".join(problem.split()))
        self.kind = kind
