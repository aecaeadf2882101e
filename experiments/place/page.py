"""The page of the comparison, written from ``results.json`` alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.harness.cells import cell, difference_cell, interval_cell, with_sd
from experiments.harness.page import VARIANTS_FIGURE, page_head, write_page, write_results
from experiments.harness.variants_plot import plot_variants
from experiments.place.real_tumours import NAME as REAL_TUMOURS

PARTS = ("rows", "queries")
"""Parts of the score of a finding, see ``macro_auc_of_parts`` in ``metrics.json``."""


def write_results_and_page(folder: Path, results: Mapping[str, Any], command: str) -> Path:
    """Writes ``results.json``, the figure and ``README.md``, and returns the page.

    Args:
        folder: Folder of the page.
        results: From ``place_results``.
        command: Command that produced the results.
    """
    write_results(folder, results)
    plot_variants(results, folder / VARIANTS_FIGURE)
    return write_place_page(folder, command)


def write_place_page(folder: Path, command: str) -> Path:
    """Writes ``README.md`` from ``results.json`` and, if it exists, ``notes.md``."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    counts, variants = results["settings"]["studies"], results["variants"]
    lines = [
        *page_head("PLACE on synthetic scans: what each part adds", command),
        f"Trained on {counts['training']} scans, calibrated on {counts['validation']}, scored on {results['scans']}. "
        f"Intervals: 95 % percentile bootstrap by {results['bootstrap']['unit']} of the mean over the seeds, "
        f"{results['bootstrap']['resamples']} resamples, the same for all variants. PLACE here is our reading of the "
        "abstract ([place.md](../../place.md)). The reports are written by a grammar, so matching sentences is close "
        "to matching labels, and gains of the alignment are upper bounds.",
        "",
        "## Variants",
        "",
        *[f"- `{name}`: {row['title']}; seeds {', '.join(row['seeds'])}" for name, row in variants.items()],
        "",
        "Mean over the seeds, SD over the seeds in brackets. Pointing is the share of lesions that the peak of a map "
        "hits within 15 mm; Dice is that of a small decoder on the frozen tower.",
        "",
        "| measure | " + " | ".join(f"`{name}`" for name in variants) + " |",
        "|---|" + "---:|" * len(variants),
        *[
            f"| {words} | "
            + " | ".join(with_sd(row["mean"][key], row["sd_over_seeds"][key]) for row in variants.values())
            + " |"
            for key, words in results["measures"].items()
        ],
        "",
        "The macro AUC joins the anatomy rows, which the local objective trains, with the pathology queries. Alone:",
        "",
        "| part | " + " | ".join(f"`{name}`" for name in variants) + " |",
        "|---|" + "---:|" * len(variants),
        *[f"| {part} | " + " | ".join(_of_part(row, part) for row in variants.values()) + " |" for part in PARTS],
        "",
        *_differences(results),
        "## Does it observe pathology?",
        "",
        "Tests that could refute it, by variant and seed ([validity.py](../../../experiments/place/validity.py)).",
        "",
        "| test | variant | seed | value | interval | limit | |",
        "|---|---|---:|---:|:---:|---:|---|",
        *_tests(variants),
        "",
        "## Figure",
        "",
        f"![Measures by variant, a dot for each seed]({VARIANTS_FIGURE})",
        *_real_tumours(folder),
    ]
    return write_page(folder, lines)


def _real_tumours(folder: Path) -> list[str]:
    """The section of the real scans; empty if the experiment had none."""
    path = folder / f"{REAL_TUMOURS}.json"
    if not path.is_file():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    return [
        "",
        "## Real scans with a tumour",
        "",
        f"Attention of the query that is nearest to the statement of *{found['finding'].lower()}*. The percentile is "
        "the mean over the tumour's tokens among those of the body by attention (0.5 is chance). Three scans decide "
        f"nothing ([{path.name}]({path.name})).",
        "",
        "| scan | percentile of the tumour | peak to tumour, mm | random token, mm |",
        "|---|---:|---:|---:|",
        *[
            f"| {row['scan']} | {row['percentile']:.2f} | {row['peak_to_tumour_mm']:.0f} "
            f"| {row['random_to_tumour_mm']:.0f} |"
            for row in found["scans"]
        ],
        "",
        f"![Attention in colour, outline of the tumour in cyan]({REAL_TUMOURS}.png)",
    ]


def _differences(results: Mapping[str, Any]) -> list[str]:
    """The section of the differences; empty with the reference alone."""
    differences, measures, variants = results["differences"], results["measures"], results["variants"]
    if not differences:
        return []
    return [
        f"## `{results['reference']}` minus a variant",
        "",
        "On the seeds that both have. Outcomes that were named beforehand, where the part is expected to help, are "
        "bold if their interval excludes zero. The others are described, not tested.",
        "",
        "| without | named beforehand | difference | verdict |",
        "|---|---|:---:|---|",
        *[
            f"| {variants[name]['title']} | {measures[key]} | {difference_cell(row, key, row['own'])} "
            f"| {_gain(row[f'{key}_interval'])} |"
            for name, row in differences.items()
            for key in row["own"]
        ],
        "",
        "| measure | " + " | ".join(f"`{name}`" for name in differences) + " |",
        "|---|" + ":---:|" * len(differences),
        *[
            f"| {words} | " + " | ".join(difference_cell(row, key, row["own"]) for row in differences.values()) + " |"
            for key, words in measures.items()
        ],
        "",
    ]


def _of_part(variant: Mapping[str, Any], part: str) -> str:
    """Mean macro AUC over the seeds by a part of the scores."""
    values = [found[part] for found in variant["macro_auc_of_parts"].values() if found and found[part] is not None]
    return cell(sum(values) / len(values)) if values else "-"


def _gain(limits: list[float | None]) -> str:
    low, high = limits
    if low is None or high is None:
        return "not measured"
    return "helps" if low > 0 else "**harms**" if high < 0 else "no gain shown"


def _tests(variants: Mapping[str, Any]) -> list[str]:
    names = dict.fromkeys(name for row in variants.values() for tests in row["tests"].values() for name in tests or {})
    return [
        f"| {name} | `{variant}` | {seed} | {_numbers(tests[name])} "
        f"| {'passed' if tests[name]['passed'] else '**refuted**'} |"
        for name in names
        for variant, row in variants.items()
        for seed, tests in row["tests"].items()
        if tests and tests.get(name)
    ]


def _numbers(test: Mapping[str, Any]) -> str:
    """Value, interval and limit of a test."""
    if "value" in test:
        return f"{cell(test['value'])} | {interval_cell(test['interval'])} | {cell(test['above'])}"
    if "effective" in test:
        return f"{test['effective']:.1f} used, cosine {cell(test['cosine'])}, rank {test['rank']:g} | - | -"
    return f"{cell(test['cce_gap'])} | {interval_cell([test.get('cce_gap_low'), test.get('cce_gap_high')])} | 0.0100"
