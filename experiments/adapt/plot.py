"""Figure of the learning curve: AUC against the number of training scans, a line for each source of features."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bundle.ctfindings.evaluation.plots import write_figure

PANELS = {"paired": "with the finding above its twin", "auc": "AUC over patients"}


def plot_learning_curve(results: Mapping[str, Any], path: Path) -> None:
    """Draws the mean over the findings with 95 % intervals by patient.

    Args:
        results: Of ``learning_curve``.
        path: PNG file.
    """
    sources = list(results["sources"].values())
    panels = {key: title for key, title in PANELS.items() if sources[0]["curve"][0][key] is not None}
    figure = Figure(figsize=(4.4 * len(panels), 3.6), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for panel, (key, title) in zip(axes, panels.items(), strict=True):
        panel.axhline(0.5, color="#999999", linewidth=0.8)
        for place, source in enumerate(sources):
            # Moved aside, so that intervals do not cover each other.
            sizes = [row["scans"] * 1.03 ** (place - (len(sources) - 1) / 2) for row in source["curve"]]
            means = [row[key]["mean"] for row in source["curve"]]
            low, high = zip(*(row[key]["interval"] for row in source["curve"]), strict=True)
            line = panel.plot(sizes, means, "o-", markersize=4, linewidth=1.4, label=source["title"])[0]
            panel.vlines(sizes, low, high, color=line.get_color(), linewidth=1, alpha=0.6)
        panel.set_xscale("log", base=2)
        panel.set_xticks(results["sizes"], [str(size) for size in results["sizes"]])
        panel.set_xlabel("training scans")
        panel.set_title(title, fontsize=9, loc="left")
        panel.grid(axis="y", color="#e3e3e3", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    figure.legend(*panel.get_legend_handles_labels(), fontsize=8, frameon=False, loc="outside lower center", ncols=3)
    write_figure(figure, path)
