"""Per-finding classification scores: ROC-AUC, average precision, and the scores of a decision at a threshold.

Shapes: S scans, C findings. Labels are 1 (present), 0 (absent) or -1 (unknown); an unknown pair is left out of every
score. A finding counts as present when ``probability >= threshold``. A score that is not defined for a finding is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def check_scores(probabilities: ArrayLike, labels: ArrayLike) -> tuple[FloatArray, IntArray]:
    """Scores and labels as float64 and int64 arrays [S, C], checked.

    Raises:
        ValueError: shapes differ or are not [S, C], a score is not finite, or a label is not 1, 0 or -1.
    """
    scores = np.asarray(probabilities, dtype=np.float64)
    truth = np.asarray(labels)
    if scores.ndim != 2 or scores.shape != truth.shape:
        raise ValueError(f"scores {scores.shape} and labels {truth.shape} must both be [scans, findings]")
    if not np.isfinite(scores).all():
        scan, finding = np.argwhere(~np.isfinite(scores))[0]
        raise ValueError(
            f"score of scan {scan}, finding {finding} is {scores[scan, finding]}; finite scores are expected"
        )
    if not np.isin(truth, (-1, 0, 1)).all():
        raise ValueError(f"labels must be 1, 0 or -1; found {sorted(set(np.unique(truth).tolist()) - {-1, 0, 1})}")
    return scores, truth.astype(np.int64)


def known_pairs(scores: FloatArray, labels: IntArray, finding: int) -> tuple[FloatArray, IntArray]:
    """Scores and labels of the scans in which the label of one finding (a column index) is known, both [n]."""
    known = labels[:, finding] >= 0
    return scores[known, finding], labels[known, finding]


def _ranking_metric(metric: Callable[..., float], probabilities: ArrayLike, labels: ArrayLike) -> FloatArray:
    """``metric(labels, scores)`` of each finding over its known labels, [C]; NaN where one class is missing."""
    scores, truth = check_scores(probabilities, labels)
    result = np.full(scores.shape[1], np.nan)
    for finding in range(scores.shape[1]):
        score, label = known_pairs(scores, truth, finding)
        if 0 < label.sum() < label.size:
            result[finding] = metric(label, score)
    return result


def finding_auc(probabilities: ArrayLike, labels: ArrayLike) -> FloatArray:
    """Area under the ROC curve of each finding, [C]; NaN where one class is missing. Any monotone score will do.

    Args:
        probabilities: scores [S, C].
        labels: 1, 0 or -1, [S, C].
    """
    return _ranking_metric(roc_auc_score, probabilities, labels)


def finding_average_precision(probabilities: ArrayLike, labels: ArrayLike) -> FloatArray:
    """Average precision of each finding, [C]; NaN where one class is missing.

    Args:
        probabilities: scores [S, C].
        labels: 1, 0 or -1, [S, C].
    """
    return _ranking_metric(average_precision_score, probabilities, labels)


def macro_average(values: ArrayLike) -> float:
    """Plain mean over the findings for which the score is defined; NaN when there is none."""
    array = np.asarray(values, dtype=np.float64)
    defined = array[~np.isnan(array)]
    return float(defined.mean()) if defined.size else float("nan")


def macro_auc(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean of `finding_auc` over the findings that have both classes."""
    return macro_average(finding_auc(probabilities, labels))


@dataclass(frozen=True)
class DecisionCounts:
    """True and false positives and negatives of each finding at its threshold; each array is [C]."""

    true_positive: IntArray
    false_positive: IntArray
    true_negative: IntArray
    false_negative: IntArray


