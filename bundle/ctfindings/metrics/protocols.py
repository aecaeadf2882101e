"""Zero-shot protocols by name: which prompt scores, over which findings, at which threshold; so that a published table
can be met.

What differs between the papers is kept apart on purpose. A result names its protocol, its columns are those of that
protocol, and two protocols never share a table: RadFinder's "accuracy" is balanced and its thresholds come from other
scans; CT-CLIP and fVLM report plain accuracy at thresholds chosen on the scored scans themselves.

Shapes: S scans, T templates, C findings, K anatomies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bundle.ctfindings.findings import FINDING_ANATOMY, FINDING_NAMES, LABEL_SETS, TEMPLATES
from bundle.ctfindings.metrics.bootstrap import bootstrap_auc
from bundle.ctfindings.metrics.classification import (
    FloatArray,
    balanced_accuracy,
    finding_accuracy,
    finding_precision,
    macro_average,
    sensitivity_specificity,
    weighted_f1,
)
from bundle.ctfindings.metrics.json_numbers import interval_numbers, number
from bundle.ctfindings.metrics.thresholds import check_disjoint, corner_thresholds, youden_thresholds

TEMPLATE_IDS = tuple(template.id for template in TEMPLATES)
OPTIMISTIC = "thresholds were chosen on the scored scans themselves: accuracy, F1, precision, sensitivity and specificity are optimistic"


@dataclass(frozen=True)
class Protocol:
    """How a paper turns similarities into a table.

    Attributes:
        name: of the protocol.
        source: the paper or code it follows.
        template: id of the one prompt pair that scores; None for the mean over the templates.
        label_set: key of ``LABEL_SETS``, the findings that the means are taken over.
        thresholds: "calibration" for Youden's index on the exact ROC of the calibration scans; "scored" for the grid of
            100 values and the distance to the top left corner, on the scored scans.
        accuracy: "balanced" or "plain".
        larger_of: pairs of findings; the first is scored by the larger of both probabilities, because the labels do not
            tell them apart.
        missing_is_zero: whether a scan without the anatomy of a finding scores 0 for it, instead of being scored on the
            thorax.
    """

    name: str
    source: str
    template: str | None
    label_set: str
    thresholds: Literal["calibration", "scored"]
    accuracy: Literal["balanced", "plain"]
    missing_is_zero: bool = False
    larger_of: tuple[tuple[str, str], ...] = ()


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("radfinder", "https://arxiv.org/abs/2603.02026", None, "ctrate18", "calibration", "balanced"),
        Protocol(
            "fvlm", "https://arxiv.org/abs/2501.14548", "T5", "ctrate16_fvlm", "scored", "plain", missing_is_zero=True
        ),
        Protocol("ct-clip", "https://arxiv.org/abs/2403.17834", "T7", "ctrate18", "scored", "plain"),
        # RadFinder's on Rad-ChestCT, whose labels know one calcification: of the aorta or of the coronary arteries.
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
    """What a protocol reads of a model's answers for the scans of a split.

    Attributes:
        ids: of the scans, S.
        patients: of the scans, S.
        labels: 1, 0 or -1, ``[S, C]``.
        logits: positive against negative, by the mean over the templates, ``[S, C]``.
        template_logits: by each template alone, ``[S, T, C]``.
        anatomy_valid: anatomies the scan shows, ``[S, K]``.
    """

    ids: Sequence[str]
    patients: Sequence[str]
    labels: NDArray[np.int64]
    logits: FloatArray
    template_logits: FloatArray
    anatomy_valid: NDArray[np.bool_]


def check_protocol(name: str) -> Protocol:
    """A protocol by its name.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"protocol {name!r} is unknown; known are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def protocol_record(
    name: str,
    scored: ZeroShotScores,
    calibration: ZeroShotScores,
    templates: Sequence[str] = TEMPLATE_IDS,
    resamples: int = 1000,
    seed: int = 42,
    level: float = 0.95,
    not_scored: Sequence[str] = (),
) -> dict[str, Any]:
    """Scores a split by a protocol, as plain numbers: its settings, its columns by finding and their means, and what
    limits them.

    The probability is the softmax over the positive and the negative logit, that is the sigmoid of their difference.
    RadFinder takes it of bare cosines, the others of scaled ones; a scale moves no AUC and no decision at a threshold
    from a ROC curve.

    Args:
        name: of the protocol.
        scored: answers for the scans that are scored.
        calibration: answers for the scans on which a protocol may choose thresholds; none of them is scored.
        templates: ids of the templates, T. A model that has only one template scores with that one.
        resamples: of the bootstrap of the AUC, by patient.
        seed: of the bootstrap.
        level: coverage of its intervals.
        not_scored: findings that the model has no answer for. The means are taken over the others, and a note says so.

    Raises:
        ValueError: the protocol is unknown, its template is not among those scored, or a scan is in both sets.
    """
    protocol = check_protocol(name)
    check_disjoint(calibration.ids, scored.ids)
    names = [finding for finding in LABEL_SETS[protocol.label_set] if finding not in not_scored]
    columns = [FINDING_NAMES.index(finding) for finding in names]
    probabilities, missing = _probabilities(protocol, scored, templates, columns)
    labels = scored.labels[:, columns]
    if protocol.thresholds == "calibration":
        chosen_on = _probabilities(protocol, calibration, templates, columns)[0]
        limits = youden_thresholds(chosen_on, calibration.labels[:, columns], names=names)
    else:
        limits = corner_thresholds(probabilities, labels, names=names)
    auc = bootstrap_auc(probabilities, labels, scored.patients, resamples, seed, level)
    sensitivity, specificity = sensitivity_specificity(probabilities, labels, limits)
    accuracy = balanced_accuracy if protocol.accuracy == "balanced" else finding_accuracy
    scores = {
        "auc": auc.findings.estimate,
        "balanced_accuracy" if protocol.accuracy == "balanced" else "accuracy": accuracy(probabilities, labels, limits),
        "weighted_f1": weighted_f1(probabilities, labels, limits),
        "precision": finding_precision(probabilities, labels, limits),
        "sensitivity": sensitivity,
        "specificity": specificity,
    }
    notes = [OPTIMISTIC] if protocol.thresholds == "scored" else []
    left_out = [finding for finding in LABEL_SETS[protocol.label_set] if finding in not_scored]
    if left_out:
        notes.append(
            f"the model does not score {', '.join(left_out)}, so that the means are over {len(names)} findings"
        )
    one_class = [finding for finding, value in zip(names, scores["auc"], strict=True) if np.isnan(value)]
    if one_class:
        notes.append(
            f"the mean AUC is over {len(names) - len(one_class)} of {len(names)} findings: the scored scans do not show both classes of "
            f"{', '.join(one_class)}"
        )
    notes += [
        f"{finding} is scored by the larger probability of it and of {other}" for finding, other in protocol.larger_of
    ]
    if protocol.missing_is_zero:
        notes.append(f"{missing} scores are 0 because the scan does not show the anatomy")
    return {
        "protocol": protocol.name,
        "source": protocol.source,
        "scans": len(scored.ids),
        "prompts": "mean over the templates"
        if protocol.template is None
        else f"template {_template(protocol, templates)}",
        "label_set": protocol.label_set,
        "findings_in_mean": names,
        "thresholds": "Youden on the calibration scans"
        if protocol.thresholds == "calibration"
        else "corner distance on the scored scans",
        "optimistic": protocol.thresholds == "scored",
        "notes": notes,
        "macro": {
            **{column: number(macro_average(values)) for column, values in scores.items()},
            "auc_interval": interval_numbers(float(auc.macro.low), float(auc.macro.high)),
        },
        "findings": [
            {"finding": name, "threshold": float(limits[row])}
            | {score: number(float(values[row])) for score, values in scores.items()}
            for row, name in enumerate(names)
        ],
    }


