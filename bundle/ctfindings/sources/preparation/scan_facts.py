"""Reading every scan of a source once: is it a chest CT in HU, and what are its geometry and intensities? Parallel, and
resumed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.files.fingerprint import file_signature
from bundle.ctfindings.files.journal import resume
from bundle.ctfindings.scan.load_scan import load_scan

HU_PERCENTILES = (1, 50, 99)
VERSION = 2
"""Raised whenever the facts of a scan change, so that those of an older journal are read again."""


@dataclass(frozen=True)
class ScanFacts:
    """What is known of a scan file.

    Attributes:
        problem: why it cannot be used; empty when it can.
        kind: the problem in a few words, to count by.
        format: nifti, nrrd, metaimage, npz or dicom.
        shape: voxels (X, Y, Z) in the order of storage.
        spacing_mm: voxel size in that order.
        orientation: axis codes in that order, such as LPS.
        extent_mm: left to right, back to front, bottom to top.
        hu: 1st, 50th and 99th percentile of about a hundredth of the voxels, values below -1024 taken as air.
        content: a hash of the same voxels; scans that share it and the shape are copies.
        warnings: what the reader said, without the path.
    """

    problem: str = ""
    kind: str = ""
    format: str = ""
    shape: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    orientation: str = ""
    extent_mm: tuple[float, ...] = ()
    hu: tuple[float, ...] = ()
    content: str = ""
    warnings: list[str] = field(default_factory=list)


def signature(path: Path) -> str:
    """``file_signature`` as the journal holds it."""
    return ":".join(str(number) for number in file_signature(path))


def read_facts(path: Path, stored: Mapping[str, Any] | None = None) -> ScanFacts:
    """Reads one scan whole, as training will. A scan that cannot be used has a ``problem`` and raises nothing.

    Args:
        stored: the record's entry, see ``load_scan``.
    """
    try:
        scan = load_scan(path, stored)
    except ScanError as error:
        return ScanFacts(problem=_without_path(str(error), path), kind=error.kind)
    hu, affine = scan[0].numpy(), np.asarray(scan.affine, np.float64)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    world = np.abs(affine[:3, :3]) @ np.asarray(hu.shape, np.float64)
    sample = hu[tuple(slice(None, None, max(1, size // 64)) for size in hu.shape)]
    return ScanFacts(
        format=str(scan.meta["source_format"]),
        shape=tuple(int(size) for size in hu.shape),
        spacing_mm=tuple(round(float(step), 4) for step in spacing),
        orientation="".join(nib.aff2axcodes(affine)),
        extent_mm=tuple(round(float(size), 1) for size in world),
        hu=tuple(round(float(value), 1) for value in np.percentile(sample, HU_PERCENTILES)),
        content=hashlib.sha256(np.ascontiguousarray(sample).tobytes()).hexdigest()[:16],
        warnings=[_without_path(str(warning), path) for warning in scan.meta["warnings"]],
    )


def _without_path(message: str, path: Path) -> str:
    return message.replace(f"{path}: ", "").replace(f"{path} ", "").replace(str(path), path.name)


def _facts_entry(task: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
    """The facts as a line of the journal holds them."""
    return asdict(read_facts(*task))


def read_all_facts(
    scans: Mapping[Path, Mapping[str, Any]], journal: Path, workers: int
) -> Iterator[tuple[Path, ScanFacts]]:
    """Facts of every scan, in any order; those in the journal whose files and records have not changed are not read
    again.

    Args:
        scans: the ``stored`` entry, mostly empty, by scan file or folder.
        journal: JSON lines; made when missing.
        workers: processes; 1 reads in this process.

    Raises:
        OSError: if the journal cannot be written; what was read stays in it.
    """
    tasks = {
        str(path): (f"{VERSION}:{signature(path)}:{_digest(stored)}", (path, dict(stored)))
        for path, stored in scans.items()
    }
    for outcome in resume(_facts_entry, tasks, journal, workers, fatal=Exception):
        killed = ScanFacts(problem=outcome.problem, kind="worker killed")
        yield Path(outcome.key), killed if outcome.problem else _from_json(outcome.result)


def _digest(stored: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(stored, sort_keys=True).encode()).hexdigest()[:8] if stored else ""


def _from_json(entry: Mapping[str, Any]) -> ScanFacts:
    """Facts from a line of the journal; JSON has lists where the facts have tuples."""
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list | tuple) else value for key, value in entry.items()
    }
    return ScanFacts(**values | {"warnings": [str(warning) for warning in entry["warnings"]]})
