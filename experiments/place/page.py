"""The page of the comparison, written from ``results.json`` alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.harness.cells import cell, difference_cell, interval_cell, with_sd
from experiments.harness.page import VARIANTS_FIGURE, page_head, write_page, write_results
from experiments.harness.variants_plot import plot_variants
from experiments.place.real_tumours import NAME as REAL_TUMOURS
from experiments.place.results import REFERENCE
from experiments.place.validity import GAP_LIMIT

FURTHER_TESTS = "further_tests.json"
"""Written by ``measure_again.py``."""

PARTS = ("rows", "queries")
"""Parts of the score of a finding, see ``macro_auc_of_parts`` in ``metrics.json``."""


def write_results_and_page(folder: Path, results: Mapping[str, Any], command: str) -> Path:
    """Writes ``results.json``, the figure and ``README.md``, and returns the page.

    Args:
        folder: Folder of the page.
        results: From ``place_results``.
        command: Command that produced the results.
    """
    write_results(folder, {"command": command, **results})
    plot_variants(results, folder / VARIANTS_FIGURE)
    return write_place_page(folder)


def write_place_page(folder: Path) -> Path:
    """Writes ``README.md`` from ``results.json`` and, if it exists, ``notes.md``."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    counts, variants = results["settings"]["studies"], results["variants"]
    lines = [
        *page_head("PLACE on synthetic scans: what each part adds", results["command"]),
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
        "Mean over the seeds, SD over the seeds in brackets. Pointing is the share of scans with a lesion in which the "
        "peak of a map lies within 15 mm of it, the mean over the findings with masks; by finding it is below. Dice is "
        "that of a small decoder on the frozen tower. A dash was not measured: the downstream tasks are run where the "
        "outcome that was named beforehand needs them, and to save time detection and segmentation were not run on "
        "`no_alignment`, `one_query` and `no_use`.",
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
        *_by_finding(variants),
        "The macro AUC joins the anatomy rows, which the local objective trains, with the pathology queries. Alone:",
        "",
        "| part | " + " | ".join(f"`{name}`" for name in variants) + " |",
        "|---|" + "---:|" * len(variants),
        *[f"| {part} | " + " | ".join(_of_part(row, part) for row in variants.values()) + " |" for part in PARTS],
        "",
        *_differences(results),
        "## Does it observe pathology?",
        "",
        "Tests that could refute it, by variant and seed ([validity.py](../../../experiments/place/validity.py)). "
        "Passed: the interval lies above the limit; refuted: it lies at or below it; not shown: it holds the limit, so "
        "the scans do not decide. The gaps of the correlations pass by their value, with an interval above 0. Of "
        "four controls of the attention three are measured: the map of the anatomy head is missing, because "
        "`place.json` does not train that head.",
        "",
        "| test | variant | seed | value | interval | limit | |",
        "|---|---|---:|---:|:---:|---:|---|",
        *_tests(variants),
        "",
        *_further_tests(folder),
        "## Figure",
        "",
        f"![Measures by variant, a dot for each seed]({VARIANTS_FIGURE})",
        *_real_tumours(folder),
    ]
    return write_page(folder, lines)


def _by_finding(variants: Mapping[str, Any]) -> list[str]:
    """Hits of the map ``answer`` by finding; empty if no run has detection."""
    found = {
        f"`{name}`, seed {seed}": hits
        for name, row in variants.items()
        for seed, hits in row["pointing_answer_by_finding"].items()
        if hits and any(each["scans"] for each in hits.values())
    }
    if not found:
        return []
    findings = list(next(iter(found.values())))
    rows = []
    for run, hits in found.items():
        total = {key: sum(each[key] for each in hits.values()) for key in ("hits", "scans")}
        rows.append(f"| {run} | " + " | ".join(_share(each) for each in (*hits.values(), total)) + " |")
    return [
        "Pointing with the map `answer` by finding: hits of scans with a lesion.",
        "",
        f"| run | {' | '.join(findings)} | all |",
        "|---|" + "---:|" * (len(findings) + 1),
        *rows,
        "",
    ]


def _share(counts: Mapping[str, int]) -> str:
    hits, scans = counts["hits"], counts["scans"]
    return f"{hits} of {scans} ({hits / scans:.3f})" if scans else "-"


def _further_tests(folder: Path) -> list[str]:
    """The section of ``FURTHER_TESTS``; empty if they were not run."""
    path = folder / FURTHER_TESTS
    if not path.is_file():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    words, explained, size = (
        found[name]
        for name in (
            "words in random order",
            "correlations against their controls",
            "gap of the correlations by size of the lesions",
        )
    )
    r2 = {name: explained[name] for name in ("model", "pair_of_classes", "positions")}
    largest = size["largest_minus_smallest"]
    said = {
        "words": _verdict(words["passed"], words["interval"]),
        "explained": _verdict(explained["passed"], None),
        "size": _verdict(size["passed"], largest["interval"]),
    }
    return [
        "### Without training",
        "",
        f"Of `{REFERENCE}`, by `{found['command']}` ([{path.name}]({path.name})).",
        "",
        f"- **Words in random order** ({said['words']}): R@10 of the score `set` is {cell(words['written'])} with the "
        f"sentences as written and {cell(words['shuffled'])} with their words shuffled, a fall of "
        f"{cell(words['value'])} ({interval_cell(words['interval'])}).",
        f"- **Correlations against their controls** ({said['explained']}): share of the variance that is explained: "
        f"{_with_interval(r2['model'])} by the model, {_with_interval(r2['pair_of_classes'])} by the mean of a pair of "
        f"tissue classes, which sees the tissue of hidden patches too, {_with_interval(r2['positions'])} by a "
        "perceptron on positions alone. Both controls are fitted on the validation scans.",
        f"- **Gap of the correlations by size of the lesions** ({said['size']}): "
        + ", ".join(f"{cell(each['cce_gap'])} up to {each['largest_ml']:.1f} ml" for each in size["thirds"])
        + f"; largest minus smallest third {_with_interval(largest)}.",
        "",
    ]


def _with_interval(entry: Mapping[str, Any]) -> str:
    return f"{cell(entry['value'])} ({interval_cell(entry['interval'])})"


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
        f"| {name} | `{variant}` | {seed} | {_numbers(tests[name])} |"
        for name in names
        for variant, row in variants.items()
        for seed, tests in row["tests"].items()
        if tests and tests.get(name)
    ]


def _verdict(passed: bool, interval: Sequence[float | None] | None, limit: float = 0.0) -> str:
    """``passed``; ``refuted`` if the interval lies at or below the limit, or there is none; else ``not shown``."""
    if passed:
        return "passed"
    high = None if interval is None else interval[1]
    return "**refuted**" if high is None or high <= limit else "not shown"


def _numbers(test: Mapping[str, Any]) -> str:
    """Value, interval, limit and verdict of a test."""
    if "effective" in test:
        used = f"{test['effective']:.1f} used, cosine {cell(test['cosine'])}, rank {test['rank']:g}"
        return f"{used} | - | - | {_verdict(test['passed'], None)}"
    if "value" in test:
        value, interval, limit = test["value"], test["interval"], test["above"]
    else:
        value, interval, limit = test["cce_gap"], [test.get("cce_gap_low"), test.get("cce_gap_high")], GAP_LIMIT
    return f"{cell(value)} | {interval_cell(interval)} | {cell(limit)} | {_verdict(test['passed'], interval, limit)}"
