"""What a server answers, and the scan it is asked about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ctfindings_client.corrections import Corrections
from ctfindings_client.record import Record


@dataclass(frozen=True)
class ServerInfo:
    """What a server says about itself.

    Attributes:
        bundle_version: version of the bundle that it serves.
        weights_sha256: digest of its weights.
    """

    bundle_version: str
    weights_sha256: str

    def __str__(self) -> str:
        return f"CT Findings {self.bundle_version}, weights {self.weights_sha256[:8]}"


@dataclass(frozen=True)
class ListedScan:
    """A scan in the list of a server.

    Attributes:
        id: its name there.
        date: of its file, or of the study of a DICOM series, ISO 8601; empty if not known.
        present: number of present findings; None if the model was not asked yet.
        outside_domain: whether the scan is outside the domain of the weights.
        corrected: whether a reader corrected it.
        description: of a DICOM series; empty without one.
    """

    id: str
    date: str
    present: int | None
    outside_domain: bool
    corrected: bool
    description: str = ""

    @classmethod
    def parse(cls, entry: Mapping[str, Any]) -> ListedScan:
        """Reads an entry of the server's list."""
        present = entry["present"]
        return cls(
            str(entry["id"]),
            str(entry["date"] or ""),
            None if present is None else int(present),
            bool(entry["outside_domain"]),
            bool(entry["corrected"]),
            str(entry.get("description") or ""),
        )

    @property
    def title(self) -> str:
        """Description of the series, or the name."""
        return self.description or self.id

    @property
    def line(self) -> str:
        """Date and state, such as ``2026-11-29, 3 findings present, corrected``, and the name if the title has none."""
        if self.present is None:
            state = "not asked yet"
        elif self.outside_domain:
            state = "outside the domain"
        else:
            state = f"{self.present} finding{'s' * (self.present != 1)} present"
        name = self.id if self.description else ""
        return ", ".join(filter(None, [self.date, state, "corrected" * self.corrected, name]))


@dataclass(frozen=True)
class Scan:
    """A scan as it leaves Slicer: voxels and place, and no word about the patient.

    Attributes:
        array: ``(K, J, I)`` in HU.
        affine: ``(4, 4)``, voxel index (i, j, k) to RAS mm.
    """

    array: np.ndarray
    affine: np.ndarray


@dataclass(frozen=True)
class Findings:
    """Answer of the model ``findings``.

    Attributes:
        record: the findings record.
        labels: anatomy label map ``(K, J, I)``.
        affine: of the label map, to RAS mm.
        label_names: label value by the name of its anatomy.
        corrections: what readers said of the scan.
        draft: report that the server's program composed from the record; empty if it sent none.
    """

    record: Record
    labels: np.ndarray
    affine: np.ndarray
    label_names: Mapping[str, int]
    corrections: Corrections = field(default_factory=Corrections)
    draft: str = ""


@dataclass(frozen=True)
class Evidence:
    """Answer of the model ``evidence``.

    Attributes:
        text: finding or query that was asked.
        probability: of a finding; None for a query.
        heat: map ``(K, J, I)``, 8 bits, 255 for 1.0.
        strongest: largest value of the map, 0..255.
        affine: of the map, to RAS mm.
        depth: (z in mm, score) from inferior to superior.
        peak_mm: strongest point, RAS; its z is that of the slice to show. None when nothing in the scan answers.
        box_mm: (min, max) corners of the region around it, RAS.
        image: that slice counted from 1 at the most superior one; None without a peak.
        images: how many slices the scan has.
        meaning: what the score of a free text is worth, in words; empty for a finding.
        where: region, side of the patient or extent; empty if the answer names none.
    """

    text: str
    probability: float | None
    heat: np.ndarray
    strongest: int
    affine: np.ndarray
    depth: tuple[tuple[float, float], ...]
    peak_mm: tuple[float, float, float] | None
    box_mm: tuple[tuple[float, float, float], tuple[float, float, float]] | None
    image: int | None = None
    images: int | None = None
    meaning: str = ""
    where: str = ""
