"""Spread of AUC and F1 over templates or perturbations. Shapes: R resamples, S scans, T wordings, C findings."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bundle.ctfindings.metrics.bootstrap import Bootstrap, weighted_auc
from bundle.ctfindings.metrics.classification import FloatArray, IntArray, macro_averages
from bundle.ctfindings.metrics.statistic_groups import StatisticGroup, group_record

SPREAD: tuple[str, ...] = ("mean", "sd", "range", "finding_sd")
"""Mean, SD (n - 1) and range of the macro AUC over the wordings; mean over the findings of the SD of their AUC."""


def auc_by_wording(scores: ArrayLike, labels: ArrayLike, weights: FloatArray) -> FloatArray:
    """ROC-AUC [R, T, C] of scores [S, T, C], labels [S, C] and scan weights [R, S]; NaN where a class has no weight."""
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 3 or (array.shape[0], array.shape[2]) != np.shape(labels) or not array.shape[1]:
        raise ValueError(f"scores by wording have shape {array.shape}; [scans, wordings, findings] is expected")
    return np.stack([weighted_auc(array[:, wording], labels, weights) for wording in range(array.shape[1])], axis=1)


def spread_statistics(auc: FloatArray) -> FloatArray:
    """Macro AUC of each wording, then `SPREAD`, [R, T + 4], from the AUC of `auc_by_wording`, [R, T, C].

    A finding counts in the mean of a resample if its AUC is defined there.
    """
    macro = macro_averages(auc, axis=2)
    of_findings = macro_averages(sd_over_wordings(auc), axis=1)
    spread = [macro.mean(axis=1), sd_over_wordings(macro), macro.max(axis=1) - macro.min(axis=1), of_findings]
    return np.concatenate([macro, np.stack(spread, axis=1)], axis=1)


def f1_by_wording(present: ArrayLike, labels: ArrayLike, weights: FloatArray) -> FloatArray:
    """Macro F1 [R, T] of decisions [S, T, C]; a finding that is neither present nor called is left out of the mean."""
    decided, truth = np.asarray(present, dtype=bool), np.asarray(labels)[:, None]
    shape = (len(weights), *decided.shape[1:])
    right, wrong, missed = (
        (weights @ outcome.reshape(len(decided), -1)).reshape(shape)
        for outcome in (decided & (truth == 1), decided & (truth == 0), ~decided & (truth == 1))
    )
    with np.errstate(invalid="ignore"):
        return macro_averages(2 * right / (2 * right + wrong + missed), axis=2)


def auc_group(scores: ArrayLike, labels: ArrayLike, names: Sequence[str]) -> StatisticGroup:
    """Macro AUC of each wording as ``auc.<name>``, and `SPREAD`; arguments as for `auc_by_wording`."""
    return StatisticGroup(
        (*(f"auc.{name}" for name in names), *SPREAD),
        lambda weights: spread_statistics(auc_by_wording(scores, labels, weights)),
    )


def f1_group(present: ArrayLike, labels: ArrayLike) -> StatisticGroup:
    """Mean, SD (n - 1) and range of the macro F1 over the wordings; arguments as for `f1_by_wording`."""

    def statistic(weights: FloatArray) -> FloatArray:
        f1 = f1_by_wording(present, labels, weights)
        return np.stack([f1.mean(axis=1), sd_over_wordings(f1), f1.max(axis=1) - f1.min(axis=1)], axis=1)

    return StatisticGroup(("mean", "sd", "range"), statistic)


def mean_group(values: ArrayLike, scan: IntArray, names: Sequence[str]) -> StatisticGroup:
    """Weighted mean of each named column of values [Q, M], such as the hits of queries; `scan` of each row, [Q]."""
    array = np.asarray(values, dtype=np.float64)
    return StatisticGroup(
        tuple(names), lambda weights: weights[:, scan] @ array / weights[:, scan].sum(axis=1, keepdims=True)
    )


def spread_record(scores: ArrayLike, labels: ArrayLike, names: Sequence[str], bootstrap: Bootstrap) -> dict[str, Any]:
    """`auc_group` for JSON: ``ids``, ``macro_auc`` and `SPREAD`, with intervals."""
    record = group_record(auc_group(scores, labels, names), bootstrap)
    auc = record.pop("auc")
    return {
        "ids": list(names),
        "macro_auc": [auc[name] for name in names],
        "macro_auc_interval": [auc[f"{name}_interval"] for name in names],
        **record,
    }


def sd_over_wordings(values: FloatArray) -> FloatArray:
    """SD (n - 1) over axis 1, [R, T, ...] to [R, ...]; NaN with one wording."""
    if values.shape[1] < 2:
        return np.full((values.shape[0], *values.shape[2:]), np.nan)
    return values.std(axis=1, ddof=1)
