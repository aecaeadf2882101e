"""Figures of an evaluation, written as PNG without a display. Shapes: S scans, C findings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from sklearn.metrics import roc_curve

from bundle.ctfindings.metrics.classification import check_scores, check_thresholds, finding_auc, known_pairs

BLUE, RED, GREY = "#1f5a96", "#b03a2e", "#8a8a8a"


def plot_roc_grid(
    probabilities: ArrayLike,
    labels: ArrayLike,
    findings: Sequence[str],
    path: str | Path,
    thresholds: ArrayLike | None = None,
    columns: int = 6,
) -> Path:
    """One small ROC curve per finding, with the operating point at its threshold when thresholds are given.

    Args:
        probabilities: scores [S, C].
        labels: 1, 0 or -1, [S, C].
        findings: names, C.
        path: PNG file to write; its folder is made.
        thresholds: [C], or None for no operating point.
        columns: panels per row.

    Returns:
        The path written.
    """
    scores, truth = check_scores(probabilities, labels)
    if len(findings) != scores.shape[1]:
        raise ValueError(f"{len(findings)} finding names for {scores.shape[1]} columns; one name per column is expected")
    limits = None if thresholds is None else check_thresholds(thresholds, scores.shape[1])
    auc = finding_auc(scores, truth)
    columns = min(columns, len(findings))
    rows = -(-len(findings) // columns)
    figure = Figure(figsize=(2.1 * columns, 2.35 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for index, panel in enumerate(panels):
        if index >= len(findings):
            panel.set_visible(False)
            continue
        score, label = known_pairs(scores, truth, index)
        panel.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
        panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        panel.set_title(_wrap(findings[index]), fontsize=8)
        panel.tick_params(labelsize=7)
        if np.isnan(auc[index]):
            panel.text(0.5, 0.5, "one class only", ha="center", va="center", fontsize=8, color=GREY)
            continue
        false_positive_rate, true_positive_rate, _ = roc_curve(label, score)
        panel.plot(false_positive_rate, true_positive_rate, color=BLUE, linewidth=1.4)
        if limits is not None:
            present = score >= limits[index]
            panel.plot(present[label == 0].mean(), present[label == 1].mean(), "o", color=RED, markersize=4.5)
        panel.text(0.98, 0.04, f"AUC {auc[index]:.2f}\n{label.sum()} of {label.size}", ha="right", va="bottom", fontsize=7)
    figure.supxlabel("1 - specificity", fontsize=9)
    figure.supylabel("sensitivity", fontsize=9)
    return _write(figure, path)


def plot_auc_by_finding(record: dict[str, Any], path: str | Path) -> Path:
    """AUC of each finding as a dot with its interval, highest on top, and the mean below them.

    Args:
        record: of `evaluate_split`.
        path: PNG file to write; its folder is made.

    Returns:
        The path written.
    """
    rows = sorted((row for row in record["findings"] if row["auc"] is not None), key=lambda row: row["auc"])
    absent = [row["finding"] for row in record["findings"] if row["auc"] is None]
    if not rows:
        raise ValueError("the record has no finding with an AUC; there is nothing to plot")
    names = ["Mean over findings", *(f"{row['finding']} ({row['positives']})" for row in rows)]
    macro = record["macro"]
    values = np.asarray([macro["auc"], *(row["auc"] for row in rows)])
    intervals = np.asarray([macro["auc_interval"], *(row["auc_interval"] for row in rows)], dtype=np.float64)
    height = np.asarray([-0.5, *range(1, len(rows) + 1)])
    colours = [RED, *[BLUE] * len(rows)]

    figure = Figure(figsize=(7, 0.27 * len(names) + 1.4), layout="constrained")
    panel = figure.subplots()
    panel.hlines(height, intervals[:, 0], intervals[:, 1], color=colours, linewidth=1.6)
    panel.scatter(values, height, color=colours, s=26, zorder=3)
    panel.axvline(0.5, color=GREY, linewidth=0.8, linestyle=":")
    panel.axhline(0.25, color=GREY, linewidth=0.5)
    panel.set_yticks(height, names, fontsize=8)
    panel.set_ylim(-1.2, len(rows) + 0.8)
    panel.set_xlim(min(0.45, float(np.nanmin(intervals)) - 0.02), 1.01)
    for at, value in zip(height, values, strict=True):
        panel.text(1.02, at, f"{value:.2f}", va="center", fontsize=8, transform=panel.get_yaxis_transform())
    panel.set_xlabel(f"ROC-AUC with {100 * record['bootstrap']['level']:g} % interval (bootstrap by patient)", fontsize=9)
    panel.set_title(f"{record['split']}: {record['scans']} scans, number of positives in brackets", fontsize=9, loc="left")
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(axis="x", labelsize=8)
    if absent:
        figure.text(0.01, 0.005, "Without AUC (one class only): " + ", ".join(absent), fontsize=7, color=GREY)
    return _write(figure, path)


def _wrap(name: str, width: int = 20) -> str:
    """A name on at most two lines; two lines always, so that panels keep one size."""
    words, first = name.split(), ""
    while words and len(first) + len(words[0]) < width:
        first = f"{first} {words.pop(0)}".strip()
    return f"{first}\n{' '.join(words)}"


def _write(figure: Figure, path: str | Path) -> Path:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(target, format="png")
    return target
