"""Thresholds that turn a probability into present or absent, chosen on calibration scans that are not scored.

The decision is ``probability >= threshold`` everywhere. Shapes: S scans, C findings.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from bundle.ctfindings.metrics.classification import FloatArray, check_scores, known_pairs

FALLBACK_THRESHOLD = 0.5

ThresholdRule = Literal["youden", "f1", "corner"]


def check_disjoint(calibration_ids: Iterable[str], scored_ids: Iterable[str]) -> None:
    """Refuse calibration scans that are also scored: thresholds tuned on the scored scans make the scores optimistic.

    Raises:
        ValueError: names the first calibration scan that is also scored.
    """
    scored = set(scored_ids)
    for scan in calibration_ids:
        if scan in scored:
            raise ValueError(
                f"scan {scan} is in the calibration set and in the scored set; choose thresholds on other scans"
            )


def choose_thresholds(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    split: str,
    calibration_ids: Sequence[str],
    scored_ids: Iterable[str] = (),
    rule: ThresholdRule = "youden",
    names: Sequence[str] | None = None,
) -> FloatArray:
    """Thresholds of the findings from a calibration split, [C].

    Args:
        probabilities: calibration probabilities [S, C].
        labels: 1, 0 or -1, [S, C].
        split: name of the split the scans come from; the test split is refused.
        calibration_ids: the ids of these S scans.
        scored_ids: ids of the scans the thresholds will be scored on.
        rule: `youden_thresholds`, `f1_thresholds` or `corner_thresholds`.
        names: of the findings [C], for warnings; their numbers when not given.

    Raises:
        ValueError: the rule is unknown, the split is the test split, a scan is in both sets, or the ids are not S.
    """
    if rule not in RULES:
        raise ValueError(f"threshold rule {rule!r} is unknown; known are {', '.join(RULES)}")
    if split.strip().lower() in ("test", "testing"):
        raise ValueError(f"thresholds may not be chosen on the split '{split}'; use the validation split")
    scores, truth = check_scores(probabilities, labels)
    if len(calibration_ids) != len(scores):
        raise ValueError(f"{len(calibration_ids)} calibration ids for {len(scores)} scans; one id per scan is expected")
    check_disjoint(calibration_ids, scored_ids)
    return RULES[rule](scores, truth, names=names)


def youden_thresholds(probabilities: ArrayLike, labels: ArrayLike, *, names: Sequence[str] | None = None) -> FloatArray:
    """The threshold with the largest Youden index TPR - FPR on the exact ROC curve of each finding, [C].

    Candidates are the probabilities that occur. Among equal indices the largest threshold, the more specific one, is
    taken. Where one class is missing the threshold is 0.5, with a warning.

    Args:
        probabilities: scores [S, C].
        labels: 1, 0 or -1, [S, C].
        names: of the findings, see ``choose_thresholds``.
    """

    def choose(score: FloatArray, label: NDArray[np.int64]) -> float:
        false_positive_rate, true_positive_rate, candidates = roc_curve(label, score, drop_intermediate=False)
        # scikit-learn puts an infinite threshold first; a threshold must be a probability that can be stored and
        # reached. The rates are multiples of 1/n, so rounding removes only the last-bit noise that would break a tie
        # the wrong way.
        youden = np.round(true_positive_rate - false_positive_rate, 12)[1:]
        return float(candidates[1:][np.argmax(youden)])

    return _by_finding(probabilities, labels, choose, names)


def f1_thresholds(probabilities: ArrayLike, labels: ArrayLike, *, names: Sequence[str] | None = None) -> FloatArray:
    """The threshold with the largest F1 score of each finding, [C].

    Youden's index weighs sensitivity and specificity alike, so that a rare finding is called present in many scans that
    do not have it. F1 weighs the scans that are called present instead. Candidates are the probabilities that occur;
    among equal scores the largest threshold is taken. Where one class is missing the threshold is 0.5, with a warning.

    Args:
        probabilities: scores [S, C].
        labels: 1, 0 or -1, [S, C].
        names: of the findings, see ``choose_thresholds``.
    """

    def choose(score: FloatArray, label: NDArray[np.int64]) -> float:
        precision, recall, candidates = precision_recall_curve(label, score)
        f1 = np.round(2 * precision * recall / np.maximum(precision + recall, 1e-12), 12)[: len(candidates)]
        return float(candidates[np.flatnonzero(f1 == f1.max())[-1]])

    return _by_finding(probabilities, labels, choose, names)


def corner_thresholds(
    probabilities: ArrayLike, labels: ArrayLike, steps: int = 100, *, names: Sequence[str] | None = None
) -> FloatArray:
    """CT-CLIP's threshold: the value of an even grid on [0, 1] whose ROC point lies nearest to the top left corner,
    [C].

    For comparison with published tables only; the grid is too coarse for probabilities that crowd around 0.5. CT-CLIP
    decides by ``probability > threshold`` and lets the largest of equal thresholds win. The value returned is the next
    float above the grid value, so that ``>=`` decides as CT-CLIP's ``>`` does. Where one class is missing it is 0.5,
    with a warning.

    Args:
        probabilities: scores in [0, 1], [S, C].
        labels: 1, 0 or -1, [S, C].
        steps: number of grid values.
        names: of the findings, see ``choose_thresholds``.
    """
    grid = np.linspace(0, 1, steps)

    def choose(score: FloatArray, label: NDArray[np.int64]) -> float:
        present = score[None, :] > grid[:, None]
        true_positive_rate = present[:, label == 1].mean(axis=1)
        false_positive_rate = present[:, label == 0].mean(axis=1)
        distance = np.round(np.hypot(1 - true_positive_rate, false_positive_rate), 12)
        return float(np.nextafter(grid[np.flatnonzero(distance == distance.min())[-1]], np.inf))

    return _by_finding(probabilities, labels, choose, names)


RULES: dict[str, Callable[..., FloatArray]] = {
    "youden": youden_thresholds,
    "f1": f1_thresholds,
    "corner": corner_thresholds,
}
"""Rules of ``choose_thresholds`` by name."""


def _by_finding(
    probabilities: ArrayLike,
    labels: ArrayLike,
    choose: Callable[[FloatArray, NDArray[np.int64]], float],
    names: Sequence[str] | None,
) -> FloatArray:
    """The threshold that ``choose`` finds in the known scores and labels of each finding, [C]; 0.5 for one class alone.

    One warning names all of these: 18 findings by seven templates would bury what follows.
    """
    scores, truth = check_scores(probabilities, labels)
    result = np.full(scores.shape[1], FALLBACK_THRESHOLD)
    one_class = []
    for finding in range(scores.shape[1]):
        score, label = known_pairs(scores, truth, finding)
        if 0 < label.sum() < label.size:
            result[finding] = choose(score, label)
        else:
            one_class.append(
                f"{names[finding] if names else f'finding {finding}'} ({label.size} scans with a known label)"
            )
    if one_class:
        warnings.warn(
            f"threshold {FALLBACK_THRESHOLD}, for want of scans of both classes: {', '.join(one_class)}", stacklevel=3
        )
    return result
