"""Figure of an experiment: its measures by variant."""

from collections.abc import Mapping
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bundle.ctfindings.evaluation.plots import BLUE, RED, write_figure


def plot_variants(results: Mapping[str, Any], path: Path, columns: int = 3) -> None:
    """Draws each measure of an experiment by variant, a dot for each seed and a bar at their mean.

    Args:
        results: with ``measures`` (key to words) and ``variants`` (name to ``seeds`` of values by measure, None where
            not defined).
        path: PNG file.
        columns: panels per row.
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
        panel.set_title("\n".join(wrap(words, 34)), fontsize=8, loc="left")
        panel.set_yticks(-np.arange(len(variants)), list(variants), fontsize=8)
        panel.set_ylim(-len(variants) + 0.4, 0.6)
        panel.locator_params(axis="x", nbins=5)
        panel.tick_params(axis="x", labelsize=7.5)
        panel.grid(axis="x", color="#e3e3e3", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    write_figure(figure, path)
