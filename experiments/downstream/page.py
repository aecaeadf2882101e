"""The page of the comparison, written from ``results.json``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.ctfindings.metrics.report_quality import CRG_FLOOR
from experiments.harness.cells import difference_cell
from experiments.harness.page import VARIANTS_FIGURE, page_head, write_page, write_results
from experiments.harness.variants_plot import plot_variants


def write_results_and_page(folder: Path, results: Mapping[str, Any], command: str) -> Path:
    """Writes ``results.json``, the figure and ``README.md``, and returns the page.

    Args:
        folder: Folder of the page.
        results: From ``downstream_results``.
        command: Command that produced the results.
    """
    write_results(folder, results)
    plot_variants(results, folder / VARIANTS_FIGURE)
    counts, variants, settings = results["settings"]["studies"], results["variants"], results["settings"]["keys"]
    lines = [
        *page_head("Five downstream tasks: encoders at fractions of the labels", command),
        f"Probes and decoders learn from up to {counts['training']} scans, {counts['validation']} choose their "
        f"settings, and {results['scans']} are scored. Draws of the labels: {len(settings['subset_seeds'])}; AUROC "
        "and Dice are means over them, CRG is that of the first. "
        f"Intervals: 95 % percentile bootstrap by {results['bootstrap']['unit']}, "
        f"{results['bootstrap']['resamples']} resamples. The tasks are those of "
        "[downstream.md](../../downstream.md). CRG of reports that all state, or all deny, every finding is "
        f"{CRG_FLOOR:.3f}.",
        "",
        "## Encoders",
        "",
        *_table(results["measures"], {name: row["mean"] for name, row in variants.items()}),
    ]
    if results["differences"]:
        lines += [
            f"## Minus `{results['reference']}`",
            "",
            "Paired, on the same scans. Described, not tested.",
            "",
            *_table(results["measures"], results["differences"]),
        ]
    lines += ["## Figure", "", f"![Measures by encoder]({VARIANTS_FIGURE})"]
    return write_page(folder, lines)


def _table(measures: Mapping[str, str], columns: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Values with intervals, a row for each measure and a column for each encoder."""
    return [
        "| measure | " + " | ".join(f"`{name}`" for name in columns) + " |",
        "|---|" + ":---:|" * len(columns),
        *[
            f"| {words} | " + " | ".join(difference_cell(row, key, ()) for row in columns.values()) + " |"
            for key, words in measures.items()
        ],
        "",
    ]
