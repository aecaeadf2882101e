"""What a server answers, and the scan it is asked about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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
    """

    record: Record
    labels: np.ndarray
    affine: np.ndarray
    label_names: Mapping[str, int]
    corrections: Corrections = field(default_factory=Corrections)


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
