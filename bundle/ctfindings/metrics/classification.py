"""Classification scores of each finding: ROC-AUC, average precision, and scores of a decision at a threshold.

Shapes: S scans, C findings. Labels are 1 (present), 0 (absent) or -1 (unknown); unknown labels are left out of every
score. An undefined score is NaN.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def check_scores(scores: ArrayLike, labels: ArrayLike) -> tuple[FloatArray, IntArray]:
    """Scores and labels as float64 and int64 arrays [S, C].

    ValueError if shapes differ or are not [S, C], a score is not finite, or a label is not 1, 0 or -1.
    """
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if values.ndim != 2 or values.shape != truth.shape:
        raise ValueError(f"scores {values.shape} and labels {truth.shape} must both be [scans, findings]")
    if not np.isfinite(values).all():
        scan, finding = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(
            f"expected finite scores; the score of scan {scan}, finding {finding} is {values[scan, finding]}"
        )
    if not np.isin(truth, (-1, 0, 1)).all():
        raise ValueError(f"labels must be 1, 0 or -1; found {sorted(set(np.unique(truth).tolist()) - {-1, 0, 1})}")
    return values, truth.astype(np.int64)


def check_thresholds(thresholds: ArrayLike, findings: int) -> FloatArray:
    """Thresholds as a float64 array [C]. ValueError if they are not one number for each finding."""
    array = np.asarray(thresholds, dtype=np.float64)
    if array.shape != (findings,) or np.isnan(array).any():
        raise ValueError(f"thresholds must be {findings} numbers, one per finding; got shape {array.shape}")
    return array


def known_pairs(scores: FloatArray, labels: IntArray, finding: int) -> tuple[FloatArray, IntArray]:
    """Scores and labels of the scans in which the label of one finding (a column index) is known, both [n]."""
    known = labels[:, finding] >= 0
    return scores[known, finding], labels[known, finding]


def finding_auc(scores: ArrayLike, labels: ArrayLike) -> FloatArray:
    """Area under the ROC curve of each finding for any monotone score [S, C], [C]; NaN if one class is missing."""
    return by_finding(roc_auc_score, scores, labels)


def finding_average_precision(scores: ArrayLike, labels: ArrayLike) -> FloatArray:
    """Average precision of each finding, [C]; NaN if one class is missing."""
    return by_finding(average_precision_score, scores, labels)


def macro_average(values: ArrayLike) -> float:
    """Mean over the findings with a defined score; NaN if there are none."""
    return float(macro_averages(np.asarray(values, dtype=np.float64)))


def macro_averages(values: FloatArray, axis: int = -1) -> FloatArray:
    """``macro_average`` along an axis, by default [R, C] to [R]."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        mean: FloatArray = np.where(defined, values, 0).sum(axis=axis) / defined.sum(axis=axis)
    return mean


def macro_auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Mean of `finding_auc` over the findings that have both classes."""
    return macro_average(finding_auc(scores, labels))


def decision_scores(probabilities: ArrayLike, labels: ArrayLike, thresholds: ArrayLike) -> dict[str, FloatArray]:
    """Scores of the decision ``probability >= threshold`` by name, [C] each; NaN where the denominator is zero.

    ``sensitivity`` TP/(TP+FN), ``specificity`` TN/(TN+FP), ``precision`` TP/(TP+FP), ``f1`` of the class present,
    ``weighted_f1`` over both classes by their counts (CT-CLIP's; it rewards the majority class), ``accuracy`` (TP+TN)/n
    (CT-CLIP's) and ``balanced_accuracy``, the mean of sensitivity and specificity (RadFinder's "acc"). ValueError as
    `check_scores` and `check_thresholds`.
    """
    scores, truth = check_scores(probabilities, labels)
    present = scores >= check_thresholds(thresholds, scores.shape[1])
    tp, fp, tn, fn = (
        (called & (truth == label)).sum(axis=0)
        for called, label in ((present, 1), (present, 0), (~present, 0), (~present, 1))
    )
    sensitivity, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    f1, f1_absent = _ratio(2 * tp, 2 * tp + fp + fn), _ratio(2 * tn, 2 * tn + fp + fn)
    weighted = (tp + fn) * np.nan_to_num(f1) + (tn + fp) * np.nan_to_num(f1_absent)
    return {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "precision": _ratio(tp, tp + fp),
        "f1": f1,
        "weighted_f1": _ratio(weighted, tp + fp + tn + fn),
        "accuracy": _ratio(tp + tn, tp + fp + tn + fn),
        "balanced_accuracy": (sensitivity + specificity) / 2,
    }


def by_finding(
    metric: Callable[..., float], scores: ArrayLike, labels: ArrayLike, both_classes: bool = True
) -> FloatArray:
    """``metric(labels, scores)`` of each finding over its known labels, [C]; NaN if one class is missing.

    With `both_classes` false, one class is enough.
    """
    values, truth = check_scores(scores, labels)
    result = np.full(values.shape[1], np.nan)
    for finding in range(values.shape[1]):
        score, label = known_pairs(values, truth, finding)
        if 0 < label.sum() < label.size or (label.size and not both_classes):
            result[finding] = metric(label, score)
    return result


def _ratio(numerator: FloatArray | IntArray, denominator: IntArray) -> FloatArray:
    result = np.full(denominator.shape, np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result
