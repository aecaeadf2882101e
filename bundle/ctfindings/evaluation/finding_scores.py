"""Scores of the findings for ``metrics.json`` and the console. Shapes: S scans, T templates, C findings."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.calibration_error import brier_score, calibration_slope, expected_calibration_error
from bundle.ctfindings.metrics.classification import (
    check_scores,
    check_thresholds,
    decision_scores,
    finding_average_precision,
    macro_average,
)
from bundle.ctfindings.metrics.delong import delong_intervals
from bundle.ctfindings.metrics.json_numbers import cell, interval_numbers, number
from bundle.ctfindings.metrics.wording_spread import auc_by_wording, sd_over_wordings, spread_record
from bundle.ctfindings.networks.classifier import NO_THRESHOLD


def finding_scores_record(
    probabilities: ArrayLike,
    template_logits: ArrayLike,
    labels: ArrayLike,
    thresholds: ArrayLike,
    findings: Sequence[str],
    templates: Sequence[str],
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    """Scores of the findings as plain numbers, with None where a score is not defined.

    Probabilities and labels (1, 0 or -1) are [S, C], uncalibrated logits of the templates [S, T, C], thresholds that
    were chosen on other scans [C]; a finding with NO_THRESHOLD has no scores of decisions.

    Returns:
        ``findings``: a row for each finding, with DeLong's interval if each patient has one scan;
        ``macro``: the mean of each column over the findings that have it;
        ``templates``: the `spread_record` of the templates; ``warnings``: findings without AUC.

    Raises:
        ValueError: shapes do not fit.
    """
    scores, truth = check_scores(probabilities, labels)
    limits = check_thresholds(thresholds, scores.shape[1])
    auc = bootstrap.auc(scores, truth)
    delong = delong_intervals(scores, truth) if len(set(bootstrap.patients)) == len(bootstrap.patients) else None
    decisions = decision_scores(scores, truth, limits)
    columns = {
        "auc": auc.findings.estimate,
        "average_precision": finding_average_precision(scores, truth),
        **{name: np.where(limits < NO_THRESHOLD, values, np.nan) for name, values in decisions.items()},
        "ece": expected_calibration_error(scores, truth),
        "brier": brier_score(scores, truth),
        "calibration_slope": calibration_slope(scores, truth),
    }
    positives, known = (truth == 1).sum(axis=0), (truth >= 0).sum(axis=0)
    spread = sd_over_wordings(auc_by_wording(template_logits, truth, np.ones((1, len(truth)))))[0]
    defined = columns["auc"][~np.isnan(columns["auc"])]
    return {
        "macro": {
            **{column: number(macro_average(values)) for column, values in columns.items()},
            "auc_interval": auc.macro.limits(),
            "auc_lowest": float(defined.min()) if defined.size else None,
            "findings_with_auc": int(defined.size),
        },
        "findings": [
            {
                "finding": name,
                "n": int(known[index]),
                "positives": int(positives[index]),
                "prevalence": number(positives[index] / known[index]) if known[index] else None,
                "threshold": float(limits[index]),
                **{column: number(values[index]) for column, values in columns.items()},
                "auc_interval": auc.findings.limits(index),
                "auc_interval_delong": None if delong is None else interval_numbers(delong[0][index], delong[1][index]),
                "auc_sd_over_templates": number(spread[index]),
            }
            for index, name in enumerate(findings)
        ],
        "templates": spread_record(template_logits, truth, templates, bootstrap),
        "warnings": [
            f"{name}: {positives[index]} of {known[index]} known labels are positive; AUC is not defined"
            for index, name in enumerate(findings)
            if np.isnan(columns["auc"][index])
        ],
    }


def format_table(record: dict[str, Any]) -> str:
    """The scores of each finding as a Markdown table, with the mean in the last row."""
    lines = [
        "| finding | n | positive | AUC | interval | AP | sensitivity | specificity | F1 | ECE |",
        "|---|---:|---:|---:|:---:|---:|---:|---:|---:|---:|",
    ]
    mean = {**record["macro"], "finding": "**mean**", "n": record["scans"], "positives": ""}
    for row in [*record["findings"], mean]:
        interval = "-" if None in row["auc_interval"] else " - ".join(map(cell, row["auc_interval"]))
        scores = [cell(row[column]) for column in ("average_precision", "sensitivity", "specificity", "f1", "ece")]
        cells = [row["finding"], str(row["n"]), str(row["positives"]), cell(row["auc"]), interval, *scores]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
