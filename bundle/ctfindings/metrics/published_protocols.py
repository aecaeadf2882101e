"""Published zero-shot protocols: which prompt scores, over which findings, at which threshold.

Two protocols never share a table: RadFinder reports balanced accuracy, CT-CLIP and fVLM plain accuracy. All three
choose their thresholds on the scored scans, which is optimistic, and RadFinder chooses them again in every resample of
its intervals; the protocols whose names end in ``-calibrated`` are ours and choose them on the calibration scans.

Shapes: S scans, T templates, C findings, K anatomies.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bundle.ctfindings.findings import FINDING_ANATOMY, FINDING_NAMES, LABEL_SETS
from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.classification import FloatArray, decision_scores, macro_average
from bundle.ctfindings.metrics.json_numbers import cell, number
from bundle.ctfindings.metrics.thresholds import ThresholdRule, choose_thresholds

_RULE_WORDS = {
    "youden": "Youden",
    "youden_or_none": "Youden",
    "corner": "corner distance",
    "corner_smallest": "corner distance",
}
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
    thresholds_on: Literal["calibration", "scored"]
    threshold_rule: ThresholdRule
    accuracy: Literal["balanced", "plain"]
    # The score is 0 if the anatomy of a finding is outside the field of view; otherwise the thorax row scores it
    missing_is_zero: bool = False
    # Pairs of findings that the labels do not separate; the first gets the larger score of both
    larger_of: tuple[tuple[str, str], ...] = ()
    # Thresholds are chosen anew in every bootstrap resample, for the intervals of what is decided
    thresholds_in_resamples: bool = False


_RADFINDER = Protocol(
    name="radfinder",
    source="https://arxiv.org/abs/2603.02026",
    template=None,
    label_set="ctrate18",
    thresholds_on="scored",
    threshold_rule="youden_or_none",
    accuracy="balanced",
    thresholds_in_resamples=True,
)
# On Rad-ChestCT, whose labels have one calcification, of the aorta or the coronary arteries.
_RADCHEST = replace(
    _RADFINDER,
    name="radchest",
    label_set="radchest16",
    larger_of=(("Arterial wall calcification", "Coronary artery wall calcification"),),
)
_FVLM = Protocol(
    name="fvlm",
    source="https://arxiv.org/abs/2501.14548",
    template="T5",
    label_set="ctrate16_fvlm",
    thresholds_on="scored",
    threshold_rule="corner",
    accuracy="plain",
    missing_is_zero=True,
)
_CT_CLIP = Protocol(
    name="ct-clip",
    source="https://arxiv.org/abs/2403.17834",
    template="T7",
    label_set="ctrate18",
    thresholds_on="scored",
    threshold_rule="corner_smallest",
    accuracy="plain",
)


def _calibrated(protocol: Protocol) -> Protocol:
    return replace(
        protocol,
        name=f"{protocol.name}-calibrated",
        thresholds_on="calibration",
        threshold_rule="youden",
        thresholds_in_resamples=False,
    )


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (_RADFINDER, _calibrated(_RADFINDER), _FVLM, _CT_CLIP, _RADCHEST, _calibrated(_RADCHEST))
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
    """A protocol by name. ValueError if the name is unknown."""
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
    templates scores with that one. The means leave out the findings `not_scored`, and a note says so. ValueError if the
    protocol is unknown, its template is not among those scored, or it needs calibration scans.
    """
    protocol = check_protocol(name)
    template = None if protocol.template is None else _template(protocol, templates)
    names = [finding for finding in LABEL_SETS[protocol.label_set] if finding not in not_scored]
    left_out = [finding for finding in LABEL_SETS[protocol.label_set] if finding in not_scored]
    columns = [FINDING_NAMES.index(finding) for finding in names]
    probabilities, missing = _probabilities(protocol, scored, templates, columns)
    labels, on_scored = scored.labels[:, columns], protocol.thresholds_on == "scored"
    if on_scored:
        thresholds = choose_thresholds(probabilities, labels, protocol.threshold_rule, names)
    elif calibration is None:
        raise ValueError(f"protocol {name!r} chooses thresholds on calibration scans; give a calibration split")
    else:
        chosen_on = _probabilities(protocol, calibration, templates, columns)[0]
        thresholds = choose_thresholds(chosen_on, calibration.labels[:, columns], protocol.threshold_rule, names)
    auc = bootstrap.auc(probabilities, labels)
    by_decision = decision_scores(probabilities, labels, thresholds)
    accuracy = "balanced_accuracy" if protocol.accuracy == "balanced" else "accuracy"
    shown = (accuracy, "weighted_f1", "precision", "sensitivity", "specificity")
    notes = [OPTIMISTIC] if on_scored else []
    intervals = {}
    if protocol.thresholds_in_resamples:
        # As in the resamples: without both classes a finding has no threshold of its own.
        defined = ~np.isnan(auc.findings.estimate)
        by_decision = {score: np.where(defined, values, np.nan) for score, values in by_decision.items()}
        notes.append("intervals of these scores choose the thresholds anew in every resample, on its own scans")
        intervals = _rechosen_intervals(probabilities, labels, protocol.threshold_rule, shown, names, bootstrap)
    scores = {"auc": auc.findings.estimate, **{score: by_decision[score] for score in shown}}
    if left_out:
        notes.append(f"the model does not score {', '.join(left_out)}; the means are over {len(names)} findings")
    one_class = [finding for finding, value in zip(names, scores["auc"], strict=True) if np.isnan(value)]
    if one_class:
        means = "means are" if protocol.thresholds_in_resamples else "mean AUC is"
        notes.append(
            f"the {means} over {len(names) - len(one_class)} of {len(names)} findings: the scored scans do not "
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
        "thresholds": f"{_RULE_WORDS[protocol.threshold_rule]} on the {protocol.thresholds_on} scans",
        "optimistic": on_scored,
        "notes": notes,
        "macro": {
            **{column: number(macro_average(values)) for column, values in scores.items()},
            "auc_interval": auc.macro.limits(),
            **intervals,
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
        f"{name.replace('_', ' ')} {cell(value)}"
        for name, value in record["macro"].items()
        if not name.endswith("_interval")
    )
    settings = f"{record['label_set']}, {record['prompts']}, {record['thresholds']}"
    head = f"Protocol {record['protocol']} ({settings}): {means}."
    return "\n".join([head, *(f"  Note: {note}." for note in record["notes"])])


def _rechosen_intervals(
    probabilities: FloatArray,
    labels: NDArray[np.int64],
    rule: ThresholdRule,
    shown: Sequence[str],
    names: Sequence[str],
    bootstrap: Bootstrap,
) -> dict[str, list[float | None]]:
    """Interval of the mean of each score over the findings; each resample is decided at its own thresholds."""

    def means(scores: FloatArray, truth: NDArray[np.int64]) -> FloatArray:
        # A finding without both classes has no ROC curve, in a resample as little as in the sample.
        both = np.flatnonzero((truth == 1).any(axis=0) & (truth == 0).any(axis=0))
        own, known = scores[:, both], truth[:, both]
        found = decision_scores(
            own, known, choose_thresholds(own, known, rule, [names[int(column)] for column in both])
        )
        return np.array([macro_average(found[score]) for score in shown])

    interval = bootstrap.row_interval(means, [probabilities, labels])
    return {f"{score}_interval": interval.limits(row) for row, score in enumerate(shown)}


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
