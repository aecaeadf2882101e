"""Figures of an evaluation as PNG files. Shapes: S scans, T wordings, C findings."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_curve

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.evaluation.diagnostics import Diagnostics
from bundle.ctfindings.evaluation.diagnostics_record import TEMPLATE_NAMES, WORDING_NAMES
from bundle.ctfindings.evaluation.evaluation_page import DPI
from bundle.ctfindings.files.atomic_write import atomic_path
from bundle.ctfindings.findings import FINDING_ANATOMY, FINDING_NAMES, finding_index
from bundle.ctfindings.inference.output.report_pictures import DisplayVolume, window_of
from bundle.ctfindings.metrics.classification import (
    FloatArray,
    check_scores,
    check_thresholds,
    finding_auc,
    known_pairs,
)
from bundle.ctfindings.metrics.text_collapse import PAIR_KINDS, PAIR_TITLES
from bundle.ctfindings.metrics.wording_spread import auc_by_wording
from bundle.ctfindings.networks.classifier import NO_THRESHOLD
from bundle.ctfindings.scan.coordinates import world_to_voxel
from bundle.ctfindings.scan.load_scan import load_scan

BLUE, RED, GREY = "#1f5a96", "#b03a2e", "#8a8a8a"
MODEL_COLOURS = (BLUE, "#c9761a", "#3d7a46")
STYLE: dict[Any, Any] = {
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "figure.labelsize": 9,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}
"""Settings of Matplotlib for a figure of the page."""


def write_classification_figures(
    folder: Path, record: dict[str, Any], answers: Diagnostics, other: Diagnostics | None
) -> None:
    """Writes all figures from ``metrics.json``, the answers of the model and those of the model to compare with."""
    comparison, collapse = record["comparison"], record["collapse"]
    names = (comparison["first"], comparison["second"]) if comparison else ("this model", "")
    models = {names[0]: answers} if other is None else {names[0]: answers, names[1]: other}
    captions = {kind: collapse["captions"][kind] for kind in PAIR_KINDS} if collapse["captions"] else {}
    kinds = {names[0]: {**captions, "polarity": collapse["prompts"]["polarity"]}}
    if other is not None:
        kinds[names[1]] = comparison["second_collapse"]
    thresholds = [row["threshold"] for row in record["findings"]]
    plot_roc_grid(answers.calibrated, answers.labels, FINDING_NAMES, folder / "roc.png", thresholds)
    if record["macro"]["auc"] is not None:
        plot_auc_by_finding(record, folder / "auc.png")
    plot_prompt_by_label(record["prompt_by_label"]["auc"], FINDING_NAMES, folder / "prompts.png")
    plot_cosine_histograms(kinds, folder / "similarity.png")
    plot_wordings({name: wording_auc(given) for name, given in models.items()}, folder / "wordings.png")
    plot_reliability(record["reliability"], folder / "reliability.png")


def wording_auc(answers: Diagnostics) -> FloatArray:
    """AUC of every template and perturbation, ``[T + W, C]``."""
    scores = np.concatenate([answers.template_logits, answers.wording_logits], axis=1)
    return auc_by_wording(scores, answers.labels, np.ones((1, len(answers.ids))))[0]


def plot_wordings(auc: dict[str, FloatArray], path: Path) -> None:
    """The AUC of `wording_auc` by model name, with a line between templates and perturbations."""
    plot_auc_by_wording([*TEMPLATE_NAMES, *WORDING_NAMES], auc, path, separators=[len(TEMPLATE_NAMES) - 1])


@matplotlib.rc_context(STYLE)
def plot_roc_grid(
    probabilities: ArrayLike, labels: ArrayLike, findings: Sequence[str], path: str | Path, thresholds: ArrayLike
) -> None:
    """Draws the ROC curve of each finding and its operating point, from probabilities and labels 1, 0 or -1, [S, C]."""
    scores, truth = check_scores(probabilities, labels)
    limits = check_thresholds(thresholds, scores.shape[1])
    auc = finding_auc(scores, truth)
    columns = min(6, len(findings))
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
        panel.set_title(_wrap(findings[index]), fontsize=8, loc="center")
        if np.isnan(auc[index]):
            panel.text(0.5, 0.5, "one class only", ha="center", va="center", fontsize=8, color=GREY)
            continue
        false_positive_rate, true_positive_rate, _ = roc_curve(label, score)
        panel.plot(false_positive_rate, true_positive_rate, color=BLUE, linewidth=1.4)
        present = score >= limits[index]
        if limits[index] < NO_THRESHOLD:
            panel.plot(present[label == 0].mean(), present[label == 1].mean(), "o", color=RED, markersize=4.5)
        panel.text(
            0.98, 0.04, f"AUC {auc[index]:.2f}\n{label.sum()} of {label.size}", ha="right", va="bottom", fontsize=7
        )
    figure.supxlabel("1 - specificity")
    figure.supylabel("sensitivity")
    write_figure(figure, path)


@matplotlib.rc_context(STYLE)
def plot_auc_by_finding(record: dict[str, Any], path: str | Path) -> None:
    """Draws the AUC of each finding of ``metrics.json`` (at least one) with its interval, and the mean below."""
    rows = sorted((row for row in record["findings"] if row["auc"] is not None), key=lambda row: row["auc"])
    absent = [row["finding"] for row in record["findings"] if row["auc"] is None]
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
    panel.set_yticks(height, names)
    panel.set_ylim(-1.2, len(rows) + 0.8)
    panel.set_xlim(min(0.45, float(np.nanmin(intervals)) - 0.02), 1.01)
    for at, value in zip(height, values, strict=True):
        panel.text(1.02, at, f"{value:.2f}", va="center", fontsize=8, transform=panel.get_yaxis_transform())
    panel.set_xlabel(f"ROC-AUC with {100 * record['bootstrap']['level']:g} % interval (bootstrap by patient)")
    panel.set_title(f"{record['split']} split: {record['scans']} scans (number of positives in parentheses)")
    if absent:
        figure.text(0.01, 0.005, "No AUC (one class only): " + ", ".join(absent), fontsize=7, color=GREY)
    write_figure(figure, path)


@matplotlib.rc_context(STYLE)
def plot_prompt_by_label(auc: Sequence[Sequence[float | None]], findings: Sequence[str], path: str | Path) -> None:
    """Draws the AUC of the prompts of each finding (rows) for the labels of each finding (columns)."""
    values = np.asarray(auc, dtype=np.float64)
    figure = Figure(figsize=(8.2, 7.0), layout="constrained")
    panel = figure.subplots()
    shown = panel.imshow(values, cmap="RdBu_r", vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            style: dict[str, Any] = {"color": "white" if abs(value - 0.5) > 0.35 else "black", "fontsize": 6}
            panel.text(column, row, f"{value:.2f}", ha="center", va="center", **style)
    names, places = list(findings), range(len(findings))
    panel.set_xticks(places, names, rotation=60, ha="right", rotation_mode="anchor")
    panel.set_yticks(places, names)
    panel.set_xlabel("labels of")
    panel.set_ylabel("prompts of")
    figure.colorbar(shown, shrink=0.6, label="ROC-AUC")
    write_figure(figure, path)


@matplotlib.rc_context(STYLE)
def plot_cosine_histograms(models: Mapping[str, Mapping[str, dict[str, Any]]], path: str | Path) -> None:
    """Draws histograms of cosines: kinds of pairs in rows, models in columns.

    A model has kinds of pairs by key of `PAIR_TITLES`, each with ``histogram``, ``mean``, ``sd`` and ``pairs``.
    """
    kinds = [kind for kind in PAIR_TITLES if any(kind in model for model in models.values())]
    figure = Figure(figsize=(4.6 * len(models) + 0.6, 1.75 * len(kinds) + 0.8), layout="constrained")
    panels = figure.subplots(len(kinds), len(models), sharex=True, squeeze=False)
    for column, (name, records) in enumerate(models.items()):
        for row, kind in enumerate(kinds):
            panel, record = panels[row, column], records.get(kind)
            panel.set(xlim=(-1, 1), yticks=[])
            panel.spines["left"].set_visible(False)
            panel.axvline(0, color=GREY, linewidth=0.6, linestyle=":")
            if row == 0 and len(models) > 1:
                panel.set_title(name, fontsize=10, color=MODEL_COLOURS[column % 3], fontweight="bold", pad=18)
            if column == 0:
                panel.text(0.0, 1.04, PAIR_TITLES[kind], transform=panel.transAxes, fontsize=8.5, va="bottom")
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
    figure.supxlabel("cosine similarity of text embeddings")
    write_figure(figure, path)


@matplotlib.rc_context(STYLE)
def plot_auc_by_wording(
    wordings: Sequence[str], models: Mapping[str, ArrayLike], path: str | Path, separators: Sequence[int]
) -> None:
    """Draws the AUC of every finding and their mean, for each of T wordings and each model.

    AUC are [T, C] by model name, NaN where not defined. A line is drawn after each row of `separators`.
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
            place: dict[str, Any] = {"transform": panel.get_yaxis_transform(), "va": "center"}
            panel.text(1.01, row, f"{value:.3f}", fontsize=7.5, color=colour, **place)
    for row in separators:
        panel.axhline(-row - 0.5, color=GREY, linewidth=0.6)
    panel.axvline(0.5, color=GREY, linewidth=0.8, linestyle=":")
    panel.set_yticks(height, list(wordings))
    panel.set_ylim(height[-1] - 0.7, 0.7)
    panel.set_xlabel("ROC-AUC (diamonds: mean over findings, dots: single findings)")
    if len(models) > 1:
        figure.legend(loc="outside upper left", ncols=2)
    write_figure(figure, path)


