"""Reading every scan of a source once: is it a chest CT in HU, and what are its geometry and intensities? Parallel, and resumed."""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bundle.ctfindings.data.scan import load_scan
from bundle.ctfindings.data.volume import ScanError

HU_PERCENTILES = (1, 50, 99)
VERSION = 1
"""Raised whenever the facts of a scan change, so that those of an older journal are read again."""


@dataclass(frozen=True)
class ScanFacts:
    """What is known of a scan file.

    Attributes:
        signature: size and time of the file or folder; another one makes the facts stale.
        problem: why it cannot be used; empty when it can.
        format: nifti, nrrd, metaimage or dicom.
        shape: voxels (X, Y, Z) in the order of storage.
        spacing_mm: voxel size in that order.
        orientation: axis codes in that order, such as LPS.
        extent_mm: left to right, back to front, bottom to top.
        hu: 1st, 50th and 99th percentile of about a hundredth of the voxels, values below -1024 taken as air.
        warnings: what the reader said, without the path.
    """

    signature: str
    problem: str = ""
    format: str = ""
    shape: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    orientation: str = ""
    extent_mm: tuple[float, ...] = ()
    hu: tuple[float, ...] = ()
    warnings: list[str] = field(default_factory=list)


def signature(path: Path) -> str:
    """Size and time of a file, or of all files in a folder."""
    files = [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())
    stats = [file.stat() for file in files]
    return f"{VERSION}:{len(files)}:{sum(stat.st_size for stat in stats)}:{max((stat.st_mtime_ns for stat in stats), default=0)}"


def read_facts(path: Path) -> ScanFacts:
    """Reads one scan whole. A scan that cannot be used has a ``problem`` and raises nothing."""
    mark = signature(path)
    try:
        scan = load_scan(path)
    except ScanError as error:
        return ScanFacts(mark, problem=_without_path(str(error), path))
    hu, affine = scan[0].numpy(), np.asarray(scan.affine, np.float64)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    world = np.abs(affine[:3, :3]) @ np.asarray(hu.shape, np.float64)
    sample = hu[tuple(slice(None, None, max(1, size // 64)) for size in hu.shape)]
    return ScanFacts(
        mark,
        format=str(scan.meta["source_format"]),
        shape=tuple(int(size) for size in hu.shape),
        spacing_mm=tuple(round(float(step), 4) for step in spacing),
        orientation="".join(nib.aff2axcodes(affine)),
        extent_mm=tuple(round(float(size), 1) for size in world),
        hu=tuple(round(float(value), 1) for value in np.percentile(sample, HU_PERCENTILES)),
        warnings=[_without_path(str(warning), path) for warning in scan.meta["warnings"]],
    )


def _without_path(message: str, path: Path) -> str:
    return message.replace(f"{path}: ", "").replace(f"{path} ", "").replace(str(path), path.name)


def read_all_facts(paths: Sequence[Path], journal: Path, workers: int) -> Iterator[tuple[Path, ScanFacts]]:
    """Facts of every scan, in any order; those in the journal whose files have not changed are not read again.

    Each result is appended to the journal as soon as it is there, so that a run that was stopped goes on where it was.

    Args:
        paths: scan files or folders, each once.
        journal: JSON lines; made when missing.
        workers: processes; one reads in this process.

    Raises:
        ValueError: when a worker was killed, most likely for want of memory. What was read stays in the journal.
    """
    known = _read_journal(journal)
    remaining = []
    for path in paths:
        facts = known.get(str(path))
        if facts is not None and facts.signature == signature(path):
            yield path, facts
        else:
            remaining.append(path)
    if not remaining:
        return
    journal.parent.mkdir(parents=True, exist_ok=True)
    with journal.open("a", encoding="utf-8") as file:
        if file.tell() and not journal.read_bytes().endswith(b"\n"):
            file.write("\n")  # The last line was cut off.
        for path, facts in _read_in_parallel(remaining, workers):
            file.write(json.dumps({"file": str(path), **asdict(facts)}) + "\n")
            file.flush()
            yield path, facts


def _read_in_parallel(paths: Sequence[Path], workers: int) -> Iterator[tuple[Path, ScanFacts]]:
    if workers <= 1:
        for path in paths:
            yield path, read_facts(path)
        return
    # A fresh interpreter in every worker would import all of MONAI first; forks start at once, where the system has them.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = {pool.submit(read_facts, path): path for path in paths}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise ValueError(
                "a worker was killed while scans were read, perhaps for want of memory; start again with fewer workers"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _read_journal(journal: Path) -> dict[str, ScanFacts]:
    """Facts by file; a last line that was cut off is no entry."""
    known: dict[str, ScanFacts] = {}
    if journal.is_file():
        for line in journal.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            file = entry.pop("file")
            known[file] = _from_json(entry)
    return known


def _from_json(entry: dict[str, Any]) -> ScanFacts:
    """Facts from a line of the journal; JSON has lists where the facts have tuples."""
    warnings = [str(warning) for warning in entry.pop("warnings")]
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    return ScanFacts(warnings=warnings, **values)
