"""Does the answer point at the right place? Distances in mm from an evidence peak to a finding, and from a depth
profile to a slice.

Shapes: S scans, C findings, X Y Z voxels; n snippets, D depth bins. World coordinates are mm in RAS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bundle.ctfindings.metrics.bootstrap import bootstrap_interval
from bundle.ctfindings.metrics.classification import FloatArray, IntArray, check_scores, check_thresholds

TOLERANCE_MM = 15.0


def evidence_distance(peak_mm: ArrayLike, mask_bits: NDArray[np.integer], bit: int, affine: ArrayLike) -> float:
    """Distance in mm from a peak to the nearest voxel centre of a finding's mask; 0 when the peak's own voxel is in the
    mask.

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


def evidence_hit_rate(
    distance_mm: ArrayLike,
    probabilities: ArrayLike,
    labels: ArrayLike,
    thresholds: ArrayLike,
    tolerance_mm: float = TOLERANCE_MM,
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


@dataclass(frozen=True)
class DepthErrors:
    """Distance in mm between the true depth of each snippet and a guess at it, [n] each.

    Attributes:
        model: the most probable depth bin, as RadFinder answers.
        profile: the depth that halves the profile's probability, for which the mean error is least where the profile is
            right.
        middle: the middle of the bins that the scan has.
        random: one of these bins by chance.
    """

    model: FloatArray
    profile: FloatArray
    middle: FloatArray
    random: FloatArray


def depth_errors(probabilities: ArrayLike, depth_mm: ArrayLike, target_mm: ArrayLike, seed: int = 42) -> DepthErrors:
    """How far a depth profile points from the true depth, against the two guesses that need no model.

    RadFinder counts the distance between bins and multiplies it by 12 mm; here the distance is to the true z, not to
    its bin.

    Args:
        probabilities: of each depth bin for each snippet, not negative, [n, D].
        depth_mm: world z of each bin centre in mm, NaN where it is padding, [n, D].
        target_mm: true world z of each snippet in mm, [n].
        seed: of the random guess.

    Raises:
        ValueError: shapes differ, a snippet has no bin, a probability is negative or not finite, a target is not
            finite, or it lies outside its scan's bins.
    """
    score, depth, target = (np.asarray(values, dtype=np.float64) for values in (probabilities, depth_mm, target_mm))
    if score.ndim != 2 or score.shape != depth.shape or target.shape != score.shape[:1]:
        raise ValueError(
            f"probabilities {score.shape}, depths {depth.shape} and targets {target.shape} must be [n, D], [n, D] and [n]"
        )
    real = ~np.isnan(depth)
    if not real.any(axis=1).all():
        raise ValueError(f"snippet {int(np.argmin(real.any(axis=1)))} has no depth bin; every scan has at least one")
    if not (np.isfinite(score[real]).all() and (score[real] >= 0).all() and np.isfinite(target).all()):
        raise ValueError(
            "probabilities must be finite and not negative, targets finite; leave out snippets that have no place"
        )
    low, high = np.nanmin(depth, axis=1), np.nanmax(depth, axis=1)
    half = (high - low) / np.maximum(real.sum(axis=1) - 1, 1) / 2
    outside = (target < low - half - 1e-3) | (target > high + half + 1e-3)
    if outside.any():
        row = int(np.argmax(outside))
        raise ValueError(
            f"snippet {row} lies at {target[row]:.1f} mm, its scan reaches from {low[row]:.1f} to {high[row]:.1f}; leave it out"
        )
    best = np.take_along_axis(depth, np.where(real, score, -np.inf).argmax(axis=1)[:, None], axis=1)[:, 0]
    dice = np.random.default_rng(seed)
    chance = np.array([dice.choice(row[own]) for row, own in zip(depth, real, strict=True)])
    halves = np.array(
        [_weighted_median(row[own], weight[own]) for row, weight, own in zip(depth, score, real, strict=True)]
    )
    return DepthErrors(
        model=np.abs(best - target),
        profile=np.abs(halves - target),
        middle=np.abs((low + high) / 2 - target),
        random=np.abs(chance - target),
    )


def depth_record(
    errors: DepthErrors, patients: Sequence[str], resamples: int = 1000, seed: int = 42, level: float = 0.95
) -> dict[str, Any]:
    """Mean and median error, shares within 12 and 24 mm, and the ratio to the middle slice, with intervals by patient.

    Args:
        errors: of the snippets.
        patients: the patient of each snippet, n.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        level: coverage of the intervals.

    Raises:
        ValueError: there are fewer than two patients.
    """
    names = ("mae_mm", "median_mm", "within_12_mm", "within_24_mm")
    guesses = ("model", "profile", "middle", "random")

    def scores(*guessed: FloatArray) -> FloatArray:
        of = [[np.mean(error), np.median(error), np.mean(error <= 12), np.mean(error <= 24)] for error in guessed]
        middle = of[guesses.index("middle")][0]
        # A resample whose snippets all lie in the middle has no ratio.
        ratios = [error[0] / middle if middle > 0 else np.nan for error in of[:2]]
        return np.asarray([*np.ravel(of), *ratios])

    interval = bootstrap_interval(
        scores, [getattr(errors, guess) for guess in guesses], patients, resamples, seed, level
    )
    entries = [{"value": float(value), "interval": [float(low), float(high)]} for value, low, high in _rows(interval)]
    record: dict[str, Any] = {"snippets": len(errors.model), "patients": len(set(patients))}
    for place, guess in enumerate(guesses):
        record[guess] = dict(zip(names, entries[4 * place : 4 * place + 4], strict=True))
    record["mae_of_middle"], record["profile_mae_of_middle"] = entries[-2:]
    return record


def _weighted_median(values: FloatArray, weights: FloatArray) -> float:
    """The value up to which half of the weight lies; that of the lower half where it is split evenly."""
    order = np.argsort(values)
    share = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(share, share[-1] / 2 - 1e-12)])


def _rows(interval: Any) -> NDArray[np.float64]:
    return np.stack([interval.estimate, interval.low, interval.high], axis=1)
