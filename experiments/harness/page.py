"""The page of an experiment: figures, and a Markdown page written from ``results.json`` alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.ctfindings.evaluation.classification_figures import plot_wordings, wording_auc
from bundle.ctfindings.evaluation.diagnostics import DIAGNOSTICS_FILE, Diagnostics
from bundle.ctfindings.evaluation.diagnostics_record import collapse_histograms
from bundle.ctfindings.evaluation.plots import plot_cosine_histograms
from bundle.ctfindings.files.atomic_write import atomic_path
from experiments.harness.variants_plot import plot_variants

VARIANTS_FIGURE = "variants.png"
NOTES_FILE = "notes.md"
"""What the numbers suggest, written by a person; the page begins with it if the file exists."""


def write_experiment_figures(
    folder: Path, results: Mapping[str, Any], evaluations: Mapping[str, Mapping[int, Path]]
) -> None:
    """Writes ``similarity.png``, ``wordings.png`` (first seed) and ``variants.png`` (all seeds).

    Args:
        folder: of the page.
        results: of `experiment_results`.
        evaluations: folder of the evaluation of each variant and seed.
    """
    shown = [name for name in ("initial", results["reference"], results["tested"]) if name in evaluations]
    answers = {name: Diagnostics.load(next(iter(evaluations[name].values())) / DIAGNOSTICS_FILE) for name in shown}
    with atomic_path(folder / "similarity.png") as path:
        plot_cosine_histograms({name: collapse_histograms(given) for name, given in answers.items()}, path)
    compared = [name for name in (results["reference"], results["tested"]) if name in answers]
    with atomic_path(folder / "wordings.png") as path:
        plot_wordings({name: wording_auc(answers[name]) for name in compared}, path)
    with atomic_path(folder / VARIANTS_FIGURE) as path:
        plot_variants(results, path)


def locked_tower_sentence(settings: Mapping[str, Any]) -> str:
    """The sentence about an image tower that was not trained; empty if the whole model was trained.

    Args:
        settings: settings of the experiment; ``locked_image`` is the SHA-256 of the weights, or null.
    """
    if not settings.get("locked_image"):
        return ""
    return (
        "The image tower is locked. It comes from the weights with SHA-256 "
        f"`{settings['locked_image'][:12]}`, which were also trained with labels. "
        "Only the projections and the text tower train; objectives on tokens and masks are off. "
    )


def write_experiment_page(folder: Path, title: str, command: str) -> Path:
    """Writes ``README.md`` from ``results.json`` and, if it exists, ``notes.md``.

    Args:
        folder: with ``results.json`` and the figures.
        title: of the page.
        command: that made the results.
    """
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    reference, tested = results["reference"], results["tested"]
    seeds = sorted({seed for variant in results["variants"].values() for seed in variant["seeds"]}, key=int)
    counts = results["settings"].get("studies", {})
    lines = [
        f"# {title}",
        "",
        "## Experiment",
        "",
        "The command below writes the rest of this page from [results.json](results.json).",
        "",
        "```",
        command,
        "```",
        "",
        locked_tower_sentence(results["settings"])
        + f"Trained on {counts.get('training', '?')} scans, calibrated on {counts.get('validation', '?')}, "
        f"scored on {results['scans']}; "
        f"seeds {', '.join(seeds)}. Intervals: 95 % percentile bootstrap by patient of the mean over the seeds, "
        f"{results['bootstrap']['resamples']} resamples, the same for all variants. The measures are defined in "
        "[diagnostics.md](../../diagnostics.md).",
        "",
        "## Expectations",
        "",
        f"Of `{tested}` against `{reference}`.",
        "",
        "| expectation | value | interval | |",
        "|---|---:|:---:|---|",
        *[
            f"| {row['text'].replace('|', chr(92) + '|')} | {_cell(row['value'])} "
            f"| {_interval(row['interval'])} | {_verdict(row['met'])} |"
            for row in results["expectations"]
        ],
        "",
        "## Variants",
        "",
        *[f"- `{name}`: {variant['title']}" for name, variant in results["variants"].items()],
        "",
        "Mean over the seeds, SD over the seeds in brackets.",
        "",
        "| measure | " + " | ".join(f"`{name}`" for name in results["variants"]) + " |",
        "|---|" + "---:|" * len(results["variants"]),
        *[
            f"| {words.replace('|', chr(92) + '|')} | "
            + " | ".join(
                _with_sd(variant["mean"][key], variant["sd_over_seeds"][key])
                for variant in results["variants"].values()
            )
            + " |"
            for key, words in results["measures"].items()
        ],
        "",
        f"## Differences from `{reference}`",
        "",
        "Bold where the interval excludes zero.",
        "",
        "| measure | " + " | ".join(f"`{name}`" for name in results["differences"]) + " |",
        "|---|" + ":---:|" * len(results["differences"]),
        *[
            f"| {words} | " + " | ".join(_difference(row, key) for row in results["differences"].values()) + " |"
            for key, words in results["measures"].items()
        ],
        "",
        "## Figures",
        "",
        "![Cosines of text embeddings](similarity.png)",
        "",
        "![AUC by wording](wordings.png)",
        "",
        f"![Measures by variant, a dot for each seed]({VARIANTS_FIGURE})",
    ]
    return write_page(folder, lines)


def write_results(folder: Path, results: Mapping[str, Any], name: str = "results.json") -> None:
    """Writes the results of an experiment, from which its page is written, as JSON."""
    with atomic_path(folder / name) as temporary:
        temporary.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_page(folder: Path, lines: Sequence[str]) -> Path:
    """Writes ``README.md`` of an experiment: title, `NOTES_FILE` if it exists, other lines. Returns the page."""
    notes = folder / NOTES_FILE
    noted = ["", notes.read_text(encoding="utf-8").strip()] if notes.is_file() else []
    written = [lines[0], *noted, *lines[1:]]
    page = folder / "README.md"
    with atomic_path(page) as temporary:
        temporary.write_text("\n".join(written) + "\n", encoding="utf-8")
    return page


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}" if abs(value) < 0.1 else f"{value:.3f}"


def _interval(limits: list[float | None]) -> str:
    return f"{_cell(limits[0])} to {_cell(limits[1])}"


def _with_sd(value: float | None, spread: float | None) -> str:
    return _cell(value) + (f" ({_cell(spread)})" if spread is not None else "")


def _difference(row: Mapping[str, Any], key: str) -> str:
    low, high = row[f"{key}_interval"]
    text = f"{_cell(row[key])} ({_interval([low, high])})"
    return f"**{text}**" if low is not None and (low > 0 or high < 0) else text


def _verdict(met: bool | None) -> str:
    return "not measured" if met is None else "met" if met else "**not met**"
