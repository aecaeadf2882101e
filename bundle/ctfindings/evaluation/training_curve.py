"""Section of an evaluation: the validations of the training that wrote the checkpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from bundle.ctfindings.evaluation.evaluation_run import EvaluationRun
from bundle.ctfindings.evaluation.plots import BLUE, STYLE, write_figure
from bundle.ctfindings.metrics.json_numbers import cell, number
from bundle.ctfindings.networks.checkpoint import read_validations


@dataclass(frozen=True)
class TrainingCurve:
    """Validation metrics by epoch, if the checkpoint is that of a training (``best.pt`` or ``last.pt``).

    Args:
        metrics: metrics that the figure shows, of those that the training has.
    """

    metrics: Sequence[str] = ("macro_auc", "alignment_gap")
    needs_labels = False
    needs_calibration = False

    def __call__(self, run: EvaluationRun) -> str:
        """Adds ``validations``, a list of rows with ``epoch`` and every metric; null where a metric is not finite."""
        rows = [{name: number(value) for name, value in row.items()} for row in read_validations(run.model.ckpt_path)]
        if not rows:
            return ""
        run.record["validations"] = rows
        shown = [name for name in self.metrics if any(row.get(name) is not None for row in rows)]
        if shown:
            run.figures.append(lambda folder: plot_validations(rows, shown, folder / "training.png"))
        last = ", ".join(f"{name} {cell(rows[-1].get(name))}" for name in shown)
        return (
            f"Validations during the training: {len(rows)}; the last, after epoch {rows[-1]['epoch']:g}: {last or '-'}"
        )


@matplotlib.rc_context(STYLE)
def plot_validations(rows: Sequence[Mapping[str, float | None]], metrics: Sequence[str], path: Path) -> None:
    """Draws metrics by epoch, a panel for each."""
    figure = Figure(figsize=(3.6 * len(metrics), 2.4), layout="constrained")
    for panel, name in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        known = [(row["epoch"], row[name]) for row in rows if row.get(name) is not None]
        panel.plot(*zip(*known, strict=True), "o-", color=BLUE, markersize=3.5, linewidth=1.2)
        panel.set_title(name)
        panel.set_xlabel("epoch")
        panel.grid(color="#e3e3e3", linewidth=0.6)
    write_figure(figure, path)
