"""The files below a folder. Links to folders are followed: archives are often put together from several disks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bundle.ctfindings.files.errors import ScanError


def walk_folder(folder: str | Path, above: frozenset[str] = frozenset()) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Each folder with the names of its subfolders and of its files, sorted, from the top, as ``os.walk`` gives them.

    A folder that is linked into itself is not entered again.

    Args:
        folder: where to begin.
        above: real paths of the folders above it.

    Raises:
        ScanError: when a folder is not there or may not be read.

    Yields:
        The folder and both lists; a subfolder that is taken out of its list is not entered.
    """
    above = above | {os.path.realpath(folder)}
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ScanError(folder, f"cannot be read ({error.strerror or error}); check the path and the rights") from error
    subfolders = [entry.name for entry in found if entry.is_dir()]
    yield Path(folder), subfolders, [entry.name for entry in found if entry.is_file()]
    for name in subfolders:
        place = os.path.join(folder, name)
        if os.path.realpath(place) not in above:
            yield from walk_folder(place, above)


def files_below(folder: str | Path) -> list[Path]:
    """All files below a folder, sorted; a link to a file keeps its own name, and one to nothing is no file."""
    return sorted(place / name for place, _, names in walk_folder(folder) for name in names)


def path_from(path: str | Path, folder: Path) -> str:
    """A path as seen from a folder, so that both can move together; absolute on another drive of Windows."""
    try:
        # A link to the folder would not do: its ".." leads out of what it points to.
        return Path(os.path.relpath(path, folder.resolve())).as_posix()
    except ValueError:
        return Path(os.path.abspath(path)).as_posix()
