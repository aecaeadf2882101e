"""Files below a folder. Links to folders are followed, because archives often span several disks."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryFile

from bundle.ctfindings.files.atomic_write import is_partial
from bundle.ctfindings.files.errors import ScanError


def walk_folder(folder: str | Path, above: frozenset[str] = frozenset()) -> Iterator[tuple[Path, list[str], list[str]]]:
    """``os.walk`` from the top, sorted, through links: folder, subfolders, files.

    Files of macOS, and those that a killed process left unfinished, are not listed.
    A subfolder removed from its list is not entered, nor one whose real path is in ``above``. ScanError if a folder is
    missing or not readable.
    """
    above = above | {os.path.realpath(folder)}
    try:
        with os.scandir(folder) as entries:
            kept = (entry for entry in entries if not is_of_macos(entry.name) and not is_partial(entry.name))
            found = sorted(kept, key=lambda entry: entry.name)
    except OSError as error:
        problem = f"cannot be read ({error.strerror or error}); check the path and the permissions"
        raise ScanError(folder, problem, "unreadable-folder") from error
    subfolders = [entry.name for entry in found if entry.is_dir()]
    yield Path(folder), subfolders, [entry.name for entry in found if entry.is_file()]
    for name in subfolders:
        place = os.path.join(folder, name)
        if os.path.realpath(place) not in above:
            yield from walk_folder(place, above)


def is_of_macos(path: str) -> bool:
    """Whether macOS put an entry beside the files: the folder __MACOSX of a zip, and "._scan.nii.gz"."""
    return any(name in ("__MACOSX", ".DS_Store") or name.startswith("._") for name in path.split("/"))


def files_below(folder: str | Path) -> list[Path]:
    """All files below a folder, sorted. A link to a file keeps its own name; a broken link is left out."""
    return sorted(place / name for place, _, names in walk_folder(folder) for name in names)


def path_from(path: str | Path, folder: Path) -> str:
    """Path relative to a folder, so that both can move together; absolute on another drive of Windows."""
    try:
        # Resolved, because ".." of a link leads out of the folder it points to.
        return Path(os.path.relpath(path, folder.resolve())).as_posix()
    except ValueError:
        return Path(os.path.abspath(path)).as_posix()


def check_outside(folder: str | Path, option: str, inputs: Iterable[str | Path]) -> None:
    """ValueError if results would be written into a folder that is read: the next run would read them as scans."""
    place = os.path.realpath(folder)
    for given in inputs:
        if os.path.isdir(given) and Path(place).is_relative_to(os.path.realpath(given)):
            raise ValueError(f"{option}: {folder} lies in {given}, whose scans are read; give a folder outside of it")


def check_literal(path: str | Path, option: str) -> str:
    """The path as text for a MONAI configuration; ValueError if one would read it as something else.

    MONAI replaces ``#``, and takes a text that starts with ``$``, ``@`` or ``%`` as an expression or a reference.
    """
    text = str(path)
    if "#" in text or text[:1] in ("$", "@", "%"):
        raise ValueError(
            f"{option}: {text} has a # or starts with $, @ or %, which MONAI's configurations cannot hold; rename it"
        )
    return text


def check_writable(folder: str | Path, option: str) -> None:
    """ValueError if no file can be written into a folder, which need not exist yet."""
    existing = next(parent for parent in [Path(folder), *Path(folder).absolute().parents] if parent.exists())
    if not existing.is_dir():
        raise ValueError(f"{option}: {existing} is a file; give a folder for the results")
    try:
        # Permissions alone do not tell: root may write everywhere, but /proc and a read-only disk hold no new file.
        with TemporaryFile(dir=existing):
            pass
    except OSError as error:
        problem = f"{folder} cannot be written ({error.strerror or error}); give a folder that you may write to"
        raise ValueError(f"{option}: {problem}") from error
