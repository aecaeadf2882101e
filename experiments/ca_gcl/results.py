"""Results of the comparison over seeds: numbers of each variant, paired differences, and verdicts on expectations.

Shapes: R resamples, S scans, M statistics.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.evaluation.diagnostics import DIAGNOSTICS_FILE, Diagnostics
from bundle.ctfindings.evaluation.diagnostics_record import statistic_groups
from bundle.ctfindings.metrics.bootstrap import Bootstrap, weighted_auc
from bundle.ctfindings.metrics.classification import FloatArray, macro_average
from bundle.ctfindings.metrics.json_numbers import interval_numbers, number
from bundle.ctfindings.metrics.statistic_groups import StatisticGroup, group_record
from bundle.ctfindings.metrics.wording_spread import auc_group
from experiments.ca_gcl.held_out_templates import LOGITS_FILE, TEMPLATES
from experiments.harness.over_seeds import difference, mean_over_seeds, variant_record

REFERENCE, TESTED = "fvlm", "ca_gcl"
"""Variants that the expectations compare."""

MEASURES: dict[str, tuple[str, str]] = {
    "macro_auc": ("scores.macro_auc", "macro AUC"),
    "template_sd": ("templates.sd", "SD of macro AUC over templates"),
    "held_out_sd": ("held_out.sd", f"SD of macro AUC over {len(TEMPLATES)} held-out templates"),
    "held_out_mean": ("held_out.mean", "mean of macro AUC over these templates"),
    "wording_sd": ("wordings.sd", "SD of macro AUC over perturbations"),
    "cross_mean": ("captions.cross_anatomy.mean", "mean cosine, captions of two anatomies"),
    "cross_sd": ("captions.cross_anatomy.sd", "SD of these cosines"),
    "cross_skewness": ("captions.cross_anatomy.skewness", "skewness of these cosines"),
    "cross_kurtosis": ("captions.cross_anatomy.excess_kurtosis", "excess kurtosis of these cosines"),
    "cross_above": ("captions.cross_anatomy.share_above", "share of these cosines above 0.9"),
    "normal_abnormal_mean": (
        "captions.normal_abnormal.mean",
        "mean cosine, normal and abnormal caption of one anatomy",
    ),
    "effective_rank": ("captions.effective_rank", "effective rank of the captions"),
    "anatomy_accuracy": ("captions.anatomy_accuracy", "nearest centroid is the own anatomy"),
    "recall_1": ("retrieval.report_to_scan.whole.r1", "report finds its scan, R@1"),
    "recall_1_drop": ("retrieval.report_to_scan.drop_r1", "R@1 lost with half of the sentences"),
    "recall_10_drop": ("retrieval.report_to_scan.drop_r10", "R@10 lost with half of the sentences"),
}
"""What the page shows: key, statistic as ``section.name``, and words."""


PRIMARY = ("macro_auc", "held_out_sd")
"""Outcomes that were named beforehand; the page marks no other difference."""

LEAST_MEAN_COSINE = -1 / (len(ANATOMY_NAMES) - 1)
"""Least mean cosine of vectors in as many balanced groups as there are anatomies."""


@dataclass(frozen=True)
class Expectation:
    """A claim about two variants that the numbers meet or fail.

    Attributes:
        text: The claim.
        statistic: Measures of the tested and of the reference variant, by key of ``MEASURES``, to one number per
            resample.
        holds: Whether the number meets the claim.
    """

    text: str
    statistic: Callable[[Mapping[str, FloatArray], Mapping[str, FloatArray]], FloatArray]
    holds: Callable[[float, float, float], bool]


EXPECTATIONS: tuple[Expectation, ...] = (
    Expectation(
        "The mean cosine of captions of two anatomies is lower by at least a third of what is within reach, which ends "
        f"at {LEAST_MEAN_COSINE:g}; the interval excludes zero.",
        lambda new, old: (old["cross_mean"] - new["cross_mean"]) / (old["cross_mean"] - LEAST_MEAN_COSINE),
        lambda value, low, high: value >= 1 / 3 and low > 0,
    ),
    Expectation(
        "Under 1 % of these pairs are above 0.9.",
        lambda new, old: new["cross_above"],
        lambda value, low, high: value < 0.01,
    ),
    Expectation(
        "|Skewness| is below 0.5.", lambda new, old: np.abs(new["cross_skewness"]), lambda value, low, high: value < 0.5
    ),
    Expectation(
        "|Excess kurtosis| is below 1.",
        lambda new, old: np.abs(new["cross_kurtosis"]),
        lambda value, low, high: value < 1,
    ),
    Expectation(
        "The SD of macro AUC over the templates is at most half "
        "(new minus half of the old; the interval excludes zero).",
        lambda new, old: new["template_sd"] - 0.5 * old["template_sd"],
        lambda value, low, high: high < 0,
    ),
    Expectation(
        "The same over the held-out templates.",
        lambda new, old: new["held_out_sd"] - 0.5 * old["held_out_sd"],
        lambda value, low, high: high < 0,
    ),
    Expectation(
        "Macro AUC is not lower by 0.01 or more: the interval ends above -0.01.",
        lambda new, old: new["macro_auc"] - old["macro_auc"],
        lambda value, low, high: low > -0.01,
    ),
    Expectation(
        "The drop of R@1 with half of the sentences is at most half "
        "(new minus half of the old; the interval excludes zero).",
        lambda new, old: new["recall_1_drop"] - 0.5 * old["recall_1_drop"],
        lambda value, low, high: high < 0,
    ),
)
"""Expected of ``ca_gcl`` against ``fvlm``, each over the mean of the seeds."""


def experiment_results(
    evaluations: Mapping[str, Mapping[int, Path]],
    titles: Mapping[str, str],
    settings: Mapping[str, Any],
    resamples: int,
) -> dict[str, Any]:
    """The content of ``results.json``.

    Intervals are those of the mean over the seeds, by a bootstrap that draws patients and seeds. All variants are
    scored on the same scans and use the same draws. The SD over the seeds is reported separately.

    Args:
        evaluations: Folder of the evaluation of each variant and seed.
        titles: Titles of the variants.
        settings: Settings of the experiment, kept in the results.
        resamples: Bootstrap resamples.

    Raises:
        ValueError: Runs were scored on different scans.
    """
    answers = {
        name: {run: Diagnostics.load(path / DIAGNOSTICS_FILE) for run, path in runs.items()}
        for name, runs in evaluations.items()
    }
    first = next(iter(answers[REFERENCE].values()))
    for name, runs in answers.items():
        for run, given in runs.items():
            if given.ids.tolist() != first.ids.tolist():
                raise ValueError(
                    f"{evaluations[name][run]}: was scored on other scans than {REFERENCE}; run both on one datalist"
                )
    bootstrap = Bootstrap(first.patients.tolist(), resamples, seed=0)
    measured = {
        name: {run: _measures(given, evaluations[name][run] / LOGITS_FILE) for run, given in runs.items()}
        for name, runs in answers.items()
    }
    over_seeds = {name: mean_over_seeds(list(runs.values())) for name, runs in measured.items()}
    results: dict[str, Any] = {
        "settings": dict(settings),
        "scans": len(bootstrap.patients),
        "bootstrap": {**bootstrap.settings(), "unit": "patient and seed"},
        "measures": {key: words for key, (_, words) in MEASURES.items()},
        "variants": {
            name: variant_record(titles[name], runs, over_seeds[name], bootstrap) for name, runs in measured.items()
        },
        "differences": {
            name: group_record(difference(over_seeds[name], over_seeds[REFERENCE]), bootstrap)
            for name in answers
            if name != REFERENCE
        },
        "reference": REFERENCE,
        "tested": TESTED,
        "primary": list(PRIMARY),
        "expectations": [],
    }
    if TESTED in over_seeds:
        results["expectations"] = [
            _checked(expectation, over_seeds[TESTED], over_seeds[REFERENCE], bootstrap) for expectation in EXPECTATIONS
        ]
    return results


def _measures(answers: Diagnostics, held_out: Path) -> StatisticGroup:
    """``MEASURES`` of one run; NaN where it lacks the input."""
    parts = {**statistic_groups(answers), "scores": _macro_auc(answers)}
    if held_out.is_file():
        with np.load(held_out, allow_pickle=False) as content:
            names = [f"H{row + 1}" for row in range(len(TEMPLATES))]
            parts["held_out"] = auc_group(content["logits"], answers.labels, names)
    wanted = [statistic.partition(".")[::2] for statistic, _ in MEASURES.values()]

    def statistic(weights: FloatArray) -> FloatArray:
        computed = {
            name: parts[name].statistic(weights) for name in {section for section, _ in wanted} if name in parts
        }
        missing = np.full(len(weights), np.nan)
        return np.stack(
            [
                computed[part][:, parts[part].names.index(name)] if part in computed else missing
                for part, name in wanted
            ],
            axis=1,
        )

    return StatisticGroup(tuple(MEASURES), statistic)


def _macro_auc(answers: Diagnostics) -> StatisticGroup:
    def statistic(weights: FloatArray) -> FloatArray:
        return np.asarray([[macro_average(row)] for row in weighted_auc(answers.logits, answers.labels, weights)])

    return StatisticGroup(("macro_auc",), statistic)


def _checked(
    expectation: Expectation, tested: StatisticGroup, reference: StatisticGroup, bootstrap: Bootstrap
) -> dict[str, Any]:
    def statistic(weights: FloatArray) -> FloatArray:
        new, old = (dict(zip(part.names, part.statistic(weights).T, strict=True)) for part in (tested, reference))
        return expectation.statistic(new, old)

    interval = bootstrap.interval(statistic)
    value, low, high = (float(part) for part in (interval.estimate, interval.low, interval.high))
    met = bool(expectation.holds(value, low, high)) if np.isfinite(value) else None
    return {"text": expectation.text, "value": number(value), "interval": interval_numbers(low, high), "met": met}
