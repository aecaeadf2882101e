"""Figures of an evaluation, written as PNG without a display. Shapes: S scans, T wordings, C findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from sklearn.metrics import roc_curve

from bundle.ctfindings.metrics.classification import check_scores, check_thresholds, finding_auc, known_pairs

BLUE, RED, GREY = "#1f5a96", "#b03a2e", "#8a8a8a"
MODEL_COLOURS = (BLUE, "#c9761a", "#3d7a46")
DPI = 150

KIND_TITLES = {
    "cross_anatomy": "captions of two anatomies",
    "abnormal_abnormal": "two abnormal captions of one anatomy",
    "normal_abnormal": "a normal and an abnormal caption of one anatomy",
    "polarity": "positive and negative prompt of one finding",
}
"""What each kind of pairs is, in words."""


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
        raise ValueError(
            f"{len(findings)} finding names for {scores.shape[1]} columns; one name per column is expected"
        )
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
        panel.text(
            0.98, 0.04, f"AUC {auc[index]:.2f}\n{label.sum()} of {label.size}", ha="right", va="bottom", fontsize=7
        )
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
    panel.set_xlabel(
        f"ROC-AUC with {100 * record['bootstrap']['level']:g} % interval (bootstrap by patient)", fontsize=9
    )
    panel.set_title(
        f"{record['split']}: {record['scans']} scans, number of positives in brackets", fontsize=9, loc="left"
    )
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(axis="x", labelsize=8)
    if absent:
        figure.text(0.01, 0.005, "Without AUC (one class only): " + ", ".join(absent), fontsize=7, color=GREY)
    return _write(figure, path)


def plot_cosine_histograms(models: Mapping[str, Mapping[str, dict[str, Any]]], path: str | Path) -> Path:
    """Histograms of the cosines of each kind of pairs in rows, models side by side in columns.

    Args:
        models: for each model name the kinds of pairs by their key in `KIND_TITLES`, each with ``histogram``, ``mean``,
            ``sd`` and ``pairs``; a kind without pairs is left empty.
        path: PNG file to write; its folder is made.

    Returns:
        The path written.
    """
    kinds = [kind for kind in KIND_TITLES if any(kind in model for model in models.values())]
    figure = Figure(figsize=(4.6 * len(models) + 0.6, 1.75 * len(kinds) + 0.8), layout="constrained")
    panels = figure.subplots(len(kinds), len(models), sharex=True, squeeze=False)
    for column, (name, records) in enumerate(models.items()):
        for row, kind in enumerate(kinds):
            panel, record = panels[row, column], records.get(kind)
            panel.set(xlim=(-1, 1), yticks=[])
            panel.spines[["top", "right", "left"]].set_visible(False)
            panel.axvline(0, color=GREY, linewidth=0.6, linestyle=":")
            if row == 0 and len(models) > 1:
                panel.set_title(
                    name, fontsize=10, color=MODEL_COLOURS[column % 3], fontweight="bold", loc="left", pad=18
                )
            panel.tick_params(labelsize=8)
            if column == 0:
                panel.text(0.0, 1.04, KIND_TITLES[kind], transform=panel.transAxes, fontsize=8.5, va="bottom")
            if not record or not record["pairs"] or record["mean"] is None:
                panel.text(0.5, 0.4, "no pairs", ha="center", transform=panel.transAxes, fontsize=8, color=GREY)
                continue
            edges, counts = np.asarray(record["histogram"]["edges"]), np.asarray(record["histogram"]["counts"])
            panel.stairs(counts / counts.sum(), edges, fill=True, color=MODEL_COLOURS[column % 3], alpha=0.75)
            panel.set_ylim(0, 1.4 * counts.max() / counts.sum())
            panel.axvline(record["mean"], color=RED, linewidth=1.2)
            text = f"mean {record['mean']:.2f}, SD {record['sd']:.2f}"
            if record.get("skewness") is not None:
                text += f"\nskew {record['skewness']:.1f}, excess kurtosis {record['excess_kurtosis']:.1f}"
            panel.text(0.01, 0.99, text, transform=panel.transAxes, fontsize=7.5, color=GREY, va="top")
    figure.supxlabel("cosine of the text embeddings", fontsize=9)
    return _write(figure, path)


def plot_auc_by_wording(
    wordings: Sequence[str], models: Mapping[str, ArrayLike], path: str | Path, separators: Sequence[int] = ()
) -> Path:
    """Strip plot: the AUC of every finding as a small dot and their mean as a large one, for each wording and model.

    Args:
        wordings: names, T.
        models: AUC of each wording and finding by model name, [T, C] each; NaN where it is not defined.
        path: PNG file to write; its folder is made.
        separators: rows after which a line is drawn, such as between templates and perturbations.

    Returns:
        The path written.
    """
    figure = Figure(figsize=(7.4, (0.2 + 0.17 * len(models)) * len(wordings) + 1.5), layout="constrained")
    panel = figure.subplots()
    height = -np.arange(len(wordings), dtype=np.float64)
    for index, (name, values) in enumerate(models.items()):
        auc = np.asarray(values, dtype=np.float64)
        at = height + 0.34 * ((len(models) - 1) / 2 - index)
        colour = MODEL_COLOURS[index % 3]
        macro = np.asarray([row[~np.isnan(row)].mean() if (~np.isnan(row)).any() else np.nan for row in auc])
        panel.scatter(auc, np.repeat(at[:, None], auc.shape[1], axis=1), s=9, color=colour, alpha=0.3, linewidths=0)
        panel.scatter(macro, at, s=44, color=colour, zorder=3, marker="D", label=name)
        for value, row in zip(macro, at, strict=True):
            panel.text(
                1.01,
                row,
                f"{value:.3f}",
                transform=panel.get_yaxis_transform(),
                fontsize=7.5,
                va="center",
                color=colour,
            )
    for row in separators:
        panel.axhline(-row - 0.5, color=GREY, linewidth=0.6)
    panel.axvline(0.5, color=GREY, linewidth=0.8, linestyle=":")
    panel.set_yticks(height, list(wordings), fontsize=8.5)
    panel.set_ylim(height[-1] - 0.7, 0.7)
    panel.set_xlabel("ROC-AUC; diamond: mean over the findings, dots: single findings", fontsize=9)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(axis="x", labelsize=8)
    if len(models) > 1:
        figure.legend(loc="outside upper left", fontsize=9, ncols=2, frameon=False)
    return _write(figure, path)


def plot_variants(results: Mapping[str, Any], path: str | Path, columns: int = 3) -> Path:
    """Small multiples: each measure of an experiment by variant, a dot for each seed and a bar at their mean.

    Args:
        results: with ``measures`` (key to words) and ``variants`` (name to ``seeds`` of values by measure, None where
            not defined).
        path: PNG file to write; its folder is made.
        columns: panels per row.

    Returns:
        The path written.
    """
    measures, variants = results["measures"], results["variants"]
    rows = -(-len(measures) // columns)
    figure = Figure(figsize=(3.7 * columns, (0.24 * len(variants) + 0.75) * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for panel in panels[len(measures) :]:
        panel.set_visible(False)
    for panel, (key, words) in zip(panels, measures.items(), strict=False):
        for row, (name, variant) in enumerate(variants.items()):
            values = [seed[key] for seed in variant["seeds"].values() if seed[key] is not None]
            colour = RED if name == results["tested"] else BLUE
            panel.scatter(values, [-row] * len(values), s=18, color=colour, alpha=0.7, linewidths=0)
            if values:
                panel.plot([np.mean(values)] * 2, [-row - 0.3, -row + 0.3], color=colour, linewidth=1.6)
        panel.set_title(_wrap(words, 34), fontsize=8, loc="left")
        panel.set_yticks(-np.arange(len(variants)), list(variants), fontsize=8)
        panel.set_ylim(-len(variants) + 0.4, 0.6)
        panel.locator_params(axis="x", nbins=5)
        panel.tick_params(axis="x", labelsize=7.5)
        panel.grid(axis="x", color="#e3e3e3", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    return _write(figure, path)


def plot_reliability(curves: Mapping[str, Mapping[str, Sequence[float]]], path: str | Path) -> Path:
    """Observed frequency against stated probability, with the number of answers in each bin below.

    Args:
        curves: by name, each a result of `reliability`.
        path: PNG file to write; its folder is made.

    Returns:
        The path written.
    """
    figure = Figure(figsize=(5.2, 5.4), layout="constrained")
    panel, counts = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    panel.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    for (name, curve), colour, marker in zip(curves.items(), (GREY, MODEL_COLOURS[1], BLUE), "sDo", strict=False):
        panel.plot(
            curve["probability"],
            curve["frequency"],
            color=colour,
            marker=marker,
            markersize=4.5,
            linewidth=1.4,
            label=name,
        )
        counts.plot(curve["probability"], curve["count"], color=colour, marker=marker, markersize=3.5, linewidth=1)
    panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    panel.set_ylabel("observed frequency", fontsize=9)
    panel.legend(fontsize=8.5, frameon=False)
    counts.set_yscale("log")
    counts.set_ylabel("answers", fontsize=9)
    counts.set_xlabel("stated probability, all findings together", fontsize=9)
    for each in (panel, counts):
        each.tick_params(labelsize=8)
        each.spines[["top", "right"]].set_visible(False)
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
    figure.savefig(target, format="png", dpi=DPI)
    return target
