"""Named statistics with their intervals, of one model or of the difference of two on the same scans.

Shapes: R resamples, S scans, M statistics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bundle.ctfindings.metrics.bootstrap import WeightStatistic, weight_bootstrap_interval
from bundle.ctfindings.metrics.classification import FloatArray
from bundle.ctfindings.metrics.json_numbers import interval_numbers, number


@dataclass(frozen=True)
class Section:
    """Statistics that are computed together.

    Attributes:
        names: of the statistics, M.
        statistic: weights of the scans [R, S] to values [R, M].
    """

    names: tuple[str, ...]
    statistic: WeightStatistic


def section_record(
    section: Section, patients: Sequence[str], resamples: int = 1000, seed: int = 42, level: float = 0.95
) -> dict[str, Any]:
    """Each statistic under its name and its limits under ``<name>_interval``, with None for what is not defined.

    A dot in a name makes a nested record: ``cross_anatomy.mean`` is ``mean`` in ``cross_anatomy``. Arguments as for
    `weight_bootstrap_interval`.
    """
    interval = weight_bootstrap_interval(section.statistic, patients, resamples, seed, level)
    record: dict[str, Any] = {}
    for column, name in enumerate(section.names):
        *path, last = name.split(".")
        place = record
        for part in path:
            place = place.setdefault(part, {})
        place[last] = number(interval.estimate[column])
        place[f"{last}_interval"] = interval_numbers(interval.low[column], interval.high[column])
    return record


def compare_sections(
    first: Mapping[str, Section],
    second: Mapping[str, Section],
    patients: Sequence[str],
    resamples: int = 1000,
    seed: int = 42,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """Rows ``section, statistic, first, second, difference, interval`` of the statistics both models have; difference
    is first - second.

    Both models see the same resamples of the patients, so the variation they share cancels.

    Args:
        first: sections of one model by name.
        second: sections of the other model on the same scans.

    The other arguments are those of `weight_bootstrap_interval`.
    """
    rows = []
    for name in first:
        if name not in second or first[name].names != second[name].names:
            continue
        one, two = first[name].statistic, second[name].statistic
        held = weight_bootstrap_interval(_all_three(one, two), patients, resamples, seed, level)
        rows += [
            {
                "section": name,
                "statistic": statistic,
                "first": number(held.estimate[0, column]),
                "second": number(held.estimate[1, column]),
                "difference": number(held.estimate[2, column]),
                "interval": interval_numbers(held.low[2, column], held.high[2, column]),
            }
            for column, statistic in enumerate(first[name].names)
        ]
    return rows


def _all_three(first: WeightStatistic, second: WeightStatistic) -> WeightStatistic:
    def statistic(weights: FloatArray) -> FloatArray:
        one, two = first(weights), second(weights)
        return np.stack([one, two, one - two], axis=1)

    return statistic
