"""Fingerprints: number, size and time of files, which tell whether the input of a task changed."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.files.folders import files_below


class FileSignature(NamedTuple):
    """State of some files on disk."""

    files: int  # number of files
    bytes: int  # total size
    newest_ns: int  # latest modification time in ns; 0 without files


DETACHED = (".mhd", ".nhdr", ".hdr", ".img")
"""Headers whose voxels are in another file, which has the same name up to its suffix."""


def file_signature(path: str | Path) -> FileSignature:
    """State of a file and of those of its name if it is a header, or of all files below a folder; no files if the path
    does not exist.
    """
    place = Path(path)
    if place.is_dir():
        return signature_of_files(files_below(place))
    if place.suffix.lower() in DETACHED and place.is_file():
        return signature_of_files(
            each for each in place.parent.iterdir() if each.name.startswith(f"{place.stem}.") and each.is_file()
        )
    return signature_of_files([place] if place.is_file() else [])


def signature_of_files(paths: Iterable[Path]) -> FileSignature:
    """State of files, all of which exist."""
    stats = [path.stat() for path in paths]
    newest_ns = max((stat.st_mtime_ns for stat in stats), default=0)
    return FileSignature(len(stats), sum(stat.st_size for stat in stats), newest_ns)


def input_signature(paths: Iterable[str | Path | None], *settings: Any) -> str:
    """Hexadecimal digest that changes with the files, folders and settings of a task; None is an absent input.

    A path that cannot be read counts as unknown: the error belongs to the task that reads it.
    """
    states: list[Any] = []
    for path in paths:
        try:
            states.append(path and [str(Path(path).resolve()), *file_signature(path)])
        except (OSError, ScanError):
            states.append(str(path))
    content = json.dumps([states, settings], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()
