"""The figures of the classification section."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bundle.ctfindings.evaluation.diagnostics import Diagnostics
from bundle.ctfindings.evaluation.diagnostics_record import TEMPLATE_NAMES, WORDING_NAMES
from bundle.ctfindings.evaluation.plots import (
    plot_auc_by_finding,
    plot_auc_by_wording,
    plot_cosine_histograms,
    plot_reliability,
    plot_roc_grid,
)
from bundle.ctfindings.files.atomic_write import atomic_path
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.metrics.classification import FloatArray
from bundle.ctfindings.metrics.text_collapse import PAIR_KINDS
from bundle.ctfindings.metrics.wording_spread import auc_by_wording


def write_classification_figures(
    folder: Path, record: dict[str, Any], answers: Diagnostics, other: Diagnostics | None
) -> None:
    """Writes ROC curves, AUC by finding and by wording, cosine histograms and the reliability diagram as PNG.

    Args:
        folder: output folder.
        record: content of ``metrics.json``.
        answers: answers of the model.
        other: answers of the model it is compared with, drawn beside it.
    """
    comparison, collapse = record["comparison"], record["collapse"]
    names = (comparison["first"], comparison["second"]) if comparison else ("this model", "")
    models = {names[0]: answers} if other is None else {names[0]: answers, names[1]: other}
    captions = {kind: collapse["captions"][kind] for kind in PAIR_KINDS} if collapse["captions"] else {}
    kinds = {names[0]: {**captions, "polarity": collapse["prompts"]["polarity"]}}
    if other is not None:
        kinds[names[1]] = comparison["second_collapse"]
    thresholds = [row["threshold"] for row in record["findings"]]
    with atomic_path(folder / "roc.png") as path:
        plot_roc_grid(answers.calibrated, answers.labels, FINDING_NAMES, path, thresholds)
    if record["macro"]["auc"] is not None:
        with atomic_path(folder / "auc.png") as path:
            plot_auc_by_finding(record, path)
    with atomic_path(folder / "similarity.png") as path:
        plot_cosine_histograms(kinds, path)
    with atomic_path(folder / "wordings.png") as path:
        plot_wordings({name: wording_auc(given) for name, given in models.items()}, path)
    with atomic_path(folder / "reliability.png") as path:
        plot_reliability(record["reliability"], path)


def wording_auc(answers: Diagnostics) -> FloatArray:
    """AUC of every template and perturbation, ``[T + W, C]``."""
    scores = np.concatenate([answers.template_logits, answers.wording_logits], axis=1)
    auc: FloatArray = auc_by_wording(scores, answers.labels, np.ones((1, len(answers.ids))))[0]
    return auc


def plot_wordings(auc: dict[str, FloatArray], path: Path) -> None:
    """The AUC of `wording_auc` by model name, with a line between templates and perturbations."""
    plot_auc_by_wording([*TEMPLATE_NAMES, *WORDING_NAMES], auc, path, separators=[len(TEMPLATE_NAMES) - 1])
