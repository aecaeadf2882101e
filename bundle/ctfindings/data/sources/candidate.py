"""A study before its scan was read: what every source hands to the preparation that all share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from bundle.ctfindings.findings import FINDING_NAMES


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
