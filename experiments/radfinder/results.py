"""What the experiment on RadFinder's objectives found: its runs as a summary, and the summary as a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bundle.ctfindings.metrics.bootstrap import Bootstrap
from experiments.harness.page import VARIANTS_FIGURE, locked_tower_sentence
from experiments.harness.variants_plot import plot_variants

LOCALIZATIONS = {"localization": "in their own words", "localization_reworded": "reworded"}
PAIRS = (("siglip_prompts", "siglip"), ("radfinder", "siglip_prompts"))
"""What disease prompts add, and what localization changes."""


def radfinder_summary(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the seeds of each variant, and paired differences by seed.

    Args:
        results: of each run: ``variant``, ``seed``, ``macro_auc``, ``retrieval``, ``localization``,
            ``localization_reworded``, ``localization_trained``, and ``logits``, ``labels`` and ``patients`` of the test
            scans.

    Returns:
        ``variants`` and ``differences``, ready for JSON.
    """
    runs: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        runs.setdefault(result["variant"], []).append(result)
    differences = {
        f"{first} - {second}": [
            {"seed": one["seed"], "macro_auc": float(gap.estimate), "interval": [float(gap.low), float(gap.high)]}
            for one in runs[first]
            for other in runs[second]
            if one["seed"] == other["seed"]
            for gap in [Bootstrap(one["patients"]).auc_difference(one["logits"], other["logits"], one["labels"]).macro]
        ]
        for first, second in PAIRS
        if first in runs and second in runs
    }
    return {"variants": {variant: _variant(found) for variant, found in runs.items()}, "differences": differences}


