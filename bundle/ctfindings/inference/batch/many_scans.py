"""Findings of many scans with one start: the next scan is read while the one before is answered and written."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from bundle.ctfindings.files.csv_table import read_table
from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.files.progress import progress_bar
from bundle.ctfindings.inference.batch.run_archive import SUMMARY_FILE, write_summary
from bundle.ctfindings.inference.bundle_workflow import FindingsWriter
from bundle.ctfindings.inference.output.write_files import RECORD_FILE, scan_stem
from bundle.ctfindings.inference.service import FindingsService
from bundle.ctfindings.scan.file_format import is_scan_name
from bundle.ctfindings.scan.scan_listing import holds_dicom, scans_below

IMAGE_COLUMNS = ("image", "scan", "file", "path")


class Scan(NamedTuple):
    """A scan and the folder in which its own folder of results is made, relative to the output."""

    path: Path
    place: Path


def expand_scans(given: Sequence[str]) -> list[Scan]:
    """The scans that arguments name: files, folders and zips of DICOM, folders of scans, globs, and CSV tables.

    Scans whose results would have the same folder get a folder of their parent's or their own name around it.

    Raises:
        ValueError: if an argument names no scan, or a table has no column of scans.
    """
    paths: list[Path] = []
    for argument in given:
        matches = [argument] if os.path.exists(argument) else sorted(glob.glob(argument, recursive=True))
        found = [path for match in matches for path in _scans_of(Path(match))]
        if not found:
            raise ValueError(f"{argument}: names no scan; give NIfTI, NRRD, MetaImage, DICOM, or a folder of them")
        paths += found
    scans: list[Scan] = []
    taken: set[Path] = set()
    for path in dict.fromkeys(paths):
        stem = scan_stem(path)
        parents = [path.absolute().parent.name, path.name]
        places = [Path(), *map(Path, parents), *(Path(f"{path.name}-{number}") for number in range(2, len(paths) + 2))]
        place = next(place for place in places if place / stem not in taken)
        taken.add(place / stem)
        scans.append(Scan(path, place))
    return scans


def _scans_of(path: Path) -> list[Path]:
    if path.suffix.lower() == ".csv":
        table = read_table(path)
        column = table.first_of(IMAGE_COLUMNS) or table.column("image", "the scans")
        return [path.parent / row.values[column] for row in table.rows if row.values[column]]
    if path.is_dir():
        files = [each for each in path.iterdir() if each.is_file() and not is_scan_name(each.name)]
        return [path] if any(map(holds_dicom, files)) else list(scans_below(path).values())
    return [path]


def find_in_scans(
    service: FindingsService,
    scans: Sequence[Scan],
    output: Path,
    queries: Sequence[str] = (),
    evidence: str = "present",
    draft_report: bool = False,
    dicom_dir: Path | None = None,
    anonymous: bool = False,
) -> tuple[Path, dict[str, str]]:
    """Writes the files of each scan and ``output/findings.csv``; a scan that cannot be used stops no other.

    Returns:
        The table, and the problem of each scan that could not be used, by its path.

    Raises:
        ValueError: if results cannot be written.
    """
    problems: dict[str, str] = {}
    written: Future[None] | None = None
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        ahead = reader.submit(_read, service, scans[0])
        for number, scan in enumerate(progress_bar(scans, "scans" if len(scans) > 1 else "")):
            reading = ahead
            if number + 1 < len(scans):
                ahead = reader.submit(_read, service, scans[number + 1])
            try:
                study = reading.result()
            except ScanError as error:
                problems[str(scan.path)] = str(error)
                continue
            answered = service.answer(study, queries)
            if written is not None:
                written.result()
            dicom = dicom_dir and dicom_dir / scan.place
            files = FindingsWriter(output / scan.place, evidence, draft_report, dicom, anonymous)
            written = writer.submit(files.write, study["scan"], answered)
        if written is not None:
            written.result()
    records = {str(scan.path): str(output / scan.place / scan_stem(scan.path) / RECORD_FILE) for scan in scans}
    output.mkdir(parents=True, exist_ok=True)
    return write_summary(output / SUMMARY_FILE, records, problems), problems


def _read(service: FindingsService, scan: Scan) -> Mapping[Any, Any]:
    """The preprocessed study; ScanError if the scan cannot be used, whatever MONAI wrapped it in."""
    try:
        return service.preprocessing({"image": str(scan.path)})
    except Exception as error:
        link: BaseException | None = error
        while link is not None and not isinstance(link, ScanError):
            link = link.__cause__ or link.__context__
        raise link or error from None
