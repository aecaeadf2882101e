"""Named statistics with intervals, of a model or the difference of two. Shapes: R resamples, S scans, M statistics."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from bundle.ctfindings.metrics.bootstrap import Bootstrap, WeightStatistic
from bundle.ctfindings.metrics.classification import FloatArray
from bundle.ctfindings.metrics.json_numbers import number


@dataclass(frozen=True)
class StatisticGroup:
    """Statistics that are computed together."""

    names: tuple[str, ...]  # Names of the statistics, M
    statistic: WeightStatistic  # Scan weights [R, S] to values [R, M]


def group_record(group: StatisticGroup, bootstrap: Bootstrap) -> dict[str, Any]:
    """Each statistic under its name and its limits under ``<name>_interval``; None where not defined.

    A dot in a name makes a nested record: ``cross_anatomy.mean`` is ``mean`` in ``cross_anatomy``.
    """
    interval = bootstrap.interval(group.statistic)
    record: dict[str, Any] = {}
    for column, name in enumerate(group.names):
        *path, last = name.split(".")
        place = record
        for part in path:
            place = place.setdefault(part, {})
        place[last] = number(interval.estimate[column])
        place[f"{last}_interval"] = interval.limits(column)
    return record


def compare_groups(
    first: Mapping[str, StatisticGroup], second: Mapping[str, StatisticGroup], bootstrap: Bootstrap
) -> list[dict[str, Any]]:
    """Rows ``section, statistic, first, second, difference, interval`` of the statistics that both models have.

    The difference is first - second. Both models see the same resamples, so the variation they share cancels. Groups
    are given by name, the ``section`` of a row.
    """
    rows = []
    for name in first:
        if name not in second or first[name].names != second[name].names:
            continue
        one, two = first[name].statistic, second[name].statistic
        held = bootstrap.interval(partial(_with_difference, one, two))
        rows += [
            {
                "section": name,
                "statistic": statistic,
                "first": number(held.estimate[0, column]),
                "second": number(held.estimate[1, column]),
                "difference": number(held.estimate[2, column]),
                "interval": held.limits(2, column),
            }
            for column, statistic in enumerate(first[name].names)
        ]
    return rows


def _with_difference(first: WeightStatistic, second: WeightStatistic, weights: FloatArray) -> FloatArray:
    one, two = first(weights), second(weights)
    return np.stack([one, two, one - two], axis=1)
