"""Statistics of a variant over its seeds, with intervals that draw patients and seeds.

Shapes: R resamples, S scans, M statistics.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import t as student

from bundle.ctfindings.metrics.bootstrap import LEVEL, Bootstrap
from bundle.ctfindings.metrics.classification import FloatArray
from bundle.ctfindings.metrics.json_numbers import number
from bundle.ctfindings.metrics.statistic_groups import StatisticGroup, group_record


def variant_record(
    title: str, runs: Mapping[int, StatisticGroup], mean: StatisticGroup, bootstrap: Bootstrap
) -> dict[str, Any]:
    """A variant in ``results.json``: the values of each seed, their SD, and their mean (``mean_over_seeds``)."""
    values = {str(run): _values(group, len(bootstrap.patients)) for run, group in runs.items()}
    return {
        "title": title,
        "seeds": values,
        "sd_over_seeds": _sd_over_seeds(list(values.values())),
        "mean": group_record(mean, bootstrap),
    }


def mean_over_seeds(runs: Sequence[StatisticGroup]) -> StatisticGroup:
    """The mean over the runs; over as many runs drawn with replacement where the patients are drawn too."""

    def statistic(weights: FloatArray) -> FloatArray:
        values = np.stack([run.statistic(weights) for run in runs])
        if len(weights) == 1:
            return np.asarray(values.mean(axis=0))
        drawn = np.random.default_rng(0).integers(len(runs), size=(len(runs), len(weights)))
        return np.asarray(values[drawn, np.arange(len(weights))].mean(axis=0))

    return StatisticGroup(runs[0].names, _remembered(statistic))


def difference(first: StatisticGroup, second: StatisticGroup) -> StatisticGroup:
    """First minus second, on the same resamples."""
    return StatisticGroup(first.names, lambda weights: first.statistic(weights) - second.statistic(weights))


def seed_interval(
    first: Mapping[str, Mapping[str, float | None]], second: Mapping[str, Mapping[str, float | None]], name: str
) -> tuple[float, float] | None:
    """Student's t interval of the mean difference of a measure over the seeds that two variants have in common.

    Args:
        first, second: Values of each seed, ``seeds`` of ``variant_record``.
        name: The measure.

    Returns:
        The limits; None with fewer than two seeds.
    """
    pairs = [(first[seed][name], second[seed][name]) for seed in first if seed in second]
    gaps = np.array([one - other for one, other in pairs if one is not None and other is not None])
    if len(gaps) < 2:
        return None
    half = float(student.ppf((1 + LEVEL) / 2, len(gaps) - 1) * gaps.std(ddof=1) / np.sqrt(len(gaps)))
    return float(gaps.mean()) - half, float(gaps.mean()) + half


def _remembered(statistic: Callable[[FloatArray], FloatArray]) -> Callable[[FloatArray], FloatArray]:
    """Keeps the values by the shape and content of the weights: every comparison draws the same resamples."""
    kept: dict[tuple[tuple[int, ...], bytes], FloatArray] = {}

    def remember(weights: FloatArray) -> FloatArray:
        key = (weights.shape, weights.tobytes())
        if key not in kept:
            kept[key] = statistic(weights)
        return kept[key]

    return remember


def _values(group: StatisticGroup, scans: int) -> dict[str, float | None]:
    values = group.statistic(np.ones((1, scans)))[0]
    return {name: number(value) for name, value in zip(group.names, values, strict=True)}


def _sd_over_seeds(values: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """SD (n - 1) over the seeds of each measure; None with one seed."""
    spread: dict[str, float | None] = {}
    for name in values[0]:
        known = [value[name] for value in values if value[name] is not None]
        spread[name] = float(np.std(np.asarray(known, dtype=np.float64), ddof=1)) if len(known) > 1 else None
    return spread
