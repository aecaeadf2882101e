"""Comparison of text towers after the same training: zero-shot AUC, free-text paraphrases and size."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.harness.page import page_head, write_page, write_results
from experiments.harness.runs import Variant, reduced_datalist, run_variant

TEXT_TOWERS: tuple[Variant, ...] = (
    Variant("pretrained_frozen", "pretrained MiniLM-L6, frozen, trained heads", ()),
    Variant("pretrained_tuned", "pretrained MiniLM-L6, last two layers trained", (), {"text_trainable_layers": 2}),
    Variant("from_scratch", "compact BERT of three layers, trained from nothing", ("networks/text_from_scratch.json",)),
)
"""The compared towers; all other keys are those of ``train.json``."""


def compare_text_towers(
    seeds: Sequence[int],
    datalist: str | Path,
    output: Path,
    work: Path,
    keys: Mapping[str, Any],
    command: str,
    scans: Sequence[int] | None = None,
    resamples: int = 1000,
) -> Path:
    """Runs what is missing, writes ``results.json`` and the page ``README.md``, and returns the page.

    Args:
        seeds: Random seeds of the runs.
        datalist: JSON file or its folder.
        output: Folder of the page.
        work: Folder of the runs.
        keys: Config keys of all runs.
        command: Command for the page.
        scans: Scans of ``training``, ``validation`` and ``test``; None uses all.
        resamples: Bootstrap resamples.

    Raises:
        ValueError: A run failed, or the datalist has too few scans.
    """
    used = reduced_datalist(datalist, scans, work)
    towers: dict[str, Any] = {variant.name: {"title": variant.title, "runs": []} for variant in TEXT_TOWERS}
    for seed in seeds:
        for variant in TEXT_TOWERS:
            evaluation = run_variant(variant, seed, used, work, keys, resamples)
            towers[variant.name]["runs"].append({"seed": seed, **_read_run(evaluation)})
    results = {
        "command": command,
        "settings": {
            "scans": scans,
            "keys": {key: value for key, value in keys.items() if key != "cache_dir"},
            "resamples": resamples,
        },
        "towers": towers,
    }
    write_results(output, results)
    return write_tower_page(output, results)


def write_tower_page(output: Path, results: Mapping[str, Any]) -> Path:
    """Writes the results of `compare_text_towers` and ``notes.md`` as ``README.md``, and returns its path."""
    lines = [
        *page_head("Text towers", results["command"]),
        "Paraphrases: the share of `docs/evaluation/paraphrases.json` that ranks its finding first. "
        "Size: tower and heads in half precision, without the vocabulary (0.7 MB).",
        "",
        "| tower | seed | macro AUC | interval | lowest | SD over templates | paraphrases | in the first three "
        "| size, MB |",
        "|---|---:|---:|:---:|---:|---:|---:|---:|---:|",
    ]
    for tower in results["towers"].values():
        for run in tower["runs"]:
            low, high = run["macro_auc_interval"]
            lines.append(
                f"| {tower['title']} | {run['seed']} | {run['macro_auc']:.3f} | {low:.3f} to {high:.3f} "
                f"| {run['lowest_auc']:.3f} | {run['template_sd']:.4f} | {run['paraphrases']:.2f} "
                f"| {run['paraphrases_within_3']:.2f} | {run['text_megabytes']:.1f} |"
            )
    return write_page(output, lines)


def _read_run(evaluation: Path) -> dict[str, Any]:
    """The compared numbers of a run."""
    metrics = json.loads((evaluation / "metrics.json").read_text(encoding="utf-8"))
    macro, paraphrases = metrics["macro"], metrics["paraphrases"]
    return {
        "macro_auc": macro["auc"],
        "macro_auc_interval": macro["auc_interval"],
        "lowest_auc": macro["auc_lowest"],
        "template_sd": metrics["templates"]["sd"],
        "paraphrases": paraphrases["accuracy"],
        "paraphrases_within_3": paraphrases["accuracy_within_3"],
        "text_megabytes": metrics["settings"]["text_parameters"] * 2 / 1e6,
    }
