"""Subsets of training studies at fractions of the labels: nested, stratified by finding, whole patients."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.ctfindings.data.datalist import label_rows

Subsets = dict[tuple[float, int], list[int]]
"""Indices of training studies by percentage and seed."""

CANDIDATES = 50
"""Largest number of patients that are compared at each step of the draw; of few patients, a fifth."""


def label_fractions(studies: Sequence[dict[str, Any]], percents: Sequence[float], seed: int) -> dict[float, list[int]]:
    """Indices of the studies in the subset of each percentage; a smaller subset lies in every larger one.

    Patients are put in an order in which every prefix has about the prevalence of each finding that all studies have:
    the next one is the best of up to ``CANDIDATES`` that are drawn at random. A subset is a prefix. ValueError if a
    percentage is not in (0, 100].
    """
    if wrong := [percent for percent in percents if not 0 < percent <= 100]:
        raise ValueError(f"fractions: expected percentages above 0 and up to 100, got {wrong[0]}")
    order = _balanced_order(studies, np.random.default_rng(seed))
    counts = {percent: max(1, round(len(order) * percent / 100)) for percent in percents}
    return {
        percent: sorted(index for patient in order[:count] for index in patient) for percent, count in counts.items()
    }


def draw_subsets(
    studies: Sequence[dict[str, Any]], percents: Sequence[float], seeds: Sequence[int], repeat_all: bool = False
) -> Subsets:
    """``label_fractions`` for each seed; all studies occur once, or once a seed if training itself is random.

    ValueError if there is no percentage or no seed, or a percentage is not in (0, 100].
    """
    for option, given in (("fractions", percents), ("subset_seeds", seeds)):
        if not given:
            raise ValueError(f"{option}: expected at least one, got none")
    drawn = {seed: label_fractions(studies, percents, seed) for seed in seeds}
    return {
        (percent, seed): drawn[seed][percent]
        for percent in sorted(percents)
        for seed in (seeds if repeat_all or percent < 100 else seeds[:1])
    }


def subset_rows(subsets: Subsets) -> list[dict[str, Any]]:
    """Percentage, seed and number of scans of each subset, for ``metrics.json``."""
    return [{"percent": p, "seed": seed, "scans": len(drawn)} for (p, seed), drawn in subsets.items()]


def usable_classes(
    task: str, subsets: Subsets, known: Mapping[tuple[float, int], NDArray[np.bool_]], names: Sequence[str], need: str
) -> tuple[NDArray[np.bool_], list[str]]:
    """The classes that every subset can teach, bool ``[C]``, and a line for each subset that lacks some.

    Args:
        task: name of the task, for its messages.
        subsets: from ``draw_subsets``.
        known: classes that each subset can teach, bool ``[C]``.
        names: names of the classes.
        need: what a class needs, such as "a positive scan".

    Raises:
        ValueError: no class remains.
    """
    lines, usable = [], np.ones(len(names), dtype=bool)
    for drawn, subset in subsets.items():
        where = f"{drawn[0]:g} % of the labels (seed {drawn[1]}, {len(subset)} scans)"
        if not known[drawn].any():
            raise ValueError(f"{task}: {where} leave no class with {need}; use larger fractions")
        if missing := [name for name, here in zip(names, known[drawn], strict=True) if not here]:
            lines.append(f"{where}: without {need}: {', '.join(missing)}; left out at every fraction")
        usable &= known[drawn]
    if not usable.any():
        raise ValueError(f"{task}: no class has {need} in every subset; use larger fractions")
    return usable, lines


def _balanced_order(studies: Sequence[dict[str, Any]], random: np.random.Generator) -> list[list[int]]:
    """The studies of each patient, patients in the order in which they are drawn."""
    patients: dict[str, list[int]] = {}
    for index, study in enumerate(studies):
        patients.setdefault(study["patient"], []).append(index)
    positive = (label_rows(studies) == 1).astype(float)
    groups = list(patients.values())
    found = np.stack([positive[group].sum(axis=0) for group in groups])
    sizes = np.array([len(group) for group in groups], dtype=float)
    prevalence = positive.mean(axis=0)
    remaining = list(random.permutation(len(groups)))
    candidates = min(CANDIDATES, 1 + len(groups) // 5)
    order, drawn, scans = [], np.zeros(positive.shape[1]), 0.0
    while remaining:
        near = np.array(remaining[:candidates])
        expected = prevalence * (scans + sizes[near])[:, None]
        excess = (drawn + found[near] - expected) ** 2 / np.maximum(prevalence, 1e-9)
        place = int(excess.sum(axis=1).argmin())
        patient = remaining.pop(place)
        order.append(groups[patient])
        drawn, scans = drawn + found[patient], scans + sizes[patient]
        # The others of this step are not always the first ones of the next.
        shift = min(len(remaining), candidates - 1)
        remaining = remaining[shift:] + remaining[:shift]
    return order
