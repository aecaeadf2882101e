"""Percentile bootstrap by patient: intervals of any statistic, with a fast path for the ROC-AUC.

Patients are drawn with replacement, and every scan of a drawn patient comes along, so that two reconstructions of one
examination do not count as two independent observations. Shapes: R resamples, S scans, C findings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bundle.ctfindings.metrics.classification import FloatArray, IntArray, check_scores, finding_auc, macro_average

Statistic = Callable[..., ArrayLike]
WeightStatistic = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class Interval:
    """An estimate on the full sample with the limits of its bootstrap interval; arrays of one shape (0-d for a scalar)."""

    estimate: FloatArray
    low: FloatArray
    high: FloatArray


def resample_weights(patients: Sequence[str], resamples: int = 1000, seed: int = 42) -> IntArray:
    """How often each scan occurs in each bootstrap resample of the patients, [R, S].

    Args:
        patients: the patient of each scan, S identifiers.
        resamples: number of resamples R.
        seed: of the random generator.

    Raises:
        ValueError: there are fewer than two patients, so nothing varies.
    """
    names, patient_of_scan = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    if names.size < 2:
        raise ValueError(f"a bootstrap by patient needs at least 2 patients; got {names.size}")
    draws = np.random.default_rng(seed).integers(0, names.size, size=(resamples, names.size))
    cells = draws + names.size * np.arange(resamples)[:, None]
    counts = np.bincount(cells.ravel(), minlength=resamples * names.size).reshape(resamples, names.size)
    return counts[:, patient_of_scan]


def bootstrap_interval(
    statistic: Statistic,
    arrays: Sequence[ArrayLike],
    patients: Sequence[str],
    resamples: int = 1000,
    seed: int = 42,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of ``statistic(*arrays)`` over resamples of the patients.

    Args:
        statistic: called with the rows of each array that a resample draws; returns a number or an array.
        arrays: arrays whose first axis is the scans, [S, ...].
        patients: the patient of each scan, S identifiers.
        resamples: number of resamples R.
        seed: of the random generator.
        level: coverage of the interval, between 0 and 1.

    Returns:
        Estimate and limits in the shape of the statistic. Resamples in which it is NaN are left out.

    Raises:
        ValueError: an array does not have one row per scan, or there are fewer than two patients.
    """
    rows = _check_rows(arrays, patients)
    weights = resample_weights(patients, resamples, seed)
    scans = np.arange(len(patients))
    values = np.stack(
        [
            np.asarray(statistic(*(array[np.repeat(scans, weight)] for array in rows)), dtype=np.float64)
            for weight in weights
        ]
    )
    return _percentile_interval(np.asarray(statistic(*rows), dtype=np.float64), values, level)


def weight_bootstrap_interval(
    statistic: WeightStatistic, patients: Sequence[str], resamples: int = 1000, seed: int = 42, level: float = 0.95
) -> Interval:
    """Percentile interval of a statistic that takes weights of the scans instead of resampled rows.

    For statistics over pairs (cosines of all captions), where repeating rows would cost the square of their number in
    every resample. The difference of two models is the statistic ``lambda weights: first(weights) - second(weights)``:
    both see the same resamples.

    Args:
        statistic: weights of the scans [R, S], not negative, to one value or array of values per resample, [R, ...].
        patients: the patient of each scan, S identifiers.
        resamples: number of resamples R.
        seed: of the random generator.
        level: coverage of the interval, between 0 and 1.

    Returns:
        The statistic at weight 1 of every scan, and its limits. Resamples in which it is NaN are left out.
    """
    estimate = statistic(np.ones((1, len(patients))))[0]
    values = statistic(resample_weights(patients, resamples, seed).astype(np.float64))
    return _percentile_interval(np.asarray(estimate, dtype=np.float64), values, level)


@dataclass(frozen=True)
class AucIntervals:
    """Intervals of the ROC-AUC of each finding, [C], and of their mean over the findings, 0-d."""

    findings: Interval
    macro: Interval


