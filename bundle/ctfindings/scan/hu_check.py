"""Checks that intensities are the HU of a chest, and names the likely mistake if they are not."""

from pathlib import Path

import numpy as np

from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.findings import FINDINGS
from bundle.ctfindings.scan.storage import Stored, Volume

LOWEST_HU = -1024.0
"""Lower values become air: scanners pad outside the reconstructed circle with -2000, -3024 or, in CT-RATE, -8192."""

AIR_HU = (-1100.0, -500.0)
"""Room air and lung. Lower values are padding, such as -2000, -3024 or -8192, and are ignored."""

TISSUE_HU = (-200.0, 300.0)
"""From fat to enhanced blood."""

MOST_LABELS = 128
"""Segmentation tools have up to 120 labels; an 8-bit export reaches higher values."""

REMEDY = "Give the original CT."

DENSE_HU = (600.0, 2000.0)
"""Cortical bone and metal, a few percent of a chest; soft tissue if an intercept of -1024 is missing."""


CLIPPED_HU = (100.0, 1000.0)
"""A scan whose values end between these, at a value that many voxels share, was clipped to a window."""


def to_hu(path: str | Path, volume: Volume, stored: Stored) -> np.ndarray:
    """HU (X, Y, Z) float32: the values of a volume with the rescale of ``stored`` applied once.

    ScanError if the result is not HU of a chest, or the file is already in HU and would be rescaled twice.
    """
    values = np.asarray(volume.array, dtype=np.float32)
    if not stored.rescales:
        if problem := hu_problem(values, volume.array.dtype):
            raise ScanError(path, problem, "not-in-hu")
        return values
    rescaled = values * np.float32(stored.slope) + np.float32(stored.intercept)
    if problem := hu_problem(rescaled, np.dtype(np.float32)):
        asked = f"slope {stored.slope:g} and intercept {stored.intercept:g}"
        if not hu_problem(values, volume.array.dtype):
            raise ScanError(
                path,
                f"is already in HU, but its record gives {asked}, which would rescale it twice; remove them",
                "rescaled-twice",
            )
        raise ScanError(path, f"after {asked} of its record, {problem}", "not-in-hu")
    return rescaled


def hu_problem(values: np.ndarray, stored: np.dtype) -> str:
    """Why values are not HU of a chest, with the likely mistake; empty if they are.

    A chest scan contains air (lungs and usually the room) near -1000 HU and soft tissue between fat (-100) and enhanced
    blood (+300). Without air, the values are windowed or not rescaled. Without tissue, they were rescaled twice. If as
    many voxels as a whole body has are near +1000, the intercept is missing, even if padding looks like air.

    Values are (X, Y, Z) float32 and finite; ``stored`` is the number type in the file.
    """
    low, high = float(values.min()), float(values.max())
    if low == high:
        return f"expected a CT, found that all voxels are {low:g}; export the scan again"
    expected = f"expected a CT in HU (air near -1000), found values in {low:g}..{high:g}."
    if stored == np.uint8 or (low >= 0 and high <= 255):
        labels = high < MOST_LABELS and bool((values == np.rint(values)).all())
        return f"{expected} {'Is it a label map?' if labels else 'Was an 8-bit export loaded?'} {REMEDY}"
    sample = values[tuple(slice(None, None, max(1, size // 128)) for size in values.shape)]
    air, tissue, dense = (
        float(((sample > least) & (sample < most)).mean()) for least, most in (AIR_HU, TISSUE_HU, DENSE_HU)
    )
    if air < 0.005 and float(np.median(sample)) < AIR_HU[0]:
        return f"{expected} Most voxels lie far below air: was HU rescaled twice? {REMEDY}"
    if air < 0.005:
        return f"{expected} Is it a label map, a windowed image, or were slope and intercept left out? {REMEDY}"
    if dense > 0.12:
        share = f"{100 * dense:.0f} % of the voxels are in 600..2000"
        return f"{expected} {share}: was an intercept of -1024 left out? {REMEDY}"
    if tissue < 0.03:
        share = f"{100 * tissue:.1f} % of the voxels are soft tissue (-200..300)"
        return f"{expected} {share}: was HU rescaled twice? {REMEDY}"
    if (beyond := float((sample > 4000).mean())) > 0.02:
        share = f"{100 * beyond:.0f} % of the voxels are above 4000"
        return f"{expected} {share}: was signed padding read as unsigned? {REMEDY}"
    return ""


def clipped_at(hu: np.ndarray) -> float | None:
    """The HU at which a scan (X, Y, Z) was clipped, for example 400 for -1000..400; None if it was not.

    In a measured scan hardly two voxels share the highest value. After clipping, all bone and metal has it.
    """
    top = float(hu.max())
    if not CLIPPED_HU[0] <= top < CLIPPED_HU[1]:
        return None
    at_top, just_below = np.count_nonzero(hu == top), np.count_nonzero(hu > top - 25) / 25
    return top if at_top >= max(50, 1e-4 * hu.size) and at_top > 5 * (just_below - at_top / 25) else None


UNSEEN_WHEN_CLIPPED = tuple(finding.name for finding in FINDINGS if finding.dense)
"""The findings that a clipped scan cannot show."""
