"""Thresholds of the decision ``probability >= threshold``, chosen on calibration scans. Shapes: S scans, C findings."""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import precision_recall_curve, roc_curve

from bundle.ctfindings.metrics.classification import FloatArray, IntArray, check_scores, known_pairs

FALLBACK_THRESHOLD = 0.5

ThresholdRule = Literal["youden", "f1", "corner", "corner_smallest", "youden_or_none"]


def check_rule(rule: str) -> None:
    """ValueError if a rule of ``choose_thresholds`` is unknown."""
    if rule not in _RULES:
        raise ValueError(f"threshold_rule: expected one of {', '.join(_RULES)}, got {rule!r}")


def choose_thresholds(
    probabilities: ArrayLike,
    labels: ArrayLike,
    rule: ThresholdRule,
    names: Sequence[str],
    fallback: float = FALLBACK_THRESHOLD,
) -> FloatArray:
    """The threshold of each finding, [C]; ``fallback`` with a warning if one class is missing.

    The rule is "youden" for the largest Youden index TPR - FPR; "f1" for the largest F1, which calls a rare finding
    present in fewer scans. Three rules are only for comparison with published tables: "corner" (fVLM),
    "corner_smallest" (CT-CLIP, which takes the smallest of equal thresholds) and "youden_or_none" (RadFinder, which
    calls no scan positive if a finding is scored worse than chance). The scores are [S, C]. ValueError if the rule is
    unknown.
    """
    check_rule(rule)
    scores, truth = check_scores(probabilities, labels)
    result = np.full(scores.shape[1], fallback)
    one_class = []
    for finding in range(scores.shape[1]):
        score, label = known_pairs(scores, truth, finding)
        if 0 < label.sum() < label.size:
            result[finding] = _RULES[rule](score, label)
        else:
            one_class.append(f"{names[finding]} ({label.size} scans with a known label)")
    if one_class:
        # One warning for all findings: 18 findings by seven templates would bury the rest of the output.
        used = f"threshold {fallback:g} is used" if fallback <= 1 else "no threshold can be fitted"
        warnings.warn(f"{used} for findings without both classes: {', '.join(one_class)}", stacklevel=2)
    return result


def _youden(score: FloatArray, label: IntArray) -> float:
    """On the exact ROC curve, among the scores that occur; the largest threshold of a tie, which is more specific."""
    false_positive_rate, true_positive_rate, candidates = roc_curve(label, score, drop_intermediate=False)
    # scikit-learn puts an infinite threshold first; a threshold must be a probability that can be stored and reached.
    # The rates are multiples of 1/n, so rounding removes only the last-bit noise that would break a tie.
    youden = np.round(true_positive_rate - false_positive_rate, 12)[1:]
    return float(candidates[1:][np.argmax(youden)])


def _youden_or_none(score: FloatArray, label: IntArray) -> float:
    """Youden's index over the whole ROC curve, with its first point, at which no scan is positive."""
    false_positive_rate, true_positive_rate, candidates = roc_curve(label, score, drop_intermediate=False)
    best = int(np.argmax(np.round(true_positive_rate - false_positive_rate, 12)))
    return float(candidates[best]) if best else float(np.nextafter(score.max(), np.inf))


def _f1(score: FloatArray, label: IntArray) -> float:
    """Among the scores that occur; the largest threshold of a tie."""
    precision, recall, candidates = precision_recall_curve(label, score)
    f1 = np.round(2 * precision * recall / np.maximum(precision + recall, 1e-12), 12)[: len(candidates)]
    return float(candidates[np.flatnonzero(f1 == f1.max())[-1]])


def _corner(score: FloatArray, label: IntArray, tie: int = -1) -> float:
    """The value of the grid of 100 on [0, 1] whose ROC point lies nearest to the top left corner.

    The published code decides by ``probability > threshold``. The next float above the grid value decides the same by
    ``>=``. The grid is too coarse for probabilities that crowd around 0.5. ``tie`` is the index of the threshold that
    wins among equal ones: the largest for fVLM, the smallest for CT-CLIP.
    """
    grid = np.linspace(0, 1, 100)
    present = score[None, :] > grid[:, None]
    true_positive_rate = present[:, label == 1].mean(axis=1)
    false_positive_rate = present[:, label == 0].mean(axis=1)
    distance = np.round(np.hypot(1 - true_positive_rate, false_positive_rate), 12)
    return float(np.nextafter(grid[np.flatnonzero(distance == distance.min())[tie]], np.inf))


_RULES: dict[str, Callable[[FloatArray, IntArray], float]] = {
    "youden": _youden,
    "f1": _f1,
    "corner": _corner,
    "corner_smallest": partial(_corner, tie=0),
    "youden_or_none": _youden_or_none,
}