def _variant(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    recalls = [run["retrieval"]["text_to_image"]["recall"]["10"] for run in runs]
    found: dict[str, Any] = {
        "macro_auc": _over_seeds(
            [run["macro_auc"]["value"] for run in runs], [run["macro_auc"]["interval"] for run in runs]
        ),
        "recall_at_10": _over_seeds(
            [recall["value"] for recall in recalls], [recall["interval"] for recall in recalls]
        ),
        "recall_at_10_chance": recalls[0]["chance"],
    }
    for name in LOCALIZATIONS:
        placed = [run[name]["all"] for run in runs if run[name] is not None and run["localization_trained"]]
        if placed:
            ratios = {key: [entry[key] for entry in placed] for key in ("mae_of_middle", "profile_mae_of_middle")}
            found[name] = {
                **{
                    key: _over_seeds([one["value"] for one in given], [one["interval"] for one in given])
                    for key, given in ratios.items()
                },
                "mae_mm": _over_seeds([entry["model"]["mae_mm"]["value"] for entry in placed]),
                "middle_mae_mm": placed[0]["middle"]["mae_mm"]["value"],
                "random_mae_mm": placed[0]["random"]["mae_mm"]["value"],
                "snippets": placed[0]["snippets"],
            }
    return found


def _over_seeds(values: Sequence[float], intervals: Sequence[Sequence[float]] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"mean": float(np.mean(values)), "seeds": [float(value) for value in values]}
    return (
        found
        if intervals is None
        else {**found, "intervals": [[float(bound) for bound in interval] for interval in intervals]}
    )


def expectations(summary: Mapping[str, Any]) -> list[tuple[str, bool, str]]:
    """What was expected before the runs, whether it holds for every seed, and the numbers.

    Args:
        summary: from ``radfinder_summary``.
    """
    variants, differences = summary["variants"], summary["differences"]
    found: list[tuple[str, bool, str]] = []
    placed = variants.get("radfinder", {})
    for name, words in LOCALIZATIONS.items():
        if name in placed:
            entry = placed[name]["mae_of_middle"]
            text = f"radfinder, snippets {words}: error below that of the middle slice"
            below = all(high < 1 for _, high in entry["intervals"])
            found.append((text, below, _listed(entry["seeds"], "{:.2f}", entry["intervals"])))
    if "siglip_prompts - siglip" in differences:
        gaps = differences["siglip_prompts - siglip"]
        measured = _listed([gap["macro_auc"] for gap in gaps], "{:+.3f}", [gap["interval"] for gap in gaps])
        text = "disease prompts raise the macro AUC over SigLIP alone"
        found.append((text, all(gap["interval"][0] > 0 for gap in gaps), measured))
    for name in ("radfinder", "ca_gcl", "unified"):
        if name in variants:
            entry, chance = variants[name]["recall_at_10"], variants[name]["recall_at_10_chance"]
            above = all(low > chance for low, _ in entry["intervals"])
            found.append(
                (
                    f"{name}: R@10 above chance ({chance:.3f})",
                    above,
                    _listed(entry["seeds"], "{:.3f}", entry["intervals"]),
                )
            )
    return found


def plot_radfinder(record: Mapping[str, Any], path: Path) -> None:
    """Draws AUC, recall and the errors of localization of each variant, a dot for each seed."""
    measures = {
        "macro_auc": "macro AUC",
        "recall_at_10": f"report finds its scan among {record['settings']['pool']}, R@10",
        **{name: f"error over that of the middle slice, snippets {words}" for name, words in LOCALIZATIONS.items()},
    }
    variants = {
        variant: {
            "seeds": {
                seed: {
                    **{key: row[key]["seeds"][index] for key in ("macro_auc", "recall_at_10")},
                    **{
                        name: row[name]["mae_of_middle"]["seeds"][index] if name in row else None
                        for name in LOCALIZATIONS
                    },
                }
                for index, seed in enumerate(record["settings"]["seeds"])
            }
        }
        for variant, row in record["variants"].items()
    }
    plot_variants({"measures": measures, "variants": variants, "tested": "radfinder"}, path, columns=2)


def radfinder_page(record: Mapping[str, Any]) -> list[str]:
    """The results as lines of Markdown.

    Args:
        record: ``settings`` of the experiment beside what ``radfinder_summary`` gave.
    """
    settings = record["settings"]
    lines = [
        "# RadFinder's objectives on synthetic scans",
        "",
        "## Experiment",
        "",
        "Synthetic scans and reports show a direction, not the values of the paper. "
        + locked_tower_sentence(settings)
        + f"Studies: {', '.join(f'{split} {count}' for split, count in settings['studies'].items())}. "
        + f"Seeds: {', '.join(str(seed) for seed in settings['seeds'])}. Made by",
        "",
        "```",
        settings["command"],
        "```",
        "",
        "| expected | holds | measured by seed, with 95 % intervals by patient |",
        "|---|---|---|",
        *(f"| {text} | {'yes' if holds else '**no**'} | {numbers} |" for text, holds, numbers in expectations(record)),
        "",
        "Means over the seeds. Error: mean distance of the most probable depth row divided by that of the middle "
        "slice; in brackets, the same for the depth that halves the profile. Snippets are those of the test scans, in "
        "their own wording and reworded with `docs/evaluation/paraphrases.json`; a third of it are near duplicates of "
        "training wordings.",
        "",
        "| variant | macro AUC | R@10 | chance | error | error, reworded |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for variant, row in record["variants"].items():
        cells = [
            f"{row['macro_auc']['mean']:.3f}",
            f"{row['recall_at_10']['mean']:.3f}",
            f"{row['recall_at_10_chance']:.3f}",
        ]
        for name in LOCALIZATIONS:
            means = (
                [row[name][key]["mean"] for key in ("mae_of_middle", "profile_mae_of_middle")] if name in row else None
            )
            cells.append("not trained" if means is None else f"{means[0]:.2f} ({means[1]:.2f})")
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return [*lines, "", f"![AUC, recall and error by variant, a dot for each seed]({VARIANTS_FIGURE})"]


def _listed(values: Sequence[float], form: str, intervals: Sequence[Sequence[float]] | None = None) -> str:
    if intervals is None:
        return ", ".join(form.format(value) for value in values)
    return ", ".join(
        f"{form.format(value)} ({form.format(low)} to {form.format(high)})"
        for value, (low, high) in zip(values, intervals, strict=True)
    )
