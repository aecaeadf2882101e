"""Localization in mm: from an evidence peak to the mask of a finding, and from a depth profile to a slice.

Shapes: S scans, C findings, X Y Z voxels; n snippets, D depth bins. World coordinates are mm in RAS.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.classification import FloatArray, IntArray, check_scores, check_thresholds

TOLERANCE_MM = 15.0  # Largest distance from the mask that counts as a hit


def evidence_distance(points_mm: ArrayLike, mask_bits: NDArray[np.integer], bit: int, affine: ArrayLike) -> FloatArray:
    """Distance in mm from world positions [..., 3] to the nearest voxel centre of the mask of a finding, [...].

    It is 0 if a position's own voxel is in the mask, and NaN if no voxel has the bit. The integer mask [X, Y, Z] has
    bit i for finding i; the affine maps voxel indices to mm RAS, [4, 4].

    Raises:
        ValueError: the positions are not three finite numbers each, or the mask is not an integer volume.
    """
    points = np.asarray(points_mm, dtype=np.float64)
    if points.shape[-1:] != (3,) or not np.isfinite(points).all():
        raise ValueError(f"an evidence peak must be three finite coordinates in mm; got {points.tolist()}")
    mask = np.asarray(mask_bits)
    if mask.ndim != 3 or not np.issubdtype(mask.dtype, np.integer):
        raise ValueError(f"a finding mask must be an integer volume [X, Y, Z]; got {mask.dtype} {mask.shape}")
    matrix = np.asarray(affine, dtype=np.float64)
    voxels = np.argwhere(mask & (1 << bit))
    if not len(voxels):
        return np.full(points.shape[:-1], np.nan)
    distance, _ = cKDTree(voxels @ matrix[:3, :3].T + matrix[:3, 3]).query(points)
    own = np.rint((points - matrix[:3, 3]) @ np.linalg.inv(matrix[:3, :3]).T).astype(np.int64)
    within = ((own >= 0) & (own < mask.shape)).all(axis=-1)
    bits = mask[tuple(np.moveaxis(np.clip(own, 0, np.asarray(mask.shape) - 1), -1, 0))]
    result: FloatArray = np.where(within & ((bits >> bit) & 1 == 1), 0.0, distance)
    return result


def evidence_hit_rate(
    distance_mm: ArrayLike, probabilities: ArrayLike, labels: ArrayLike, thresholds: ArrayLike
) -> tuple[FloatArray, IntArray]:
    """Share of the true positives of each finding whose evidence peak lies within `TOLERANCE_MM` of the mask.

    Returns the rate [C], NaN without true positives that have a distance, and the number of these true positives [C].
    Distances are those of `evidence_distance`, NaN without a mask; all are [S, C], thresholds [C].
    """
    scores, truth = check_scores(probabilities, labels)
    distance = np.asarray(distance_mm, dtype=np.float64)
    if distance.shape != scores.shape:
        raise ValueError(f"distances {distance.shape} and probabilities {scores.shape} must both be [scans, findings]")
    counted = (truth == 1) & (scores >= check_thresholds(thresholds, scores.shape[1])) & ~np.isnan(distance)
    hits = (counted & (np.nan_to_num(distance, nan=np.inf) <= TOLERANCE_MM)).sum(axis=0)
    total = counted.sum(axis=0)
    rate = np.full(total.shape, np.nan)
    np.divide(hits, total, out=rate, where=total > 0)
    return rate, total


@dataclass(frozen=True)
class DepthErrors:
    """Distance in mm between the true depth of each snippet and an estimate, [n] each."""

    model: FloatArray  # The most probable depth bin, as in RadFinder
    profile: FloatArray  # The weighted median of the profile, which minimises the expected error of a correct profile
    middle: FloatArray  # The middle of the scan's bins
    random: FloatArray  # A random bin of the scan


def depth_errors(probabilities: ArrayLike, depth_mm: ArrayLike, target_mm: ArrayLike, seed: int = 42) -> DepthErrors:
    """Error of a depth profile and of two estimates without a model.

    RadFinder counts the distance in bins of 12 mm; here it is the distance to the true z. Probabilities are
    non-negative weights of the bins, [n, D], depths the world z of their centres, NaN for padding, [n, D], and targets
    the true world z of the snippets, [n]. The seed draws the random estimate.

    Raises:
        ValueError: shapes differ, a snippet has no bin or lies outside its scan, or a value is negative or not finite.
    """
    score, depth, target = (np.asarray(values, dtype=np.float64) for values in (probabilities, depth_mm, target_mm))
    if score.ndim != 2 or score.shape != depth.shape or target.shape != score.shape[:1]:
        raise ValueError(
            f"probabilities {score.shape}, depths {depth.shape}, targets {target.shape} must be [n, D], [n, D] and [n]"
        )
    real = ~np.isnan(depth)
    if not real.any(axis=1).all():
        raise ValueError(f"snippet {int(np.argmin(real.any(axis=1)))} has no depth bin; every scan must have one")
    if not (np.isfinite(score[real]).all() and (score[real] >= 0).all() and np.isfinite(target).all()):
        raise ValueError("probabilities must be finite and not negative, targets finite; leave out unplaced snippets")
    low, high = np.nanmin(depth, axis=1), np.nanmax(depth, axis=1)
    half = (high - low) / np.maximum(real.sum(axis=1) - 1, 1) / 2
    outside = (target < low - half - 1e-3) | (target > high + half + 1e-3)
    if outside.any():
        row = int(np.argmax(outside))
        raise ValueError(
            f"snippet {row} lies at {target[row]:.1f} mm, its scan reaches from {low[row]:.1f} to {high[row]:.1f}; "
            "leave it out"
        )
    best = np.take_along_axis(depth, np.where(real, score, -np.inf).argmax(axis=1)[:, None], axis=1)[:, 0]
    generator = np.random.default_rng(seed)
    chance = np.array([generator.choice(row[own]) for row, own in zip(depth, real, strict=True)])
    halves = np.array(
        [_weighted_median(row[own], weight[own]) for row, weight, own in zip(depth, score, real, strict=True)]
    )
    guesses = (best, halves, (low + high) / 2, chance)
    return DepthErrors(*(np.abs(guess - target) for guess in guesses))


def depth_record(errors: DepthErrors, bootstrap: Bootstrap) -> dict[str, Any]:
    """Mean and median error, shares within 12 and 24 mm, and the ratio to the middle slice, each with its interval."""
    names = ("mae_mm", "median_mm", "within_12_mm", "within_24_mm")
    guesses = tuple(field.name for field in fields(DepthErrors))

    def scores(*guessed: FloatArray) -> FloatArray:
        of = [[np.mean(error), np.median(error), np.mean(error <= 12), np.mean(error <= 24)] for error in guessed]
        middle = of[guesses.index("middle")][0]
        # A resample whose snippets all lie in the middle has no ratio.
        ratios = [error[0] / middle if middle > 0 else np.nan for error in of[:2]]
        return np.asarray([*np.ravel(of), *ratios])

    found = bootstrap.row_interval(scores, [getattr(errors, guess) for guess in guesses])
    rows = np.stack([found.estimate, found.low, found.high], axis=1).tolist()
    entries = [{"value": value, "interval": [low, high]} for value, low, high in rows]
    record: dict[str, Any] = {"snippets": len(errors.model), "patients": len(set(bootstrap.patients))}
    for place, guess in enumerate(guesses):
        record[guess] = dict(zip(names, entries[4 * place : 4 * place + 4], strict=True))
    record["mae_of_middle"], record["profile_mae_of_middle"] = entries[-2:]
    return record


def _weighted_median(values: FloatArray, weights: FloatArray) -> float:
    """The value at which the cumulative weight reaches one half; the lower one of a tie."""
    order = np.argsort(values)
    share = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(share, share[-1] / 2 - 1e-12)])
