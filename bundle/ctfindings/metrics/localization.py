"""Localization of a slice from a depth profile, in mm. Shapes: n snippets, D depth rows (bins)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.classification import FloatArray


def depth_errors(
    probabilities: ArrayLike, depth_mm: ArrayLike, target_mm: ArrayLike, seed: int = 42
) -> dict[str, FloatArray]:
    """Error of a depth profile in mm, and of two estimates without a model, [n] each.

    ``model`` is the most probable depth bin, as in RadFinder; ``profile`` the weighted median of the profile, which
    minimises the expected error of a correct profile; ``middle`` the middle of the bins of the scan, and ``random`` a
    random bin of it. RadFinder counts the distance in bins of 12 mm; here it is the distance to the true z.
    Probabilities are non-negative weights of the bins, [n, D], depths the world z of their centres, NaN for padding,
    [n, D], and targets the true world z of the snippets, [n]. The seed draws the random estimate. ValueError if shapes
    differ, or a probability is not finite.
    """
    score, depth, target = (np.asarray(values, dtype=np.float64) for values in (probabilities, depth_mm, target_mm))
    if score.ndim != 2 or score.shape != depth.shape or target.shape != score.shape[:1]:
        raise ValueError(
            f"probabilities {score.shape}, depths {depth.shape}, targets {target.shape} must be [n, D], [n, D] and [n]"
        )
    real = ~np.isnan(depth)
    if not np.isfinite(score[real]).all():
        raise ValueError("the probabilities of a depth profile are not finite")
    low, high = np.nanmin(depth, axis=1), np.nanmax(depth, axis=1)
    generator = np.random.default_rng(seed)
    guesses = {
        "model": depth[np.arange(len(depth)), np.where(real, score, -np.inf).argmax(axis=1)],
        "profile": np.array([_weighted_median(*pair) for pair in zip(depth, score, strict=True)]),
        "middle": (low + high) / 2,
        "random": np.array([generator.choice(row[own]) for row, own in zip(depth, real, strict=True)]),
    }
    return {name: np.abs(guess - target) for name, guess in guesses.items()}


def share_of_height(z_mm: ArrayLike, depth_mm: ArrayLike) -> FloatArray:
    """World z as a share of the height of a scan, 0 for its lowest and 1 for its highest depth bin.

    Positions are [n], the world z of the bins [n, D], NaN for padding. A scan with one bin has 0.
    """
    depth = np.asarray(depth_mm, dtype=np.float64)
    low, high = np.nanmin(depth, axis=1), np.nanmax(depth, axis=1)
    return (np.asarray(z_mm, dtype=np.float64) - low) / np.maximum(high - low, 1e-6)


def at_share_of_height(share: ArrayLike, depth_mm: ArrayLike) -> FloatArray:
    """The inverse of `share_of_height`, kept within the scan, [n]."""
    depth = np.asarray(depth_mm, dtype=np.float64)
    low, high = np.nanmin(depth, axis=1), np.nanmax(depth, axis=1)
    return low + np.clip(np.asarray(share, dtype=np.float64), 0, 1) * (high - low)


def depth_record(errors: Mapping[str, FloatArray], bootstrap: Bootstrap) -> dict[str, Any]:
    """Mean and median error, shares within 12 and 24 mm, and the ratio to the middle slice, each with its interval.

    The ratio is None if all snippets lie in the middle. Errors are those of `depth_errors`, and of further estimates of
    the same snippets.
    """
    names = ("mae_mm", "median_mm", "within_12_mm", "within_24_mm")
    guesses = tuple(errors)

    def scores(*guessed: FloatArray) -> FloatArray:
        of = {
            guess: [np.mean(error), np.median(error), np.mean(error <= 12), np.mean(error <= 24)]
            for guess, error in zip(guesses, guessed, strict=True)
        }
        middle = of["middle"][0]
        # A resample whose snippets all lie in the middle has no ratio.
        ratios = [of[guess][0] / middle if middle > 0 else np.nan for guess in ("model", "profile")]
        return np.asarray([*np.ravel(list(of.values())), *ratios])

    found = bootstrap.row_interval(scores, list(errors.values()))
    entries = [found.entry(place) for place in range(found.estimate.size)]
    record: dict[str, Any] = {"snippets": len(errors["model"]), "patients": len(set(bootstrap.patients))}
    for place, guess in enumerate(guesses):
        record[guess] = dict(zip(names, entries[4 * place : 4 * place + 4], strict=True))
    record["mae_of_middle"], record["profile_mae_of_middle"] = entries[-2:]
    return record


def _weighted_median(values: FloatArray, weights: FloatArray) -> float:
    """The value at which the cumulative weight reaches one half; the lower one of a tie. NaN values do not count."""
    order = np.argsort(values)[: np.count_nonzero(~np.isnan(values))]
    share = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(share, share[-1] / 2 - 1e-12)])
