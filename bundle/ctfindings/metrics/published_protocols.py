"""Published zero-shot protocols: which prompt scores, over which findings, at which threshold.

Two protocols never share a table: RadFinder reports balanced accuracy at thresholds from other scans; CT-CLIP and fVLM
report plain accuracy at thresholds from the scored scans. Shapes: S scans, T templates, C findings, K anatomies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bundle.ctfindings.findings import FINDING_ANATOMY, FINDING_NAMES, LABEL_SETS
from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.classification import FloatArray, decision_scores, macro_average
from bundle.ctfindings.metrics.json_numbers import cell, interval_numbers, number
from bundle.ctfindings.metrics.thresholds import check_disjoint, choose_thresholds

OPTIMISTIC = (
    "thresholds were chosen on the scored scans: accuracy, F1, precision, sensitivity and specificity are optimistic"
)


@dataclass(frozen=True)
class Protocol:
    """How a paper computes its zero-shot table."""

    name: str
    source: str  # The paper
    template: str | None  # Id of the prompt pair that scores; None for the mean over the templates
    label_set: str  # Key of ``LABEL_SETS``: the findings in the means
    # "calibration" for Youden's index on the calibration scans; "scored" for CT-CLIP's corner rule on the scored scans
    thresholds: Literal["calibration", "scored"]
    accuracy: Literal["balanced", "plain"]
    # The score is 0 if the anatomy of a finding is outside the field of view; otherwise the thorax row scores it
    missing_is_zero: bool = False
    # Pairs of findings that the labels do not separate; the first gets the larger score of both
    larger_of: tuple[tuple[str, str], ...] = ()


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("radfinder", "https://arxiv.org/abs/2603.02026", None, "ctrate18", "calibration", "balanced"),
        Protocol(
            "fvlm", "https://arxiv.org/abs/2501.14548", "T5", "ctrate16_fvlm", "scored", "plain", missing_is_zero=True
        ),
        Protocol("ct-clip", "https://arxiv.org/abs/2403.17834", "T7", "ctrate18", "scored", "plain"),
        # RadFinder's on Rad-ChestCT, whose labels have one calcification, of the aorta or the coronary arteries.
        Protocol(
            "radchest",
            "https://arxiv.org/abs/2603.02026",
            None,
            "radchest16",
            "calibration",
            "balanced",
            larger_of=(("Arterial wall calcification", "Coronary artery wall calcification"),),
        ),
    )
}


@dataclass(frozen=True)
class ZeroShotScores:
    """Zero-shot scores of the scans of a split, from the images alone."""

    ids: Sequence[str]  # Study ids, S
    patients: Sequence[str]  # Patient ids, S
    labels: NDArray[np.int64]  # 1, 0 or -1, [S, C]
    logits: FloatArray  # Uncalibrated logits of the mean over the templates, [S, C]
    template_logits: FloatArray  # Logits of each template, [S, T, C]
    anatomy_valid: NDArray[np.bool_]  # Anatomies in the field of view, [S, K]


def check_protocol(name: str) -> Protocol:
    """A protocol by name.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"protocol {name!r} is unknown; choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def protocol_record(
    name: str,
    scored: ZeroShotScores,
    calibration: ZeroShotScores | None,
    templates: Sequence[str],
    bootstrap: Bootstrap,
    not_scored: Sequence[str] = (),
) -> dict[str, Any]:
    """Scores of a split by a protocol: its settings, its columns by finding and their means, and notes.

    The probability is the softmax over the positive and the negative logit. RadFinder computes it from plain cosines,
    the others from scaled ones; a scale changes no AUC and no decision at a threshold from a ROC curve.

    A protocol that chooses its thresholds on other scans needs their scores as `calibration`. A model with one of the T
    templates scores with that one. The means leave out the findings `not_scored`, and a note says so.

    Raises:
        ValueError: the protocol is unknown, its template is not among those scored, or a scan is in both sets.
    """
    protocol = check_protocol(name)
    template = None if protocol.template is None else _template(protocol, templates)
    names = [finding for finding in LABEL_SETS[protocol.label_set] if finding not in not_scored]
    left_out = [finding for finding in LABEL_SETS[protocol.label_set] if finding in not_scored]
    columns = [FINDING_NAMES.index(finding) for finding in names]
    probabilities, missing = _probabilities(protocol, scored, templates, columns)
    labels, on_scored = scored.labels[:, columns], protocol.thresholds == "scored"
    if on_scored:
        thresholds = choose_thresholds(probabilities, labels, "corner", names)
    elif calibration is None:
        raise ValueError(f"protocol {name!r} chooses thresholds on calibration scans; give a calibration split")
    else:
        check_disjoint(calibration.ids, scored.ids)
        chosen_on = _probabilities(protocol, calibration, templates, columns)[0]
        thresholds = choose_thresholds(chosen_on, calibration.labels[:, columns], "youden", names)
    auc = bootstrap.auc(probabilities, labels)
    by_decision = decision_scores(probabilities, labels, thresholds)
    accuracy = "balanced_accuracy" if protocol.accuracy == "balanced" else "accuracy"
    shown = (accuracy, "weighted_f1", "precision", "sensitivity", "specificity")
    scores = {"auc": auc.findings.estimate, **{score: by_decision[score] for score in shown}}
    notes = [OPTIMISTIC] if on_scored else []
    if left_out:
        notes.append(f"the model does not score {', '.join(left_out)}; the means are over {len(names)} findings")
    one_class = [finding for finding, value in zip(names, scores["auc"], strict=True) if np.isnan(value)]
    if one_class:
        notes.append(
            f"the mean AUC is over {len(names) - len(one_class)} of {len(names)} findings: the scored scans do not "
            f"show both classes of {', '.join(one_class)}"
        )
    notes += [f"the score of {finding} is the larger one of it and {other}" for finding, other in protocol.larger_of]
    if protocol.missing_is_zero:
        notes.append(f"{missing} scores are 0 because the anatomy is outside the field of view")
    return {
        "protocol": protocol.name,
        "source": protocol.source,
        "scans": len(scored.ids),
        "prompts": "mean over the templates" if template is None else f"template {template}",
        "label_set": protocol.label_set,
        "findings_in_mean": names,
        "thresholds": "corner distance on the scored scans" if on_scored else "Youden on the calibration scans",
        "optimistic": on_scored,
        "notes": notes,
        "macro": {
            **{column: number(macro_average(values)) for column, values in scores.items()},
            "auc_interval": interval_numbers(auc.macro.low, auc.macro.high),
        },
        "findings": [
            {"finding": name, "threshold": float(thresholds[row])}
            | {score: number(values[row]) for score, values in scores.items()}
            for row, name in enumerate(names)
        ],
    }


