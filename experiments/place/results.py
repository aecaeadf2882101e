"""Results of the comparison over seeds: what each part of PLACE adds to its own task, by paired differences.

Shapes: R resamples, S scans, F findings, M statistics.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bundle.ctfindings.downstream.result_numbers import scan_means
from bundle.ctfindings.evaluation.diagnostics import DIAGNOSTICS_FILE, Diagnostics
from bundle.ctfindings.metrics.bootstrap import Bootstrap, weighted_auc
from bundle.ctfindings.metrics.classification import FloatArray, macro_averages
from bundle.ctfindings.metrics.statistic_groups import StatisticGroup, group_record
from experiments.harness.over_seeds import difference, mean_over_seeds, variant_record
from experiments.harness.runs import code_version
from experiments.harness.task_results import MASKED, dice, pointed, retrieved

REFERENCE = "place"
"""The whole of PLACE, from which parts are taken away."""

MEASURES: dict[str, tuple[str, str | None, Callable[[Path, Sequence[str]], FloatArray] | None]] = {
    "macro_auc": ("macro AUC by prompts", None, None),
    "retrieval_set": (
        "scan finds its report, R@10, score set",
        "retrieval",
        lambda folder, ids: retrieved(folder, ids, "set"),
    ),
    "retrieval_global": ("the same, score global", "retrieval", lambda folder, ids: retrieved(folder, ids, "global")),
    "pointing_answer": ("pointing, map answer", "detection", lambda folder, ids: pointed(folder, ids, "answer")),
    "pointing_field": ("pointing, map field", "detection", lambda folder, ids: pointed(folder, ids, "field")),
    "pointing_chance": (
        "pointing, random token where the map may peak",
        "detection",
        lambda folder, ids: pointed(folder, ids, "field", "pointing_chance"),
    ),
    "dice": ("Dice of findings, frozen tower", "segmentation", dice),
}
"""What the page shows: key, words, task, and the values of each scan; the macro AUC is of all scans together."""

OWN_TASKS: dict[str, tuple[str, ...]] = {
    "initial": ("retrieval_set", "pointing_answer", "dice"),
    "no_alignment": ("retrieval_set", "pointing_answer"),
    "no_correlation": ("dice", "pointing_field"),
    "one_query": ("retrieval_set",),
    "no_use": ("retrieval_set",),
}
"""Outcomes that were named before anything was run: where the whole has to be better than the variant without a part.
Others that were named later, with results at hand, are described and not tested."""


@dataclass(frozen=True)
class Finished:
    """A run that was evaluated.

    Attributes:
        title: Title of the variant.
        evaluation: Folder of its evaluation.
        tasks: Folder of its downstream tasks.
        tests: What ``validity.verdicts`` found; None for a run without pathology queries.
    """

    title: str
    evaluation: Path
    tasks: Path
    tests: Mapping[str, Any] | None


def place_results(
    runs: Mapping[str, Mapping[int, Finished]], settings: Mapping[str, Any], resamples: int
) -> dict[str, Any]:
    """The content of ``results.json``.

    Intervals are those of the mean over the seeds, by a bootstrap that draws patients and, if there are several, seeds.
    A difference is that of ``REFERENCE`` minus another variant, on the seeds that both have and on the same draws.

    Args:
        runs: Runs by variant and seed.
        settings: Settings of the experiment, kept in the results.
        resamples: Bootstrap resamples.

    Raises:
        ValueError: ``REFERENCE`` was not run, or runs were scored on different scans.
    """
    if REFERENCE not in runs:
        raise ValueError(f"variants: expected {REFERENCE}, the reference, among them")
    first = next(iter(runs[REFERENCE].values()))
    scored = Diagnostics.load(first.evaluation / DIAGNOSTICS_FILE)
    ids = scored.ids.tolist()
    bootstrap = Bootstrap(scored.patients.tolist(), resamples, seed=0)
    several = any(len(of) > 1 for of in runs.values())
    measured = {name: {seed: _measures(run, ids) for seed, run in of.items()} for name, of in runs.items()}
    results: dict[str, Any] = {
        "settings": dict(settings),
        "code": code_version(),
        "scans": len(ids),
        "bootstrap": {**bootstrap.settings(), "unit": "patient and seed" if several else "patient"},
        "measures": {key: words for key, (words, _, _) in MEASURES.items()},
        "reference": REFERENCE,
        "tested": REFERENCE,
        "variants": {},
        "differences": {},
    }
    for name, of in measured.items():
        title = next(iter(runs[name].values())).title
        record = variant_record(title, of, mean_over_seeds(list(of.values())), bootstrap)
        of_run = {str(seed): run for seed, run in runs[name].items()}
        record["tests"] = {seed: run.tests for seed, run in of_run.items()}
        record["macro_auc_of_parts"] = {seed: _metrics(run).get("macro_auc_of_parts") for seed, run in of_run.items()}
        record["pointing_answer_by_finding"] = {seed: _by_finding(run, ids) for seed, run in of_run.items()}
        record["observation_weight"] = {seed: _observation_weight(run) for seed, run in of_run.items()}
        results["variants"][name] = record
        both = sorted(set(of) & set(measured[REFERENCE]))
        if name != REFERENCE and both:
            whole, part = (mean_over_seeds([measured[which][seed] for seed in both]) for which in (REFERENCE, name))
            found = group_record(difference(whole, part), bootstrap)
            results["differences"][name] = {"seeds": both, "own": list(OWN_TASKS.get(name, ())), **found}
    return results


def _measures(run: Finished, ids: Sequence[str]) -> StatisticGroup:
    """``MEASURES`` of a run; NaN where it lacks the input, or the task was not run."""
    scored = Diagnostics.load(run.evaluation / DIAGNOSTICS_FILE)
    if scored.ids.tolist() != list(ids):
        raise ValueError(f"{run.evaluation}: was scored on other scans than {REFERENCE}; run both on one datalist")
    values = [
        read(run.tasks, ids) if (run.tasks / str(task)).is_dir() else np.full((len(ids), 1), np.nan)
        for _, task, read in MEASURES.values()
        if read is not None
    ]

    def statistic(weights: FloatArray) -> FloatArray:
        auc = weighted_auc(scored.logits, scored.labels, weights)
        return np.stack(
            [macro_averages(each) for each in (auc, *(scan_means(each, weights) for each in values))], axis=1
        )

    return StatisticGroup(tuple(MEASURES), statistic)


def _by_finding(run: Finished, ids: Sequence[str]) -> dict[str, dict[str, int]] | None:
    """Scans with a lesion of each finding, and those in which the peak of the map ``answer`` hits one."""
    if not (run.tasks / "detection").is_dir():
        return None
    found = pointed(run.tasks, ids, "answer")
    return {
        name: {"scans": int((~np.isnan(column)).sum()), "hits": int(np.nansum(column))}
        for name, column in zip(MASKED, found.T, strict=True)
    }


def _observation_weight(run: Finished) -> float | None:
    """The weight of the queries in the score of a finding, fitted on the calibration scans."""
    weight: float | None = _metrics(run)["calibration"].get("observation_weight")
    return weight


def _metrics(run: Finished) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((run.evaluation / "metrics.json").read_text(encoding="utf-8"))
    return record
