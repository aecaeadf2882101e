"""The figures: they are written as readable PNG without a display, for any number of findings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from bundle.ctfindings.metrics.calibration import reliability
from bundle.ctfindings.metrics.collapse import cosine_moments, histogram
from bundle.ctfindings.metrics.plots import (
    plot_auc_by_finding,
    plot_auc_by_wording,
    plot_cosine_histograms,
    plot_reliability,
    plot_roc_grid,
)
from bundle.ctfindings.metrics.split_record import evaluate_split

SCANS = 40


def scores(findings: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, (SCANS, findings))
    labels[:, -1] = 0
    return random.random((SCANS, findings)), labels, [f"Finding number {i}" for i in range(findings)]


@pytest.mark.parametrize("findings", [1, 5, 18])
def test_the_roc_grid_is_written_for_any_number_of_findings(findings: int, tmp_path: Path) -> None:
    probabilities, labels, names = scores(findings)
    path = plot_roc_grid(
        probabilities, labels, names, tmp_path / "figures" / "roc.png", thresholds=np.full(findings, 0.5)
    )
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


@pytest.mark.parametrize("models", [1, 2])
def test_robustness_and_collapse_are_drawn_for_one_model_or_two_side_by_side(models: int, tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    cosines = random.uniform(-0.2, 0.6, 300)
    kind = {"pairs": 300, **cosine_moments(cosines), "histogram": histogram(cosines)}
    flat = {"skewness": None, "excess_kurtosis": None}
    point = {"pairs": 5, **cosine_moments(np.ones(5)), **flat, "histogram": histogram(np.ones(5))}
    records = {f"model {i}": {"cross_anatomy": kind, "polarity": point} for i in range(models)}
    one = plot_cosine_histograms(records, tmp_path / "similarity.png")
    auc = random.uniform(0.4, 1, (3, 5))
    auc[1, 2] = np.nan
    two = plot_auc_by_wording(
        ["T1", "T2", "T3"], {name: auc for name in records}, tmp_path / "wordings.png", separators=[1]
    )
    probabilities, labels, _ = scores(4)
    three = plot_reliability({"platt": reliability(probabilities, labels)}, tmp_path / "reliability.png")
    width = imread(one).shape[1]
    assert all(imread(path).ndim == 3 for path in (one, two, three))
    assert (width > 1000) == (models == 2), "models stand beside each other"
