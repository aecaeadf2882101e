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
    figure = Figure(figsize=(8.6, 3.4), layout="constrained")
    for panel, (key, title) in zip(figure.subplots(1, 2, sharey=True), PANELS.items(), strict=True):
        panel.axhline(0.5, color="#999999", linewidth=0.8)
        for place, source in enumerate(results["sources"].values()):
            # Moved aside, so that intervals do not cover each other.
            sizes = [row["scans"] * 1.03 ** (place - 1.5) for row in source["curve"]]
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
    panel.legend(fontsize=8, frameon=False, loc="upper right")
    write_figure(figure, path)
