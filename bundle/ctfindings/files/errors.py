"""The error of a file that cannot be used."""

from __future__ import annotations

from pathlib import Path


class ScanError(ValueError):
    """A file that cannot be used. The message is one line: ``FILE: what is wrong; remedy``.

    Attributes:
        kind: the problem in a few words that are the same for all files that have it, to count by.
    """

    def __init__(self, path: str | Path, problem: str, kind: str = "unusable scan") -> None:
        super().__init__(f"{path}: " + " ".join(problem.split()))
        self.kind = kind
