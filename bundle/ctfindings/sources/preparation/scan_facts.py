"""Reads every scan of a source once: whether it is a chest CT in HU, its geometry and intensities."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.files.fingerprint import file_signature
from bundle.ctfindings.files.journal import resume
from bundle.ctfindings.scan.coordinates import orientation_code, voxel_spacing
from bundle.ctfindings.scan.load_scan import load_scan

HU_PERCENTILES = (1, 50, 99)
VERSION = 2
"""Increased whenever the facts of a scan change, so that those of an older journal are read again."""


@dataclass(frozen=True)
class ScanFacts:
    """Properties of a scan file.

    Attributes:
        problem: why it cannot be used; empty if it can.
        kind: the problem in a few words, to count by.
        format: nifti, nrrd, metaimage, npz or dicom.
        shape: voxels (X, Y, Z) in storage order.
        spacing_mm: voxel size in storage order.
        orientation: axis codes in storage order, such as LPS.
        extent_mm: left to right, back to front, bottom to top.
        hu: 1st, 50th and 99th percentile of a sample of the voxels, with values below -1024 counted as air.
        content: hash of the same sample; scans with the same hash and shape are copies.
        warnings: warnings of the reader, without the path.
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


def read_facts(path: Path, stored: Mapping[str, Any] | None = None) -> ScanFacts:
    """Read one scan as training does. An unusable scan has a ``problem`` and raises nothing.

    Args:
        path: scan file or folder.
        stored: see ``load_scan``.
    """
    try:
        scan = load_scan(path, stored)
    except ScanError as error:
        return ScanFacts(problem=_without_path(str(error), path), kind=error.kind)
    hu, affine = scan[0].numpy(), np.asarray(scan.affine, np.float64)
    world = np.abs(affine[:3, :3]) @ np.asarray(hu.shape, np.float64)
    sample = hu[tuple(slice(None, None, max(1, size // 64)) for size in hu.shape)]
    return ScanFacts(
        format=str(scan.meta["source_format"]),
        shape=tuple(int(size) for size in hu.shape),
        spacing_mm=tuple(round(step, 4) for step in voxel_spacing(affine)),
        orientation=orientation_code(affine),
        extent_mm=tuple(round(float(size), 1) for size in world),
        hu=tuple(round(float(value), 1) for value in np.percentile(sample, HU_PERCENTILES)),
        content=hashlib.sha256(np.ascontiguousarray(sample).tobytes()).hexdigest()[:16],
        warnings=[_without_path(str(warning), path) for warning in scan.meta["warnings"]],
    )


def _without_path(message: str, path: Path) -> str:
    return message.replace(f"{path}: ", "").replace(f"{path} ", "").replace(str(path), path.name)


def _facts_entry(task: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
    return asdict(read_facts(*task))


def read_all_facts(
    scans: Mapping[Path, Mapping[str, Any]], journal: Path, workers: int
) -> Iterator[tuple[Path, ScanFacts]]:
    """Facts of every scan, in any order. Scans in the journal whose files did not change are not read again.

    Args:
        scans: ``stored`` entry, often empty, by scan file or folder.
        journal: JSON lines file; created if missing.
        workers: number of processes.

    Raises:
        OSError: if the journal cannot be written; what was read stays in it.
    """
    tasks = {}
    for path, stored in scans.items():
        state = ":".join(str(number) for number in file_signature(path))
        digest = hashlib.sha256(json.dumps(stored, sort_keys=True).encode()).hexdigest()[:8] if stored else ""
        tasks[str(path)] = (f"{VERSION}:{state}:{digest}", (path, dict(stored)))
    for outcome in resume(_facts_entry, tasks, journal, workers, fatal=Exception):
        killed = ScanFacts(problem=outcome.problem, kind="worker killed")
        yield Path(outcome.key), killed if outcome.problem else _from_json(outcome.result)


def _from_json(entry: Mapping[str, Any]) -> ScanFacts:
    """Facts from the journal, where JSON has lists in place of tuples."""
    values = {key: tuple(value) if isinstance(value, list | tuple) else value for key, value in entry.items()}
    return ScanFacts(**values | {"warnings": list(entry["warnings"])})
