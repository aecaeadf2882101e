"""Results of the comparison: the score of each encoder in each task, and paired differences from the reference.

Shapes: R resamples, S scans, C classes, M measures.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bundle.ctfindings.data.datalist import label_rows
from bundle.ctfindings.downstream.result_numbers import scan_means
from bundle.ctfindings.metrics.bootstrap import Bootstrap, WeightStatistic, weighted_auc
from bundle.ctfindings.metrics.classification import FloatArray, macro_averages
from bundle.ctfindings.metrics.report_quality import label_scores
from bundle.ctfindings.metrics.statistic_groups import StatisticGroup, group_record
from experiments.harness.over_seeds import difference, variant_record
from experiments.harness.task_results import dice, pointed, probed, retrieved, stated

FRACTIONS = (5, 25, 100)
"""Percentages of the training patients whose labels are used."""

Studies = Sequence[Mapping[str, Any]]


def _auc(folder: Path, studies: Studies, percent: float) -> WeightStatistic:
    """Mean over the draws of the labels; the AUC of their mean probabilities would be that of an ensemble."""
    draws = probed(folder, _ids(studies), percent)

    def mean(weights: FloatArray) -> FloatArray:
        aucs = [macro_averages(weighted_auc(values, labels, weights)) for values, labels in draws]
        return np.asarray(np.mean(aucs, axis=0))

    return mean


def _crg(folder: Path, studies: Studies, method: str, percent: float) -> WeightStatistic:
    labels = label_rows([dict(study) for study in studies])
    return label_scores(stated(folder, _ids(studies), method, percent), labels)["crg"]


def _mean(read: Callable[..., FloatArray], folder: Path, studies: Studies, *of: Any) -> WeightStatistic:
    """Mean over the scans of each class, and then over the classes."""
    values = read(folder, _ids(studies), *of)
    return lambda weights: macro_averages(scan_means(values, weights))


def _at_fractions(words: str, name: str, measure: Callable[..., WeightStatistic]) -> dict[str, Any]:
    return {f"{name}_{f}": (f"{words}, {f} % of the labels", partial(measure, percent=f)) for f in FRACTIONS}


def _dice(folder: Path, studies: Studies, percent: float) -> WeightStatistic:
    return _mean(dice, folder, studies, percent)


MEASURES: dict[str, tuple[str, Callable[[Path, Studies], WeightStatistic]]] = {
    **_at_fractions("classification, macro AUROC of a probe", "auroc", _auc),
    "retrieval_global": ("retrieval, R@10, score global", lambda f, s: _mean(retrieved, f, s, "global")),
    "retrieval_set": ("retrieval, R@10, score set", lambda f, s: _mean(retrieved, f, s, "set")),
    "pointing_field": ("detection, pointing, map field", lambda f, s: _mean(pointed, f, s, "field")),
    "pointing_answer": ("detection, pointing, map answer", lambda f, s: _mean(pointed, f, s, "answer")),
    "pointing_chance": (
        "detection, random token where the map may peak",
        lambda f, s: _mean(pointed, f, s, "field", "pointing_chance"),
    ),
    **_at_fractions("segmentation, Dice of findings", "dice", _dice),
    **_at_fractions("reports, CRG, nearest", "nearest", partial(_crg, method="nearest")),
    **_at_fractions("reports, CRG, decoder", "decoder", partial(_crg, method="decoder")),
}
"""What the page shows: key, words, and the statistic."""


def downstream_results(
    folders: Mapping[str, Path], studies: Studies, settings: Mapping[str, Any], resamples: int
) -> dict[str, Any]:
    """The content of ``results.json``; intervals are by patient, and differences use the same resamples.

    Args:
        folders: Folder of the tasks by name of the encoder; the first one is the reference.
        studies: Studies of the test split.
        settings: Settings of the experiment, kept in the results.
        resamples: Bootstrap resamples.
    """
    bootstrap = Bootstrap([str(study["patient"]) for study in studies], resamples, seed=0)
    groups = {name: _measures(folder, studies) for name, folder in folders.items()}
    reference = next(iter(groups))
    return {
        "settings": dict(settings),
        "scans": len(studies),
        "bootstrap": {**bootstrap.settings(), "unit": "patient"},
        "measures": {key: words for key, (words, _) in MEASURES.items()},
        "reference": reference,
        "tested": None,
        "variants": {name: variant_record(name, {0: group}, group, bootstrap) for name, group in groups.items()},
        "differences": {
            name: group_record(difference(group, groups[reference]), bootstrap)
            for name, group in groups.items()
            if name != reference
        },
    }


def _measures(folder: Path, studies: Studies) -> StatisticGroup:
    """``MEASURES`` of an encoder; NaN for a task that it did not run."""
    found = []
    for _, measure in MEASURES.values():
        try:
            found.append(measure(folder, studies))
        except FileNotFoundError:
            found.append(lambda weights: np.full(len(weights), np.nan))
    return StatisticGroup(tuple(MEASURES), lambda weights: np.stack([each(weights) for each in found], axis=1))


def _ids(studies: Studies) -> list[str]:
    return [str(study["id"]) for study in studies]
