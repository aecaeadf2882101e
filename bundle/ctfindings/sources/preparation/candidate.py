"""A study before its scan was read: what every source hands to the preparation that all share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bundle.ctfindings.findings import FINDING_NAMES


class Grid(NamedTuple):
    """Size and voxel size of a scan as a table gives them.

    Attributes:
        shape: voxels, in any order of axes.
        spacing_mm: voxel size in the same order.
    """

    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]


@dataclass
class Candidate:
    """A study as a source understood it.

    Attributes:
        line: line of the table it is from; 0 without a table.
        id: name of the study.
        patient: the source's own; empty when unknown.
        image: scan file, or folder or zip of DICOM; absolute, as all paths here.
        findings: findings section, or a whole report.
        impression: impression section.
        labels: 1, 0 or -1 for each of the 18 findings.
        masks: files by ``anatomy`` and ``finding_masks``.
        split: as the source has it; None to draw one.
        stored: how the file becomes HU, where it does not say so itself; see ``Stored``.
        examination: name that the reconstructions of one examination share; empty when the study is the only one.
        grid: what the source's table says of the scan, to be compared with the file; None when it says nothing.
        warnings: what the source found out about the scan, one sentence each.
        dicom: files in which references to slices are looked up; empty to use ``image`` where that is DICOM.
    """

    line: int
    id: str
    patient: str
    image: Path
    findings: str = ""
    impression: str = ""
    labels: list[int] = field(default_factory=lambda: [-1] * len(FINDING_NAMES))
    masks: dict[str, Path] = field(default_factory=dict)
    split: str | None = None
    stored: dict[str, Any] = field(default_factory=dict)
    examination: str = ""
    grid: Grid | None = None
    warnings: list[str] = field(default_factory=list)
    dicom: Sequence[Path] = ()