@matplotlib.rc_context(STYLE)
def plot_reliability(curves: Mapping[str, Mapping[str, Sequence[float]]], path: str | Path) -> None:
    """Draws the `reliability` curves by name, and the number of predictions in each bin."""
    figure = Figure(figsize=(5.2, 5.4), layout="constrained")
    panel, counts = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    panel.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    for (name, curve), colour, marker in zip(curves.items(), (GREY, MODEL_COLOURS[1], BLUE), "sDo", strict=False):
        style: dict[str, Any] = {"color": colour, "marker": marker}
        panel.plot(curve["probability"], curve["frequency"], markersize=4.5, linewidth=1.4, label=name, **style)
        counts.plot(curve["probability"], curve["count"], markersize=3.5, linewidth=1, **style)
    panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    panel.set_ylabel("observed frequency")
    panel.legend()
    counts.set_yscale("log")
    counts.set_ylabel("predictions")
    counts.set_xlabel("predicted probability, all findings")
    write_figure(figure, path)


@matplotlib.rc_context(STYLE)
def plot_errors(
    rows: Sequence[Mapping[str, Any]],
    studies: Sequence[Mapping[str, Any]],
    places: Sequence[NDArray[np.float64]],
    path: str | Path,
) -> None:
    """Draws the axial slice of each row of ``errors`` in ``metrics.json``, with its place marked; E rows.

    Places are world RAS mm, [3] each; one with NaN shows the middle slice. Display is radiological.
    """
    columns = min(4, len(rows))
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.6 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel in panels:
        panel.set_axis_off()
    for panel, row, study, place in zip(panels, rows, studies, places, strict=False):
        scan = load_scan(study["image"], study.get("stored"))
        shown = DisplayVolume(scan[0], scan.affine)
        known = not np.isnan(place).any()
        voxel = world_to_voxel(place, shown.affine) if known else (np.asarray(shown.hu.shape) - 1) / 2
        at = np.clip(np.rint(voxel), 0, np.asarray(shown.hu.shape) - 1).astype(int)
        window = window_of(row["finding"], ANATOMY_NAMES[FINDING_ANATOMY[finding_index(row["finding"])]])
        low, high = window.level - window.width / 2, window.level + window.width / 2
        # Columns grow to the patient's right and rows to the front, so both axes are turned.
        aspect = float(shown.spacing[1] / shown.spacing[0])
        panel.imshow(shown.hu[:, :, at[2]].T, cmap="gray", vmin=low, vmax=high, origin="lower", aspect=aspect)
        panel.invert_xaxis()
        if known:
            panel.plot(at[0], at[1], "+", color="#f0a030", markersize=11, markeredgewidth=1)
        title = f"{row['finding']}\n{row['error']}, {row['probability']:.2f} (threshold {row['threshold']:.2f})"
        panel.set_title(title, fontsize=7)
        panel.text(0.02, 0.02, row["study"], fontsize=5.5, color="white", transform=panel.transAxes)
    write_figure(figure, path)


def _wrap(name: str, width: int = 20) -> str:
    """A name on exactly two lines, so that all panels have the same size."""
    words, first = name.split(), ""
    while words and len(first) + len(words[0]) < width:
        first = f"{first} {words.pop(0)}".strip()
    return f"{first}\n{' '.join(words)}"


def write_figure(figure: Figure, path: str | Path) -> None:
    """Writes a figure as a PNG at the resolution of the page, complete or not at all."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)
