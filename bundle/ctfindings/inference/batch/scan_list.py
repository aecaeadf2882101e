"""The scans that a request names, and the folder of results that each of them gets."""

import glob
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from bundle.ctfindings.files.csv_table import read_table
from bundle.ctfindings.scan.file_format import is_scan_name, scan_stem
from bundle.ctfindings.scan.scan_listing import holds_dicom, scans_below
from bundle.ctfindings.scan.storage import stored_from

IMAGE_COLUMNS = ("image", "scan", "file", "path")
"""Columns of a table that may hold the paths of scans; the first one found is read."""


class Scan(NamedTuple):
    """A scan, its path inside the folder or table that was given, and its folder of results inside the output."""

    path: Path
    name: str
    folder: Path
    problem: ValueError | None = None  # Why this argument names no scan


def list_scans(given: Sequence[str | Path]) -> list[Scan]:
    """The scans that arguments name: files, folders and zips of DICOM, folders of scans, globs, and CSV tables.

    The results of ``a/scan.nii.gz`` in a folder that was given are in ``a/scan``. Scans that would share a folder get
    one below the name of their own folder, or with the suffix of their file. One of several arguments that names no
    scan, or is a table without a column of scans, is listed with its ``problem``. ValueError if the only argument names
    no scan, or is a table without a column of scans.
    """
    names: dict[Path, str] = {}
    problems: dict[Path, ValueError] = {}
    for argument in map(str, given):
        try:
            found = _scans_named(argument)
        except ValueError as error:
            if len(given) == 1:
                raise
            found = {Path(argument): Path(argument).name}
            problems[Path(argument)] = error
        names |= {path: name for path, name in found.items() if path not in names}
    folders = _folders(names)
    return [Scan(path, name, folders[path], problems.get(path)) for path, name in names.items()]


def scan_records(
    image: str | Sequence[str] | None,
    anatomy: str | Sequence[str | None] | None = None,
    stored: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Study records of a request, one per scan: ``image``, ``folder``, and ``anatomy`` and ``stored`` if given.

    The record of an argument that names no scan has a ``problem``.

    Args:
        image: what names the scans, see ``list_scans``. None gives no record, so that the workflow can be built
            without a scan.
        anatomy: path of its anatomy mask, or one (or None) per scan.
        stored: how the scans become HU, if the files do not say so; see ``bundle.ctfindings.scan.storage.Stored``.

    Raises:
        ValueError: if the only argument names no scan, masks and scans do not pair, or ``stored`` is invalid.
    """
    stored_from(stored)
    scans, masks = list_scans(paths_of(image)), paths_of(anatomy)
    if scans and masks and len(masks) != len(scans):
        problem = f"{len(masks)} masks were given for {len(scans)} scans"
        raise ValueError(f"anatomy: {problem}; give one for each scan, or null")
    return [
        {"image": str(scan.path), "folder": str(scan.folder)}
        | ({} if mask is None else {"anatomy": mask})
        | ({"stored": dict(stored)} if stored else {})
        | ({"problem": scan.problem} if scan.problem else {})
        for scan, mask in zip(scans, masks or [None] * len(scans), strict=True)
    ]


def paths_of(value: Any) -> list[Any]:
    """One path or several, as a list of text; None in the list stays None."""
    several = value if isinstance(value, list | tuple) else [] if value is None else [value]
    return [None if path is None else str(path) for path in several]


def _scans_named(argument: str) -> dict[Path, str]:
    """The scans that one argument names, and their paths inside it."""
    if "::" in argument and os.path.exists(argument.replace("::", "#")):
        name = argument.replace("::", "#")
        raise ValueError(f"{name}: MONAI reads a # in an option in its own way; use ct-findings, or rename it")
    matches = [argument] if os.path.exists(argument) else sorted(glob.glob(argument, recursive=True))
    found = {path: name for match in matches for path, name in _scans_of(Path(match))}
    if not found and not glob.has_magic(argument) and not os.path.isdir(argument):
        found = {Path(argument): Path(argument).name}  # Its reader says what is wrong.
    if not found:
        raise ValueError(
            f"{argument}: names no scan; give NIfTI, NRRD, MetaImage, DICOM, a zip of DICOM, or a folder of them"
        )
    return found


def _scans_of(path: Path) -> list[tuple[Path, str]]:
    if path.suffix.lower() == ".csv":
        table = read_table(path)
        remedy = "rename that of the scans to image"
        column = table.first_of(IMAGE_COLUMNS) or table.column("image", "the scans", remedy)
        listed = [Path(row.values[column]) for row in table.rows if row.values[column]]
        return [
            (path.parent / scan, scan.name if scan.is_absolute() or ".." in scan.parts else scan.as_posix())
            for scan in listed
        ]
    if path.is_dir():
        files = [each for each in path.iterdir() if each.is_file() and not is_scan_name(each.name)]
        if any(map(holds_dicom, files)):
            return [(path, path.absolute().name)]
        return [(scan, name) for name, scan in scans_below(path).items()]
    return [(path, path.name)] if path.exists() else []


def _folders(names: Mapping[Path, str]) -> dict[Path, Path]:
    """A folder for each scan; the same scans always get the same ones."""
    folders: dict[Path, Path] = {}
    for choice in (
        lambda path: Path(names[path]).parent / scan_stem(path),
        lambda path: Path(path.absolute().parent.name, scan_stem(path)),
        lambda path: Path(path.absolute().parent.name, path.name),
    ):
        wanted = {path: choice(path) for path in names if path not in folders}
        times = Counter([*wanted.values(), *folders.values()])
        folders |= {path: folder for path, folder in wanted.items() if times[folder] == 1}
    for position, path in enumerate(names, start=1):
        if path not in folders:
            numbered = (Path(f"{scan_stem(path)}-{number}") for number in count(position))
            folders[path] = next(folder for folder in numbered if folder not in folders.values())
    return folders
