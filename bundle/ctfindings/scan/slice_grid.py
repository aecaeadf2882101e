"""Brings the slices of a series to even distances."""

from pathlib import Path

import numpy as np

from bundle.ctfindings.files.errors import ScanError, coded

MAX_GAP_MM = 10.0
SAME_PLACE_MM = 0.1
REGULAR_SHARE = 0.05
"""A distance that this share of the gaps has, and at least two of them, is regular."""


def even_slices(
    slices: np.ndarray, positions: np.ndarray, normal: np.ndarray, path: str | Path
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Interpolate slices to even distances if a few are missing or uneven.

    Takes slices (Z, rows, columns) sorted along their unit ``normal`` (3,), and the centres of their first pixels in
    LPS mm, (Z, 3). Returns the slices, the step from one to the next in LPS mm, (3,), and warnings. ScanError if two
    slices lie at one place, the slices are not on one line, or too many are missing.
    """
    depth = (positions - positions[0]) @ normal
    distances = np.diff(depth)
    step = regular_step(distances)
    direction = (positions[-1] - positions[0]) / depth[-1] if depth[-1] > 0 else normal
    if distances.min() < SAME_PLACE_MM:
        problem = "two images of the series lie at the same position; export one phase or reconstruction only"
        raise ScanError(path, problem, "same-position")
    if np.abs(positions - positions[0] - depth[:, None] * direction).max() > 1.0:
        problem = "the images of the series do not lie on one line; export one acquisition only"
        raise ScanError(path, problem, "not-on-one-line")
    if np.abs(distances - step).max() <= max(0.05 * step, 0.05):
        return slices, direction * depth[-1] / (len(depth) - 1), []
    widest = int(distances.argmax())
    if distances[widest] > 1.01 * max(MAX_GAP_MM, 1.5 * step):
        around = f"between z = {positions[widest][2]:.1f} and {positions[widest + 1][2]:.1f} mm"
        problem = f"images are missing: a gap of {distances[widest]:.1f} mm {around}; export the whole series"
        raise ScanError(path, problem, "missing-slices")
    even = np.arange(int(np.floor(depth[-1] / step + 1e-3)) + 1) * step
    place = np.interp(even, depth, np.arange(len(depth)))
    below = np.minimum(place.astype(int), len(depth) - 2)
    weight = (place - below).astype(np.float32)[:, None, None]
    filled = slices[below]
    filled += weight * (slices[below + 1] - filled)
    spread = f"slices lie {distances.min():.1f} to {distances.max():.1f} mm apart"
    problem = f"{spread}; missing ones were interpolated at {step:.1f} mm, so look at the original slices there"
    return filled, direction * step, [coded(path, problem, "slices-interpolated")]


def regular_step(distances: np.ndarray) -> float:
    """The smallest distance, in mm, that is regular; the median if none is."""
    ordered = np.sort(distances)
    alike = np.searchsorted(ordered, ordered * 1.05 + 0.01, side="right") - np.arange(len(ordered))
    regular = np.flatnonzero((alike >= max(2, REGULAR_SHARE * len(ordered))) & (ordered >= SAME_PLACE_MM))
    if not len(regular):
        return float(np.median(distances))
    first = regular[0]
    return float(np.median(ordered[first : first + alike[first]]))