def decision_counts(probabilities: ArrayLike, labels: ArrayLike, thresholds: ArrayLike) -> DecisionCounts:
    """Count the four outcomes of ``probability >= threshold`` per finding.

    Args:
        probabilities: scores [S, C].
        labels: 1, 0 or -1, [S, C].
        thresholds: one per finding, [C].

    Raises:
        ValueError: thresholds are not [C] or not numbers.
    """
    scores, truth = check_scores(probabilities, labels)
    present = scores >= check_thresholds(thresholds, scores.shape[1])
    return DecisionCounts(
        true_positive=(present & (truth == 1)).sum(axis=0),
        false_positive=(present & (truth == 0)).sum(axis=0),
        true_negative=(~present & (truth == 0)).sum(axis=0),
        false_negative=(~present & (truth == 1)).sum(axis=0),
    )


def check_thresholds(thresholds: ArrayLike, findings: int) -> FloatArray:
    """Thresholds as float64 [C], checked against the number of findings."""
    array = np.asarray(thresholds, dtype=np.float64)
    if array.shape != (findings,) or np.isnan(array).any():
        raise ValueError(f"thresholds must be {findings} numbers, one per finding; got shape {array.shape}")
    return array


def sensitivity_specificity(
    probabilities: ArrayLike, labels: ArrayLike, thresholds: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Sensitivity TP/(TP+FN) and specificity TN/(TN+FP) of each finding, [C] each; NaN without positives or negatives.

    Arguments as for `decision_counts`.
    """
    counts = decision_counts(probabilities, labels, thresholds)
    return (
        _ratio(counts.true_positive, counts.true_positive + counts.false_negative),
        _ratio(counts.true_negative, counts.true_negative + counts.false_positive),
    )


def finding_precision(probabilities: ArrayLike, labels: ArrayLike, thresholds: ArrayLike) -> FloatArray:
    """Precision TP/(TP+FP) of each finding, [C]; NaN where nothing is called present. Arguments as for
    `decision_counts`.
    """
    counts = decision_counts(probabilities, labels, thresholds)
    return _ratio(counts.true_positive, counts.true_positive + counts.false_positive)


def finding_accuracy(probabilities: ArrayLike, labels: ArrayLike, thresholds: ArrayLike) -> FloatArray:
    """Plain accuracy (TP+TN)/n of each finding, [C], as CT-CLIP reports it. RadFinder's "acc" is `balanced_accuracy`."""
    counts = decision_counts(probabilities, labels, thresholds)
    right = counts.true_positive + counts.true_negative
    return _ratio(right, right + counts.false_positive + counts.false_negative)


def balanced_accuracy(probabilities: ArrayLike, labels: ArrayLike, thresholds: ArrayLike) -> FloatArray:
    """Mean of sensitivity and specificity of each finding, [C]; NaN where one class is missing."""
    sensitivity, specificity = sensitivity_specificity(probabilities, labels, thresholds)
    return (sensitivity + specificity) / 2


def weighted_f1(probabilities: ArrayLike, labels: ArrayLike, thresholds: ArrayLike) -> FloatArray:
    """F1 of the classes present and absent, weighted by their counts, [C], as CT-CLIP reports it; NaN without known
    labels.

    It rewards the majority class. `finding_f1` is the F1 of the finding itself. Arguments as for `decision_counts`.
    """
    scores, truth = check_scores(probabilities, labels)
    limits = check_thresholds(thresholds, scores.shape[1])
    result = np.full(scores.shape[1], np.nan)
    for finding in range(scores.shape[1]):
        score, label = known_pairs(scores, truth, finding)
        if label.size:
            result[finding] = f1_score(
                label, (score >= limits[finding]).astype(int), average="weighted", zero_division=0.0
            )
    return result


def finding_f1(probabilities: ArrayLike, labels: ArrayLike, thresholds: ArrayLike) -> FloatArray:
    """F1 of the class present, 2TP/(2TP+FP+FN), [C]; NaN where the finding is neither there nor called."""
    counts = decision_counts(probabilities, labels, thresholds)
    return _ratio(2 * counts.true_positive, 2 * counts.true_positive + counts.false_positive + counts.false_negative)


def _ratio(numerator: IntArray, denominator: IntArray) -> FloatArray:
    result = np.full(denominator.shape, np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result
