"""The evaluation record of one split: every classification score of the findings as one JSON-ready dictionary.

Shapes: S scans, T templates, C findings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bundle.ctfindings.metrics.bootstrap import bootstrap_auc
from bundle.ctfindings.metrics.calibration import expected_calibration_error
from bundle.ctfindings.metrics.classification import (
    FloatArray,
    balanced_accuracy,
    check_scores,
    check_thresholds,
    finding_accuracy,
    finding_average_precision,
    finding_f1,
    finding_precision,
    macro_average,
    sensitivity_specificity,
    weighted_f1,
)
from bundle.ctfindings.metrics.json_numbers import cell, interval_numbers, number
from bundle.ctfindings.metrics.robustness import auc_by_wording, sd_over_wordings, wording_record
from bundle.ctfindings.metrics.thresholds import check_disjoint


def evaluate_split(
    probabilities: ArrayLike,
    logits_by_template: ArrayLike,
    labels: ArrayLike,
    ids: Sequence[str],
    patients: Sequence[str],
    thresholds: ArrayLike,
    findings: Sequence[str],
    *,
    templates: Sequence[str] = (),
    split: str = "test",
    calibration_ids: Iterable[str] = (),
    resamples: int = 1000,
    seed: int = 42,
    level: float = 0.95,
) -> dict[str, Any]:
    """Score a split and return a record of plain numbers, strings and lists, with None for a score that is not defined.

    Args:
        probabilities: [S, C], the mean over the templates, calibrated or not.
        logits_by_template: the score of each template before calibration, [S, T, C].
        labels: 1, 0 or -1, [S, C].
        ids: scan ids, S.
        patients: the patient of each scan, S; the intervals are bootstrapped over patients.
        thresholds: chosen on other scans, [C].
        findings: the names of the findings, C.
        templates: names of the templates, T; numbers by default.
        split: name of the split, kept in the record.
        calibration_ids: scans on which thresholds and calibration were fitted; none may be among `ids`.
        resamples: bootstrap resamples.
        seed: of the bootstrap.
        level: coverage of the intervals.

    Returns:
        Keys ``split, scans, patients, bootstrap, macro, findings, templates, warnings``. ``findings`` is a list with
        one row per finding in their order; ``macro`` has the mean of each column over the findings that have it;
        ``templates`` is the `wording_record` of the templates.

    Raises:
        ValueError: shapes do not fit, an id occurs twice, or a scored scan was used for calibration.
    """
    scores, truth = check_scores(probabilities, labels)
    limits = check_thresholds(thresholds, scores.shape[1])
    if len(findings) != scores.shape[1]:
        raise ValueError(
            f"{len(findings)} finding names for {scores.shape[1]} columns; one name per column is expected"
        )
    if not len(ids) == len(patients) == len(scores):
        raise ValueError(
            f"{len(ids)} ids and {len(patients)} patients for {len(scores)} scans; one of each per scan is expected"
        )
    if len(set(ids)) != len(ids):
        repeated = next(scan for index, scan in enumerate(ids) if scan in ids[:index])
        raise ValueError(f"scan {repeated} occurs twice among the scored scans; each scan is scored once")
    check_disjoint(calibration_ids, ids)

    auc = bootstrap_auc(scores, truth, patients, resamples, seed, level)
    sensitivity, specificity = sensitivity_specificity(scores, truth, limits)
    positives = (truth == 1).sum(axis=0)
    known = (truth >= 0).sum(axis=0)
    columns: dict[str, FloatArray] = {
        "auc": auc.findings.estimate,
        "average_precision": finding_average_precision(scores, truth),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "precision": finding_precision(scores, truth, limits),
        "f1": finding_f1(scores, truth, limits),
        "weighted_f1": weighted_f1(scores, truth, limits),
        "accuracy": finding_accuracy(scores, truth, limits),
        "balanced_accuracy": balanced_accuracy(scores, truth, limits),
        "ece": expected_calibration_error(scores, truth),
    }
    template_auc = auc_by_wording(logits_by_template, truth, np.ones((1, len(truth))))
    names = list(templates) or [str(index + 1) for index in range(template_auc.shape[1])]
    spread = sd_over_wordings(template_auc)[0]
    rows = [
        {
            "finding": name,
            "n": int(known[index]),
            "positives": int(positives[index]),
            "prevalence": number(positives[index] / known[index]) if known[index] else None,
            "threshold": float(limits[index]),
            **{column: number(values[index]) for column, values in columns.items()},
            "auc_interval": interval_numbers(auc.findings.low[index], auc.findings.high[index]),
            "auc_sd_over_templates": number(spread[index]),
        }
        for index, name in enumerate(findings)
    ]
    return {
        "split": split,
        "scans": len(ids),
        "patients": len(set(patients)),
        "bootstrap": {"unit": "patient", "method": "percentile", "resamples": resamples, "seed": seed, "level": level},
        "macro": {
            **{column: number(macro_average(values)) for column, values in columns.items()},
            "auc_interval": interval_numbers(float(auc.macro.low), float(auc.macro.high)),
            "auc_lowest": number(np.nanmin(columns["auc"])) if not np.isnan(columns["auc"]).all() else None,
            "findings_with_auc": int((~np.isnan(columns["auc"])).sum()),
        },
        "findings": rows,
        "templates": wording_record(logits_by_template, truth, names, patients, resamples, seed, level),
        "warnings": [
            f"{name}: {positives[index]} of {known[index]} known labels are positive; AUC is not defined"
            for index, name in enumerate(findings)
            if np.isnan(columns["auc"][index])
        ],
    }


def format_table(record: dict[str, Any]) -> str:
    """The per-finding scores of a record of `evaluate_split` as a Markdown table, with the mean in the last row."""
    lines = [
        "| finding | n | positive | AUC | interval | AP | sensitivity | specificity | F1 | ECE |",
        "|---|---:|---:|---:|:---:|---:|---:|---:|---:|---:|",
    ]
    mean = {**record["macro"], "finding": "**mean**", "n": record["scans"], "positives": ""}
    for row in [*record["findings"], mean]:
        interval = " - ".join(cell(limit) for limit in row["auc_interval"])
        scores = [cell(row[column]) for column in ("average_precision", "sensitivity", "specificity", "f1", "ece")]
        lines.append(
            "| "
            + " | ".join([row["finding"], str(row["n"]), str(row["positives"]), cell(row["auc"]), interval, *scores])
            + " |"
        )
    return "\n".join(lines)
