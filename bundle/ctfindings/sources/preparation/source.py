"""What a source hands to the common preparation: candidate studies, and a ledger of what it left out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.scan.dicom_headers import DicomFile


class Grid(NamedTuple):
    """Shape and voxel size of a scan as a table gives them, with axes in any one order."""

    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]


@dataclass
class Candidate:
    """A study before its scan is read.

    Attributes:
        line: line of the table; 0 without a table.
        patient: the source's own identifier; empty if unknown.
        image: scan file, or folder or zip of DICOM. All paths are absolute.
        findings, impression: sections of the report; ``findings`` may be a whole report.
        labels: 1, 0 or -1 (unknown) for each of the 18 findings.
        masks: files by ``anatomy`` and ``finding_masks``.
        split: from the source; None to draw one.
        stored: rescale and geometry that the file lacks; see ``Stored``.
        examination: name that the reconstructions of one examination share; empty if the study is the only one.
        grid: expected grid of the scan; None if unknown.
        dicom: files in which slice references are resolved; empty to use ``image`` if that is DICOM.
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
    dicom: Sequence[DicomFile] = ()


class Entry(NamedTuple):
    """A row or file in the ledger. ``line`` is 0 for a file without a row.

    ``reason`` is a few words, the same for all entries of a kind; ``detail`` is one sentence.
    """

    line: int
    id: str
    reason: str
    detail: str


@dataclass
class Ledger:
    """What a preparation left out or flagged.

    Studies that are not in the datalist are ``left_out``. Studies that lack something and unused files are ``flagged``.
    """

    left_out: list[Entry] = field(default_factory=list)
    flagged: list[Entry] = field(default_factory=list)

    def drop(self, line: int, identity: str, reason: str, detail: str) -> None:
        """Record a study that is left out."""
        self.left_out.append(Entry(line, identity, reason, detail))

    def notice(self, line: int, identity: str, reason: str, detail: str) -> None:
        """Record a problem that does not exclude a study."""
        self.flagged.append(Entry(line, identity, reason, detail))

    def counts(self) -> dict[str, dict[str, int]]:
        """Number of entries by reason, the most frequent first."""
        return {
            name: dict(Counter(entry.reason for entry in entries).most_common())
            for name, entries in (("left_out", self.left_out), ("flagged", self.flagged))
        }


class Source(NamedTuple):
    """A source that has been read.

    Attributes:
        place: its table or folder, named in errors.
        description: one sentence for the data card.
        origin: facts for the data card, such as columns and the origin of the labels.
        ledger: what it left out so far.
    """

    place: Path
    name: str
    description: str
    origin: dict[str, Any]
    candidates: Sequence[Candidate]
    ledger: Ledger
