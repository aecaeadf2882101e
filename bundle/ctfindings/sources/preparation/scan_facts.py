"""Reads every scan of a source once: whether it is a chest CT in HU, its geometry and intensities."""

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
        shape, spacing_mm, orientation: voxels, voxel size and axis codes such as LPS, in storage order.
        extent_mm: left to right, back to front, bottom to top.
        hu: 1st, 50th and 99th percentile of a sample of the voxels, with values below -1024 counted as air.
        content: hash of the same sample; scans with the same hash and shape are copies.
        warnings: warnings of the reader, without the path.
    """

    problem: str = ""
    kind: str = ""
    format: str = ""
    shape: list[int] = field(default_factory=list)
    spacing_mm: list[float] = field(default_factory=list)
    orientation: str = ""
    extent_mm: list[float] = field(default_factory=list)
    hu: list[float] = field(default_factory=list)
    content: str = ""
    warnings: list[str] = field(default_factory=list)


def _read_facts(task: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
    """The ``ScanFacts`` of a path and its ``stored``. An unusable scan has a ``problem`` and raises nothing."""
    path, stored = task
    try:
        scan = load_scan(path, stored)
    except ScanError as error:
        return asdict(ScanFacts(problem=_without_path(str(error), path), kind=error.code))
    hu, affine = scan[0].numpy(), np.asarray(scan.affine, np.float64)
    world = np.abs(affine[:3, :3]) @ np.asarray(hu.shape, np.float64)
    sample = hu[tuple(slice(None, None, max(1, size // 64)) for size in hu.shape)]
    facts = ScanFacts(
        format=str(scan.meta["source_format"]),
        shape=list(hu.shape),
        spacing_mm=[round(step, 4) for step in voxel_spacing(affine)],
        orientation=orientation_code(affine),
        extent_mm=[round(float(size), 1) for size in world],
        hu=[round(float(value), 1) for value in np.percentile(sample, HU_PERCENTILES)],
        content=hashlib.sha256(np.ascontiguousarray(sample).tobytes()).hexdigest()[:16],
        warnings=[_without_path(str(warning), path) for warning in scan.meta["warnings"]],
    )
    return asdict(facts)


def _without_path(message: str, path: Path) -> str:
    return message.replace(f"{path}: ", "").replace(f"{path} ", "").replace(str(path), path.name)


def read_all_facts(
    scans: Mapping[Path, Mapping[str, Any]], journal: Path, workers: int
) -> Iterator[tuple[Path, ScanFacts]]:
    """Facts of every scan, in any order. Scans in the journal whose files did not change are not read again.

    ``scans`` has the ``stored`` entry, often empty, by scan file or folder.
    """
    tasks = {}
    for path, stored in scans.items():
        state = ":".join(str(number) for number in file_signature(path))
        digest = hashlib.sha256(json.dumps(stored, sort_keys=True).encode()).hexdigest()[:8] if stored else ""
        tasks[str(path)] = (f"{VERSION}:{state}:{digest}", (path, dict(stored)))
    for outcome in resume(_read_facts, tasks, journal, workers, fatal=Exception):
        facts = outcome.result or {"problem": outcome.problem, "kind": "worker killed"}
        yield Path(outcome.key), ScanFacts(**facts)
