"""The figures: they are written as readable PNG without a display, for any number of findings."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from bundle.ctfindings.evaluation.finding_scores import finding_scores_record
from bundle.ctfindings.evaluation.plots import (
    plot_auc_by_finding,
    plot_auc_by_wording,
    plot_cosine_histograms,
    plot_reliability,
    plot_roc_grid,
)
from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.calibration_error import reliability
from bundle.ctfindings.metrics.text_collapse import cosine_moments, histogram

SCANS = 40


def scores(findings: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, (SCANS, findings))
    labels[:, -1] = 0
    return random.random((SCANS, findings)), labels, [f"Finding number {i}" for i in range(findings)]


@pytest.mark.parametrize("findings", [1, 5, 18])
def test_the_roc_grid_is_written_for_any_number_of_findings(findings: int, tmp_path: Path) -> None:
    probabilities, labels, names = scores(findings)
    plot_roc_grid(probabilities, labels, names, tmp_path / "roc.png", np.full(findings, 0.5))
    assert imread(tmp_path / "roc.png").ndim == 3


def test_the_auc_figure_is_written(tmp_path: Path) -> None:
    probabilities, labels, names = scores(4)
    bootstrap = Bootstrap([str(i) for i in range(SCANS)], resamples=20)
    found = finding_scores_record(
        probabilities, probabilities[:, None], labels, np.full(4, 0.5), names, ["T1"], bootstrap
    )
    record = {**found, "split": "test", "scans": SCANS, "bootstrap": bootstrap.settings()}
    plot_auc_by_finding(record, tmp_path / "auc.png")
    assert imread(tmp_path / "auc.png").ndim == 3


@pytest.mark.parametrize("models", [1, 2])
def test_robustness_and_collapse_are_drawn_for_one_model_or_two_side_by_side(models: int, tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    cosines = random.uniform(-0.2, 0.6, 300)
    kind = {"pairs": 300, **cosine_moments(cosines), "histogram": histogram(cosines)}
    flat = {"skewness": None, "excess_kurtosis": None}
    point = {"pairs": 5, **cosine_moments(np.ones(5)), **flat, "histogram": histogram(np.ones(5))}
    records = {f"model {i}": {"cross_anatomy": kind, "polarity": point} for i in range(models)}
    paths = [tmp_path / f"{name}.png" for name in ("similarity", "wordings", "reliability")]
    plot_cosine_histograms(records, paths[0])
    auc = random.uniform(0.4, 1, (3, 5))
    auc[1, 2] = np.nan
    plot_auc_by_wording(["T1", "T2", "T3"], dict.fromkeys(records, auc), paths[1], separators=[1])
    probabilities, labels, _ = scores(4)
    plot_reliability({"platt": reliability(probabilities, labels)}, paths[2])
    width = imread(paths[0]).shape[1]
    assert all(imread(path).ndim == 3 for path in paths)
    assert (width > 1000) == (models == 2), "models stand beside each other"
