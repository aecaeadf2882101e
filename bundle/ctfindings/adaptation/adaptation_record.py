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


def scores_record(
    logits: NDArray[np.float64],
    labels: NDArray[np.int64],
    patients: Sequence[str],
    usable: NDArray[np.bool_],
    calibration: Calibration,
    seed: int,
) -> dict[str, Any]:
    """AUC of the held-out logits with intervals by patient, and the thresholds, by finding and as their mean.

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
            row["interval"] = found.findings.limits(at)
            row["threshold"] = float(calibration.thresholds[column]) if row["assessed"] else None
        rows.append(row)
    macro = {"auc": number(float(found.macro.estimate)), "interval": found.macro.limits()}
    return {"findings": rows, "macro": macro, "bootstrap": bootstrap.settings(), "calibration": calibration.problem}


def domain_record(domain: Domain, features: NDArray[np.float64]) -> dict[str, Any] | None:
    """Number of scans, threshold and median score of a domain on its scans ``[S, K, F]``; None if it is not fitted."""
    if not domain.fitted:
        return None
    scores = domain_scores(domain, features)
    return {"scans": int(domain.scans), "threshold": float(domain.threshold), "median": number(np.median(scores))}


def format_record(record: dict[str, Any]) -> str:
    """The table of the findings for a console."""
    lines = [f"{'finding':<36} {'present':>7} {'absent':>7} {'AUC':>6}  95 % interval"]
    for row in record["findings"]:
        counts = f"{row['finding']:<36} {row['present']:>7} {row['absent']:>7}"
        if "auc" not in row:
            lines.append(f"{counts}      -  too few patients: not assessed")
            continue
        low, high = row["interval"]
        note = "" if low is not None and low > 0.5 else ", not shown to be above chance"
        if not row["assessed"]:
            note = f", not above {record['least_auc']:g}: not assessed"
        lines.append(f"{counts} {cell(row['auc']):>6}  {cell(low)} to {cell(high)}{note}")
    macro, domain = record["macro"], record["domain"]
    lines += [
        "",
        f"Mean AUC {cell(macro['auc'])} in cross-validation by patient: {record['scans']} scans of "
        f"{record['patients']} patients, {record['steps']} steps, weight decay {record['weight_decay']:g}, "
        f"learning rate {record['learning_rate']:g}.",
        *([_few(record)] if record["scans"] < FEW_SCANS else []),
        *(f"Left out: {name}: {problem}" for name, problem in record["failed"].items()),
        "Domain: not available." if domain is None else f"Domain: threshold {cell(domain['threshold'])}.",
    ]
    return "\n".join(lines)


def _few(record: dict[str, Any]) -> str:
    return (
        f"Caution: {record['scans']} scans of {record['patients']} patients say little of other patients, or of "
        f"whether another scan is like them. Inference warns of fewer than {FEW_SCANS} scans."
    )
