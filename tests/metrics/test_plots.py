"""The figures: they are written as readable PNG without a display, for any number of findings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from bundle.ctfindings.metrics import evaluate_split, plot_auc_by_finding, plot_roc_grid

SCANS = 40


def scores(findings: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, (SCANS, findings))
    labels[:, -1] = 0
    return random.random((SCANS, findings)), labels, [f"Finding number {i}" for i in range(findings)]


@pytest.mark.parametrize("findings", [1, 5, 18])
def test_the_roc_grid_is_written_for_any_number_of_findings(findings: int, tmp_path: Path) -> None:
    probabilities, labels, names = scores(findings)
    path = plot_roc_grid(probabilities, labels, names, tmp_path / "figures" / "roc.png", thresholds=np.full(findings, 0.5))
    assert imread(path).ndim == 3


def test_the_auc_figure_is_written_and_says_when_there_is_nothing_to_draw(tmp_path: Path) -> None:
    probabilities, labels, names = scores(4)
    patients = [str(i) for i in range(SCANS)]
    logits, thresholds = probabilities[:, None], np.full(4, 0.5)
    record = evaluate_split(probabilities, logits, labels, patients, patients, thresholds, names, resamples=20)
    assert imread(plot_auc_by_finding(record, tmp_path / "auc.png")).ndim == 3
    empty = evaluate_split(probabilities, logits, 0 * labels, patients, patients, thresholds, names, resamples=20)
    with pytest.raises(ValueError, match="nothing to plot"):
        plot_auc_by_finding(empty, tmp_path / "none.png")
