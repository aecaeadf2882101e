"""What tells a file or a folder from what it was before: number, size and time of its files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from bundle.ctfindings.files.folders import files_below


class FileSignature(NamedTuple):
    """State of some files on the disk.

    Attributes:
        files: how many there are.
        bytes: their size together.
        newest_ns: when the newest was changed, in ns; 0 for no file.
    """

    files: int
    bytes: int
    newest_ns: int


def file_signature(path: str | Path) -> FileSignature:
    """Of a file, or of all files in a folder and its subfolders: the time of a folder itself says nothing of a file
    written anew in it.

    What is not there has no files.
    """
    place = Path(path)
    if place.is_dir():
        return signature_of_files(files_below(place))
    return signature_of_files([place] if place.is_file() else [])


def signature_of_files(paths: Iterable[Path]) -> FileSignature:
    """Of files, all of which are there."""
    stats = [path.stat() for path in paths]
    return FileSignature(
        len(stats), sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)
    )