def format_protocol(record: dict[str, Any]) -> str:
    """A record of `protocol_record` as lines: the means under its own names, and its notes."""
    names = [name for name in record["macro"] if name != "auc_interval"]
    means = ", ".join(
        f"{name.replace('_', ' ')} {'-' if record['macro'][name] is None else format(record['macro'][name], '.3f')}"
        for name in names
    )
    head = (
        f"Protocol {record['protocol']} ({record['label_set']}, {record['prompts']}, {record['thresholds']}): {means}."
    )
    return "\n".join([head, *(f"  Note: {note}." for note in record["notes"])])


def _probabilities(
    protocol: Protocol, scores: ZeroShotScores, templates: Sequence[str], columns: Sequence[int]
) -> tuple[FloatArray, int]:
    """Probabilities of the findings of a protocol, and how many of them are 0 because the anatomy is missing."""
    if protocol.template is None:
        logits = scores.logits.copy()
    else:
        logits = scores.template_logits[:, list(templates).index(_template(protocol, templates))].copy()
    for finding, other in protocol.larger_of:
        logits[:, FINDING_NAMES.index(finding)] = logits[
            :, [FINDING_NAMES.index(finding), FINDING_NAMES.index(other)]
        ].max(axis=1)
    probabilities = 1 / (1 + np.exp(-logits[:, columns]))
    missing = ~scores.anatomy_valid[:, [FINDING_ANATOMY[column] for column in columns]] & protocol.missing_is_zero
    return np.where(missing, 0.0, probabilities), int(missing.sum())


def _template(protocol: Protocol, templates: Sequence[str]) -> str:
    """The id of the template that scores."""
    if protocol.template in templates:
        return str(protocol.template)
    if len(templates) == 1:
        return templates[0]
    raise ValueError(
        f"protocol {protocol.name!r} scores with template {protocol.template}; the model has {', '.join(templates)}"
    )