def format_protocol(record: dict[str, Any]) -> str:
    """A record of `protocol_record` as lines: the means under their own names, and the notes."""
    means = ", ".join(
        f"{name.replace('_', ' ')} {cell(value)}" for name, value in record["macro"].items() if name != "auc_interval"
    )
    settings = f"{record['label_set']}, {record['prompts']}, {record['thresholds']}"
    head = f"Protocol {record['protocol']} ({settings}): {means}."
    return "\n".join([head, *(f"  Note: {note}." for note in record["notes"])])


def _probabilities(
    protocol: Protocol, scores: ZeroShotScores, templates: Sequence[str], columns: Sequence[int]
) -> tuple[FloatArray, int]:
    """Probabilities of the findings of a protocol, and the number that is 0 because the anatomy is missing."""
    if protocol.template is None:
        logits = scores.logits.copy()
    else:
        logits = scores.template_logits[:, list(templates).index(_template(protocol, templates))].copy()
    for finding, other in protocol.larger_of:
        pair = [FINDING_NAMES.index(finding), FINDING_NAMES.index(other)]
        logits[:, pair[0]] = logits[:, pair].max(axis=1)
    probabilities = 1 / (1 + np.exp(-logits[:, columns]))
    missing = ~scores.anatomy_valid[:, [FINDING_ANATOMY[column] for column in columns]] & protocol.missing_is_zero
    return np.where(missing, 0.0, probabilities), int(missing.sum())


def _template(protocol: Protocol, templates: Sequence[str]) -> str:
    if protocol.template in templates:
        return str(protocol.template)
    if len(templates) == 1:
        return templates[0]
    raise ValueError(
        f"protocol {protocol.name!r} scores with template {protocol.template}; the model has {', '.join(templates)}"
    )
