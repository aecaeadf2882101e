"""Subsets of training studies at fractions of the labels: nested, stratified by finding, whole patients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

CANDIDATES = 50
"""Largest number of patients that are compared at each step of the draw; of few patients, a fifth."""


def label_fractions(studies: Sequence[dict[str, Any]], percents: Sequence[float], seed: int) -> dict[float, list[int]]:
    """Indices of the studies in the subset of each percentage; a smaller subset lies in every larger one.

    Patients are put in an order in which every prefix has about the prevalence of each finding that all studies have:
    the next one is the best of up to ``CANDIDATES`` that are drawn at random. A subset is a prefix.

    Raises:
        ValueError: a percentage is not in (0, 100].
    """
    if wrong := [percent for percent in percents if not 0 < percent <= 100]:
        raise ValueError(f"fractions: expected percentages above 0 and up to 100, got {wrong[0]}")
    order = _balanced_order(studies, np.random.default_rng(seed))
    counts = {percent: max(1, round(len(order) * percent / 100)) for percent in percents}
    return {
        percent: sorted(index for patient in order[:count] for index in patient) for percent, count in counts.items()
    }


def _balanced_order(studies: Sequence[dict[str, Any]], random: np.random.Generator) -> list[list[int]]:
    """The studies of each patient, patients in the order in which they are drawn."""
    patients: dict[str, list[int]] = {}
    for index, study in enumerate(studies):
        patients.setdefault(study["patient"], []).append(index)
    positive = np.stack([np.asarray(study["labels"]) == 1 for study in studies]).astype(float)
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
