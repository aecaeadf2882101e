"""Does the evidence point at the finding? Distances in mm from an evidence peak to the true mask of a finding.

Shapes: S scans, C findings, X Y Z voxels. World coordinates are mm in RAS.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bundle.ctfindings.metrics.classification import FloatArray, IntArray, check_scores, check_thresholds

TOLERANCE_MM = 15.0


def evidence_distance(peak_mm: ArrayLike, mask_bits: NDArray[np.integer], bit: int, affine: ArrayLike) -> float:
    """Distance in mm from a peak to the nearest voxel centre of a finding's mask; 0 when the peak's own voxel is in the mask.

    Args:
        peak_mm: world position of the evidence peak in mm RAS, [3].
        mask_bits: integer mask whose bit i marks finding i, [X, Y, Z].
        bit: index of the finding.
        affine: voxel indices to mm RAS, [4, 4].

    Returns:
        Millimetres; NaN when no voxel carries the bit, so that there is nothing to point at.

    Raises:
        ValueError: the peak is not three finite numbers, or the mask is not an integer volume.
    """
    peak = np.asarray(peak_mm, dtype=np.float64)
    if peak.shape != (3,) or not np.isfinite(peak).all():
        raise ValueError(f"an evidence peak is three finite coordinates in mm; got {peak.tolist()}")
    mask = np.asarray(mask_bits)
    if mask.ndim != 3 or not np.issubdtype(mask.dtype, np.integer):
        raise ValueError(f"a finding mask is an integer volume [X, Y, Z]; got {mask.dtype} {mask.shape}")
    matrix = np.asarray(affine, dtype=np.float64)
    own = np.rint(np.linalg.solve(matrix[:3, :3], peak - matrix[:3, 3])).astype(np.int64)
    if (own >= 0).all() and (own < mask.shape).all() and (int(mask[tuple(own)]) >> bit) & 1:
        return 0.0
    voxels = np.argwhere(mask & (1 << bit))
    if not len(voxels):
        return float("nan")
    centres = voxels @ matrix[:3, :3].T + matrix[:3, 3]
    return float(np.sqrt(((centres - peak) ** 2).sum(axis=1).min()))


def evidence_hit(
    peak_mm: ArrayLike, mask_bits: NDArray[np.integer], bit: int, affine: ArrayLike, tolerance_mm: float = TOLERANCE_MM
) -> bool:
    """Whether a peak lies inside the finding's mask or within `tolerance_mm` of it. Arguments as for `evidence_distance`.

    Raises:
        ValueError: no voxel of the mask carries the finding.
    """
    distance = evidence_distance(peak_mm, mask_bits, bit, affine)
    if np.isnan(distance):
        raise ValueError(f"the mask has no voxel of finding {bit}; a hit is defined for a finding that was drawn")
    return distance <= tolerance_mm


def evidence_hit_rate(
    distance_mm: ArrayLike, probabilities: ArrayLike, labels: ArrayLike, thresholds: ArrayLike, tolerance_mm: float = TOLERANCE_MM
) -> tuple[FloatArray, IntArray]:
    """Share of true positives whose evidence peak hits, per finding.

    Args:
        distance_mm: `evidence_distance` of each scan and finding, NaN where there is no peak or no mask, [S, C].
        probabilities: [S, C].
        labels: 1, 0 or -1, [S, C].
        thresholds: one per finding, [C].
        tolerance_mm: largest distance that counts as a hit.

    Returns:
        Rate [C], NaN without true positives that have a distance, and the number of these true positives [C].
    """
    scores, truth = check_scores(probabilities, labels)
    distance = np.asarray(distance_mm, dtype=np.float64)
    if distance.shape != scores.shape:
        raise ValueError(f"distances {distance.shape} and probabilities {scores.shape} must both be [scans, findings]")
    counted = (truth == 1) & (scores >= check_thresholds(thresholds, scores.shape[1])) & ~np.isnan(distance)
    hits = (counted & (np.nan_to_num(distance, nan=np.inf) <= tolerance_mm)).sum(axis=0)
    total = counted.sum(axis=0)
    rate = np.full(total.shape, np.nan)
    np.divide(hits, total, out=rate, where=total > 0)
    return rate, total
