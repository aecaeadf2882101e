"""Numbers of a task in ``metrics.json``, its tables and its figure: intervals by patient, and by seed.

Shapes: R resamples, S scans, C classes.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from scipy.stats import t as student_t

from bundle.ctfindings.evaluation.plots import BLUE, GREY, RED, write_figure
from bundle.ctfindings.metrics.bootstrap import LEVEL, Bootstrap, exact_at_ends
from bundle.ctfindings.metrics.classification import FloatArray, IntArray, macro_average, macro_averages
from bundle.ctfindings.metrics.json_numbers import interval_numbers, number


def seed_entry(values: Sequence[float]) -> dict[str, Any]:
    """The values of the draws, and Student's t interval of their mean; null for one draw, or for undefined values."""
    entry: dict[str, Any] = {"values": [number(value) for value in values], "interval": [None, None]}
    if len(values) > 1 and np.isfinite(values).all():
        half = student_t.ppf((1 + LEVEL) / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
        entry["interval"] = interval_numbers(np.mean(values) - half, np.mean(values) + half)
    return entry


def scan_means(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Mean over scans of values ``[S, C]`` under weights ``[R, S]``, ``[R, C]``; NaN values do not count."""
    known = ~np.isnan(values)
    total = weights @ known
    return np.divide(weights @ np.where(known, values, 0.0), total, out=np.full(total.shape, np.nan), where=total > 0)


def drawn_metric(
    draws: Sequence[Callable[[FloatArray], FloatArray]],
    names: Sequence[str],
    bootstrap: Bootstrap,
    trials: IntArray | None = None,
) -> dict[str, Any]:
    """The mean over draws of a metric: ``macro`` over its classes, and ``classes``, with intervals by patient and seed.

    Args:
        draws: for each draw, the metric of each class from scan weights, ``[R, S]`` to ``[R, C]``.
        names: names of the classes; one that is not defined in a resample is left out of the macro average of it.
        bootstrap: resamples of the scans.
        trials: of each class, for the exact limit of a value of 0 or 1, see ``exact_at_ends``.
    """

    def mean(weights: FloatArray) -> FloatArray:
        return np.mean([draw(weights) for draw in draws], axis=0)

    every = np.ones((1, len(bootstrap.patients)))
    single = [draw(every)[0] for draw in draws]
    classes = bootstrap.interval(mean)
    macro = bootstrap.interval(lambda weights: macro_averages(mean(weights)))
    if trials is not None:
        classes, macro = exact_at_ends(classes, trials), exact_at_ends(macro, trials.min())
    return {
        "macro": macro.entry() | {"by_seed": seed_entry([macro_average(values) for values in single])},
        "classes": {
            name: classes.entry(place) | {"by_seed": seed_entry([float(values[place]) for values in single])}
            for place, name in enumerate(names)
        },
    }


def format_value(entry: Mapping[str, Any] | None) -> str:
    """Value and interval by patient of an entry for a table."""
    if entry is None or entry["value"] is None:
        return "-"
    low, high = entry["interval"]
    return f"{entry['value']:.3f}" + ("" if low is None or high is None else f" ({low:.3f} to {high:.3f})")


def format_seeds(entry: Mapping[str, Any]) -> str:
    """The values of the draws of an entry, and their interval, for a table."""
    values = ", ".join("-" if value is None else f"{value:.3f}" for value in entry["values"])
    low, high = entry["interval"]
    return values if low is None else f"{values} ({low:.3f} to {high:.3f})"


def plot_by_fraction(
    path: Path, by_fraction: Mapping[str, Mapping[str, Any]], ylabel: str, label: str, line: tuple[str, float] | None
) -> None:
    """A metric by fraction with its interval by patient, the draws as points, and a value to compare with as a line."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    value: ArrayLike = np.array([entry["value"] for entry in by_fraction.values()], dtype=float)
    limits = np.array([entry["interval"] for entry in by_fraction.values()], dtype=float).T
    axes.errorbar(range(len(by_fraction)), value, np.abs(limits - value), fmt="o-", color=BLUE, capsize=4, label=label)
    for place, entry in enumerate(by_fraction.values()):
        drawn = np.array(entry["by_seed"]["values"], dtype=float)
        axes.plot([place] * len(drawn), drawn, "x", color=GREY, label="draws" if place == 0 else None)
    if line is not None:
        axes.axhline(line[1], color=RED, linestyle="--", label=line[0])
    axes.set_xticks(range(len(by_fraction)), [f"{name} %" for name in by_fraction])
    axes.set_xlabel("training patients with labels")
    axes.set_ylabel(ylabel)
    axes.legend(frameon=False)
    write_figure(figure, path)
