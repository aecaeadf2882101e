"""Percentile bootstrap by patient: 95 % intervals of any statistic, with a fast path for the ROC-AUC.

Patients are drawn with replacement together with all of their scans, so two reconstructions of one examination do not
count as two independent observations. Shapes: R resamples, S scans, C findings.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from bundle.ctfindings.metrics.classification import (
    FloatArray,
    IntArray,
    check_scores,
    finding_auc,
    macro_average,
    macro_averages,
)
from bundle.ctfindings.metrics.json_numbers import interval_numbers, number

LEVEL = 0.95  # Coverage of every interval

WeightStatistic = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class Interval:
    """An estimate on all scans and the limits of its interval; arrays of one shape (0-d for a scalar)."""

    estimate: FloatArray
    low: FloatArray
    high: FloatArray

    def limits(self, *place: int) -> list[float | None]:
        """Both limits at an index for a JSON record, None where they are not defined."""
        return interval_numbers(self.low[place], self.high[place])

    def entry(self, *place: int) -> dict[str, Any]:
        """Value and interval at an index for a JSON record."""
        return {"value": number(float(self.estimate[place])), "interval": self.limits(*place)}


@dataclass(frozen=True)
class AucIntervals:
    """Intervals of the ROC-AUC of each finding, [C], and of the mean over the findings, 0-d."""

    findings: Interval
    macro: Interval


@dataclass(frozen=True)
class Bootstrap:
    """Resamples of the patients of a set of scans; a statistic that is NaN in a resample leaves that resample out."""

    patients: Sequence[str]  # The patient of each scan, S
    resamples: int = 1000  # R
    seed: int = 42

    @cached_property
    def weights(self) -> IntArray:
        """How often each scan occurs in each resample, [R, S]. ValueError if there are fewer than two patients."""
        names, patient_of_scan = np.unique(np.asarray(self.patients, dtype=str), return_inverse=True)
        if names.size < 2:
            raise ValueError(f"a bootstrap by patient needs at least 2 patients; got {names.size}")
        draws = np.random.default_rng(self.seed).integers(0, names.size, size=(self.resamples, names.size))
        cells = draws + names.size * np.arange(self.resamples)[:, None]
        counts = np.bincount(cells.ravel(), minlength=self.resamples * names.size)
        return counts.reshape(self.resamples, names.size)[:, patient_of_scan]

    def of(self, scans: Sequence[int] | IntArray) -> Self:
        """The bootstrap of some of the scans, given by index; an index may occur more than once."""
        return replace(self, patients=[self.patients[scan] for scan in scans])

    def settings(self) -> dict[str, Any]:
        """The settings for a JSON record."""
        names = {"unit": "patient", "method": "percentile"}
        return {**names, "resamples": self.resamples, "seed": self.seed, "level": LEVEL}

    def interval(self, statistic: WeightStatistic) -> Interval:
        """Interval of a statistic of non-negative scan weights: [R, S] to one value or array a resample, [R, ...].

        Weights avoid repeated rows in statistics over pairs of texts, and two models can share them: the interval of a
        difference is that of ``lambda weights: first(weights) - second(weights)``.
        """
        estimate = statistic(np.ones((1, len(self.patients))))[0]
        values = statistic(self.weights.astype(np.float64))
        return _percentile_interval(np.asarray(estimate, dtype=np.float64), values)

    def row_interval(self, statistic: Callable[..., ArrayLike], arrays: Sequence[ArrayLike]) -> Interval:
        """Interval of the number or array ``statistic(*arrays)``, with the resampled rows of each array [S, ...].

        ValueError if an array does not have one row per scan.
        """
        rows = [np.asarray(array) for array in arrays]
        self._check_rows(*rows)
        drawn = [np.repeat(np.arange(len(self.patients)), weight) for weight in self.weights]
        values = [np.asarray(statistic(*(array[scans] for array in rows)), dtype=np.float64) for scans in drawn]
        return _percentile_interval(np.asarray(statistic(*rows), dtype=np.float64), np.stack(values))

    def auc(self, scores: ArrayLike, labels: ArrayLike) -> AucIntervals:
        """Intervals of the AUC of scores [S, C]; the mean of a resample is over its findings with both classes.

        An AUC of 0 or 1 is the same in every resample. Its interval has the exact (Clopper-Pearson) limit instead: with
        n patients in the smaller class, n independent pairs of a positive and a negative are all in the same order.
        """
        self._check_rows(np.asarray(scores))
        found = _auc_intervals(finding_auc(scores, labels), weighted_auc(scores, labels, self.weights))
        return replace(found, findings=exact_at_ends(found.findings, self.smaller_class(labels)))

    def smaller_class(self, labels: ArrayLike) -> IntArray:
        """How many patients the smaller class of each finding has, from labels 1, 0 or -1 [S, C]; [C]."""
        patients, truth = np.asarray(self.patients, dtype=str), np.asarray(labels)
        columns = range(truth.shape[1])
        return np.array(
            [min(np.unique(patients[truth[:, column] == label]).size for label in (0, 1)) for column in columns]
        )

    def auc_difference(self, first: ArrayLike, second: ArrayLike, labels: ArrayLike) -> AucIntervals:
        """Intervals of AUC(first) - AUC(second) of the scores of two models, [S, C]; both see the same resamples."""
        self._check_rows(np.asarray(first), np.asarray(second))
        one, two = (weighted_auc(scores, labels, self.weights) for scores in (first, second))
        return _auc_intervals(finding_auc(first, labels) - finding_auc(second, labels), one - two)

    def _check_rows(self, *arrays: np.ndarray) -> None:
        for array in arrays:
            if array.ndim == 0 or len(array) != len(self.patients):
                raise ValueError(
                    f"an array of shape {array.shape} does not have one row for each of the {len(self.patients)} scans"
                )


def exact_at_ends(found: Interval, trials: ArrayLike) -> Interval:
    """The interval with the exact (Clopper-Pearson) limit where the estimate is 0 or 1, the same in every resample.

    ``trials`` are the independent trials of each estimate, all with the same result; 0 leaves its interval as it is.
    """
    counts = np.asarray(trials)
    limit = ((1 - LEVEL) / 2) ** (1 / np.maximum(counts, 1))
    low = np.where((found.estimate == 1) & (counts > 0), limit, found.low)
    high = np.where((found.estimate == 0) & (counts > 0), 1 - limit, found.high)
    return replace(found, low=low, high=high)


def weighted_auc(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike) -> FloatArray:
    """ROC-AUC of every finding under every set of scan weights, [R, C]; NaN where a class has no weight.

    The Mann-Whitney statistic: the weight of the correctly ordered (positive, negative) pairs; a tie counts half.
    Scores are [S, C], labels 1, 0 or -1, [S, C], and weights not negative, [R, S].
    """

    def auc(positive: FloatArray, negative: FloatArray) -> FloatArray:
        below = np.cumsum(negative, axis=1) - negative / 2
        return np.asarray((positive * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1)))

    return _by_score(auc, scores, labels, weights)


def weighted_average_precision(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike) -> FloatArray:
    """Average precision of every finding under every set of scan weights, [R, C]; NaN where a class has no weight.

    As in scikit-learn, the precision at each score is weighted with the recall that is gained there. For the shapes see
    ``weighted_auc``.
    """

    def precision(positive: FloatArray, negative: FloatArray) -> FloatArray:
        above, called = (np.cumsum(part[:, ::-1], axis=1)[:, ::-1] for part in (positive, positive + negative))
        at_score = np.divide(above, called, out=np.zeros_like(above), where=called > 0)
        return np.asarray((positive * at_score).sum(axis=1) / positive.sum(axis=1))

    return _by_score(precision, scores, labels, weights)


def _by_score(
    statistic: Callable[[FloatArray, FloatArray], FloatArray], scores: ArrayLike, labels: ArrayLike, weights: ArrayLike
) -> FloatArray:
    """A statistic of the weights of the positives and of the negatives at each score in rising order, [R, C]."""
    score, truth = check_scores(scores, labels)
    weight = np.asarray(weights, dtype=np.float64)
    result = np.full((weight.shape[0], score.shape[1]), np.nan)
    for finding in range(score.shape[1]):
        rows = np.flatnonzero(truth[:, finding] >= 0)
        if not rows.size:
            continue
        order = rows[np.argsort(score[rows, finding], kind="stable")]
        ordered = score[order, finding]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        positive = np.add.reduceat(weight[:, order] * (truth[order, finding] == 1), starts, axis=1)
        negative = np.add.reduceat(weight[:, order] * (truth[order, finding] == 0), starts, axis=1)
        both = (positive.sum(axis=1) > 0) & (negative.sum(axis=1) > 0)
        result[both, finding] = statistic(positive[both], negative[both])
    return result


def _auc_intervals(estimate: FloatArray, values: FloatArray) -> AucIntervals:
    macro = macro_averages(values)
    return AucIntervals(
        findings=_percentile_interval(estimate, values),
        macro=_percentile_interval(np.asarray(macro_average(estimate)), macro),
    )


def _percentile_interval(estimate: FloatArray, values: FloatArray) -> Interval:
    tail = 50 * (1 - LEVEL)
    flat = values.reshape(len(values), -1)
    limits = np.full((2, flat.shape[1]), np.nan)
    for column in np.flatnonzero(~np.isnan(flat).all(axis=0)):
        limits[:, column] = np.nanpercentile(flat[:, column], [tail, 100 - tail])
    return Interval(estimate, limits[0].reshape(estimate.shape), limits[1].reshape(estimate.shape))
