"""The page of the comparison: its figures, and a Markdown page written from ``results.json`` alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.ctfindings.evaluation.diagnostics import DIAGNOSTICS_FILE, Diagnostics
from bundle.ctfindings.evaluation.diagnostics_record import collapse_histograms
from bundle.ctfindings.evaluation.plots import plot_cosine_histograms, plot_wordings, wording_auc
from experiments.ca_gcl.results import LEAST_MEAN_COSINE
from experiments.harness.cells import cell, interval_cell, seeded_difference_cell, with_sd
from experiments.harness.over_seeds import seed_interval
from experiments.harness.page import VARIANTS_FIGURE, locked_tower_sentence, page_head, write_page
from experiments.harness.variants_plot import plot_variants


def write_experiment_figures(
    folder: Path, results: Mapping[str, Any], evaluations: Mapping[str, Mapping[int, Path]]
) -> None:
    """Writes ``similarity.png``, ``wordings.png`` (first seed) and ``variants.png`` (all seeds).

    Args:
        folder: Folder of the page.
        results: Content of ``results.json``, from ``experiment_results``.
        evaluations: Folder of the evaluation of each variant and seed.
    """
    shown = [name for name in ("initial", results["reference"], results["tested"]) if name in evaluations]
    answers = {name: Diagnostics.load(next(iter(evaluations[name].values())) / DIAGNOSTICS_FILE) for name in shown}
    histograms = {name: collapse_histograms(given) for name, given in answers.items()}
    plot_cosine_histograms(histograms, folder / "similarity.png")
    compared = [name for name in (results["reference"], results["tested"]) if name in answers]
    plot_wordings({name: wording_auc(answers[name]) for name in compared}, folder / "wordings.png")
    plot_variants(results, folder / VARIANTS_FIGURE)


def write_experiment_page(folder: Path, title: str, command: str) -> Path:
    """Writes ``README.md`` from ``results.json`` and, if it exists, ``notes.md``.

    Args:
        folder: Folder with ``results.json`` and the figures.
        title: Title of the page.
        command: Command that produced the results.
    """
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    reference, tested = results["reference"], results["tested"]
    seeds = sorted({seed for variant in results["variants"].values() for seed in variant["seeds"]}, key=int)
    by_seed = {name: variant["seeds"] for name, variant in results["variants"].items()}
    counts = results["settings"].get("studies", {})
    lines = [
        *page_head(title, command, results.get("commit")),
        locked_tower_sentence(results["settings"])
        + f"Trained on {counts.get('training', '?')} scans, calibrated on {counts.get('validation', '?')}, "
        f"scored on {results['scans']}; "
        f"seeds {', '.join(seeds)}. Intervals: 95 % percentile bootstrap "
        f"by {results['bootstrap']['unit']} of the mean over the seeds, {results['bootstrap']['resamples']} resamples, "
        "the same for all variants. The measures are defined in "
        "[diagnostics.md](../../diagnostics.md).",
        "",
        *_expectations(results, tested, reference),
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
                with_sd(variant["mean"][key], variant["sd_over_seeds"][key]) for variant in results["variants"].values()
            )
            + " |"
            for key, words in results["measures"].items()
        ],
        "",
        f"## Differences from `{reference}`",
        "",
        f"Primary outcomes: {' and '.join(results['measures'][key] for key in results['primary'])}, "
        + (
            "bold where the interval over the seeds (Student's t) excludes zero. "
            if len(seeds) > 1
            else "neither bold: an interval over the seeds needs at least two. "
        )
        + "The others are described, not tested.",
        "",
        "| measure | " + " | ".join(f"`{name}`" for name in results["differences"]) + " |",
        "|---|" + ":---:|" * len(results["differences"]),
        *[
            f"| {words} | "
            + " | ".join(
                seeded_difference_cell(
                    row, key, results["primary"], seed_interval(by_seed[name], by_seed[reference], key)
                )
                for name, row in results["differences"].items()
            )
            + " |"
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


def _expectations(results: Mapping[str, Any], tested: str, reference: str) -> list[str]:
    """The lines on what was expected; none if the tested variant was not run."""
    if not results["expectations"]:
        return []
    return [
        "## Expectations",
        "",
        f"Of `{tested}` against `{reference}`.",
        "",
        "| expectation | value | interval | |",
        "|---|---:|:---:|---|",
        *[
            f"| {row['text'].replace('|', chr(92) + '|')} | {cell(row['value'])} "
            f"| {interval_cell(row['interval'])} | {_verdict(row)} |"
            for row in results["expectations"]
        ],
        "",
        _reach(results, tested, reference),
        "",
    ]


def _reach(results: Mapping[str, Any], tested: str, reference: str) -> str:
    """How much of the reachable drop of the mean cosine of two anatomies a variant covers."""
    start, end = (results["variants"][name]["mean"]["cross_mean"] for name in (reference, tested))
    share = (start - end) / (start - LEAST_MEAN_COSINE)
    return (
        f"The mean cosine of captions of two anatomies can fall to {LEAST_MEAN_COSINE:.1f} at most, if the anatomies "
        f"have equal shares. `{tested}` covers {share:.2f} of the way from `{reference}` to there."
    )


def _verdict(row: Mapping[str, Any]) -> str:
    if row.get("out_of_reach"):
        return "cannot be met"
    return "not measured" if row["met"] is None else "met" if row["met"] else "**not met**"