def bootstrap_auc(
    probabilities: ArrayLike,
    labels: ArrayLike,
    patients: Sequence[str],
    resamples: int = 1000,
    seed: int = 42,
    level: float = 0.95,
) -> AucIntervals:
    """`bootstrap_interval` of `finding_auc` and `macro_auc`, computed on weighted ranks for all resamples at once.

    Where a resample holds one class only, the finding has no AUC in it and is left out of that resample's mean.

    Args:
        probabilities: scores [S, C].
        labels: 1, 0 or -1, [S, C].
        patients: the patient of each scan, S identifiers.
        resamples: number of resamples R.
        seed: of the random generator.
        level: coverage of the interval, between 0 and 1.
    """
    scores, truth = check_scores(probabilities, labels)
    _check_rows([scores], patients)
    values = weighted_auc(scores, truth, resample_weights(patients, resamples, seed))
    return _auc_intervals(finding_auc(scores, truth), values, level)


def paired_bootstrap_auc(
    first: ArrayLike,
    second: ArrayLike,
    labels: ArrayLike,
    patients: Sequence[str],
    resamples: int = 1000,
    seed: int = 42,
    level: float = 0.95,
) -> AucIntervals:
    """Intervals of AUC(first) - AUC(second), per finding and as the difference of the means, over shared resamples.

    Args:
        first: scores of one model [S, C].
        second: scores of the other model on the same scans [S, C].

    The other arguments are those of `bootstrap_auc`.
    """
    scores_first, truth = check_scores(first, labels)
    scores_second, _ = check_scores(second, labels)
    _check_rows([scores_first], patients)
    weights = resample_weights(patients, resamples, seed)
    values = weighted_auc(scores_first, truth, weights) - weighted_auc(scores_second, truth, weights)
    return _auc_intervals(finding_auc(scores_first, truth) - finding_auc(scores_second, truth), values, level)


def weighted_auc(probabilities: ArrayLike, labels: ArrayLike, weights: ArrayLike) -> FloatArray:
    """ROC-AUC of every finding under every set of scan weights, [R, C]; NaN where a class has no weight.

    It is the Mann-Whitney statistic: the weight of the (positive, negative) pairs in the right order, ties counting
    half.

    Args:
        probabilities: scores [S, C].
        labels: 1, 0 or -1, [S, C].
        weights: non-negative weight of each scan in each resample, [R, S].
    """
    scores, truth = check_scores(probabilities, labels)
    weight = np.asarray(weights, dtype=np.float64)
    result = np.full((weight.shape[0], scores.shape[1]), np.nan)
    for finding in range(scores.shape[1]):
        rows = np.flatnonzero(truth[:, finding] >= 0)
        if not rows.size:
            continue
        order = rows[np.argsort(scores[rows, finding], kind="stable")]
        ordered = scores[order, finding]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        positive = np.add.reduceat(weight[:, order] * (truth[order, finding] == 1), starts, axis=1)
        negative = np.add.reduceat(weight[:, order] * (truth[order, finding] == 0), starts, axis=1)
        below = np.cumsum(negative, axis=1) - negative / 2
        pairs = positive.sum(axis=1) * negative.sum(axis=1)
        np.divide((positive * below).sum(axis=1), pairs, out=result[:, finding], where=pairs > 0)
    return result


def _auc_intervals(estimate: FloatArray, values: FloatArray, level: float) -> AucIntervals:
    macro = np.asarray(macro_average(estimate))
    return AucIntervals(
        findings=_percentile_interval(estimate, values, level),
        macro=_percentile_interval(macro, np.asarray([macro_average(row) for row in values]), level),
    )


def _percentile_interval(estimate: FloatArray, values: FloatArray, level: float) -> Interval:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1; got {level}")
    tail = 50 * (1 - level)
    flat = values.reshape(len(values), -1)
    limits = np.full((2, flat.shape[1]), np.nan)
    for column in np.flatnonzero(~np.isnan(flat).all(axis=0)):
        limits[:, column] = np.nanpercentile(flat[:, column], [tail, 100 - tail])
    return Interval(estimate, limits[0].reshape(estimate.shape), limits[1].reshape(estimate.shape))


def _check_rows(arrays: Sequence[ArrayLike], patients: Sequence[str]) -> list[NDArray[np.generic]]:
    rows = [np.asarray(array) for array in arrays]
    for array in rows:
        if array.ndim == 0 or len(array) != len(patients):
            raise ValueError(
                f"an array of shape {array.shape} does not have one row for each of the {len(patients)} scans"
            )
    return rows
