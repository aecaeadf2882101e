"""Numbers of ``adaptation.json``, and their table. Shapes: S scans, C findings, K anatomies, F features."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.ctfindings.evaluation.calibrate import Calibration
from bundle.ctfindings.evaluation.domain import domain_scores
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.inference.assessment import FEW_SCANS
from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.json_numbers import cell, number
from bundle.ctfindings.networks.classifier import NO_THRESHOLD
from bundle.ctfindings.networks.domain import Domain

PATIENTS_OF_AN_INTERVAL = 10
"""Patients with a finding and without it that the interval of its AUC needs."""


def scores_record(
    logits: NDArray[np.float64],
    labels: NDArray[np.int64],
    patients: Sequence[str],
    usable: NDArray[np.bool_],
    calibration: Calibration,
    seed: int,
) -> dict[str, Any]:
    """AUC of the held-out logits with intervals by patient, thresholds, and what they find of the held-out scans.

    Without ``PATIENTS_OF_AN_INTERVAL`` patients with the finding and as many without, there is no interval: resamples
    of a few patients compare copies of one with each other.

    Args:
        logits: Held-out logits, ``[S, C]``.
        labels: Labels of all findings, ``[S, C]``.
        patients: Patient of each scan.
        usable: Findings with enough patients, bool ``[C]``.
        calibration: Calibration of the logits, without a threshold for findings that are not assessed.
        seed: Random seed of the bootstrap.
    """
    bootstrap = Bootstrap(patients, seed=seed)
    found = bootstrap.auc(logits[:, usable], labels[:, usable])
    enough = bootstrap.smaller_class(labels) >= PATIENTS_OF_AN_INTERVAL
    positive = calibration.probabilities(logits) >= calibration.thresholds
    place = {name: index for index, name in enumerate(np.array(FINDING_NAMES)[usable])}
    rows = []
    for column, name in enumerate(FINDING_NAMES):
        row = {
            "finding": name,
            "present": int((labels[:, column] == 1).sum()),
            "absent": int((labels[:, column] == 0).sum()),
            "assessed": bool(calibration.thresholds[column] < NO_THRESHOLD),
        }
        if name in place:
            at = place[name]
            row["auc"] = number(float(found.findings.estimate[at]))
            row["interval"] = found.findings.limits(at) if enough[column] else None
        if row["assessed"]:
            row["threshold"] = float(calibration.thresholds[column])
            row["sensitivity"] = float(positive[labels[:, column] == 1, column].mean())
            row["specificity"] = float(1 - positive[labels[:, column] == 0, column].mean())
        rows.append(row)
    interval = found.macro.limits() if enough[usable].all() else None
    macro = {"auc": number(float(found.macro.estimate)), "interval": interval}
    return {"findings": rows, "macro": macro, "bootstrap": bootstrap.settings(), "calibration": calibration.problem}


def domain_record(domain: Domain, features: NDArray[np.float64]) -> dict[str, Any] | None:
    """Number of scans, threshold and median score of a domain on its scans ``[S, K, F]``; None if it is not fitted."""
    if not domain.fitted:
        return None
    scores = domain_scores(domain, features)
    return {"scans": int(domain.scans), "threshold": float(domain.threshold), "median": number(np.median(scores))}


def format_record(record: dict[str, Any]) -> str:
    """The table of the findings for a console."""
    lines = [
        f"{'finding':<36} {'present':>7} {'absent':>7} {'AUC':>6} {'sens.':>6} {'spec.':>6}  95 % interval of the AUC"
    ]
    for row in record["findings"]:
        counts = f"{row['finding']:<36} {row['present']:>7} {row['absent']:>7}"
        if "auc" not in row:
            lines.append(f"{counts} {'-':>6} {'-':>6} {'-':>6}  too few patients: not assessed")
            continue
        rates = " ".join(f"{cell(row.get(name)):>6}" for name in ("sensitivity", "specificity"))
        lines.append(f"{counts} {cell(row['auc']):>6} {rates}  {_note(row, record['least_auc'])}")
    macro, domain = record["macro"], record["domain"]
    lines += [
        "",
        "Counts are of scans. Sensitivity and specificity at the threshold are those of held-out scans.",
        f"Mean AUC {cell(macro['auc'])} in cross-validation by patient: {record['scans']} scans of "
        f"{record['patients']} patients, {record['steps']} steps, weight decay {record['weight_decay']:g}, "
        f"learning rate {record['learning_rate']:g}.",
        *(
            [f"Mean AUC {cell(record['auc_before'])} of the head before it was trained, on the same scans."]
            if record["auc_before"] is not None
            else []
        ),
        *([_few(record)] if record["scans"] < FEW_SCANS else []),
        *(f"Left out: {name}: {problem}" for name, problem in record["failed"].items()),
        "Domain: not available." if domain is None else f"Domain: threshold {cell(domain['threshold'])}.",
    ]
    return "\n".join(lines)


def _note(row: dict[str, Any], least_auc: float) -> str:
    if not row["assessed"]:
        return f"AUC not above {least_auc:g}: not assessed"
    if row["interval"] is None:
        return f"none, fewer than {PATIENTS_OF_AN_INTERVAL} patients"
    low, high = row["interval"]
    return f"{cell(low)} to {cell(high)}{'' if low > 0.5 else ', not shown to be above chance'}"


def _few(record: dict[str, Any]) -> str:
    return (
        f"Caution: {record['scans']} scans of {record['patients']} patients say little of other patients, or of "
        f"whether another scan is like them. Inference warns of fewer than {FEW_SCANS} scans."
    )
