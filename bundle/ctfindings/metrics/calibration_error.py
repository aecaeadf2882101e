"""Expected calibration error, Brier score, calibration slope and reliability curve.

Shapes: S scans, C findings, R resamples.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mean_squared_error

from bundle.ctfindings.metrics.classification import FloatArray, IntArray, by_finding, check_scores, known_pairs

SMALLEST = 1e-6  # Probabilities are moved this far from 0 and 1 before their logit is taken
BINS = 10  # Equal bins of [0, 1]; each includes its lower edge, the last also 1


def expected_calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, weights: FloatArray | None = None
) -> FloatArray:
    """Mean gap between predicted probability and observed frequency, weighted by bin count; NaN without known labels.

    Probabilities and labels are [S, C], the result [C]; with non-negative scan weights [R, S] it is [R, C]. ValueError
    if a probability lies outside [0, 1].
    """
    scores, truth = _check_probabilities(probabilities, labels)
    of_scans = np.ones((1, len(scores))) if weights is None else weights
    result = np.full((len(of_scans), scores.shape[1]), np.nan)
    for finding in range(scores.shape[1]):
        known = truth[:, finding] >= 0
        score, label = known_pairs(scores, truth, finding)
        if not label.size:
            continue
        in_bin = _bin_of(score)[:, None] == np.arange(BINS)
        weight = of_scans[:, known]
        total = weight.sum(axis=1)
        gap = np.abs((weight * (score - label)) @ in_bin).sum(axis=1)
        np.divide(gap, total, out=result[:, finding], where=total > 0)
    return result[0] if weights is None else result


def brier_score(probabilities: ArrayLike, labels: ArrayLike) -> FloatArray:
    """Mean squared difference of predicted probability and label, [C]; NaN without known labels.

    Probabilities and labels are [S, C]. ValueError if a probability lies outside [0, 1].
    """
    return by_finding(mean_squared_error, *_check_probabilities(probabilities, labels), both_classes=False)


def calibration_slope(probabilities: ArrayLike, labels: ArrayLike) -> FloatArray:
    """Slope of the logistic regression of the labels on the logits of the probabilities, [C].

    1 is calibrated; below 1 the probabilities are too extreme. NaN where a class is missing or the classes are
    separated, so that the slope has no limit. Cox, Biometrika 45 (1958); for clinical predictions Van Calster et al., J
    Clin Epidemiol 74 (2016). Probabilities and labels are [S, C]. ValueError if a probability lies outside [0, 1].
    """
    return by_finding(_slope, *_check_probabilities(probabilities, labels))


def _slope(label: IntArray, score: FloatArray) -> float:
    positive, negative = score[label == 1], score[label == 0]
    if positive.min() >= negative.max() or negative.min() >= positive.max():
        return float("nan")
    logits = logit(np.clip(score, SMALLEST, 1 - SMALLEST))
    return float(LogisticRegression(C=np.inf, max_iter=1000).fit(logits[:, None], label).coef_[0, 0])


def reliability(probabilities: ArrayLike, labels: ArrayLike) -> dict[str, list[float] | list[int]]:
    """Reliability curve of all findings: ``probability`` (mean), ``frequency`` and ``count`` of each bin with scans.

    ValueError if a probability lies outside [0, 1].
    """
    scores, truth = _check_probabilities(probabilities, labels)
    score, label = scores[truth >= 0], truth[truth >= 0]
    index = _bin_of(score)
    count = np.bincount(index, minlength=BINS)
    held = count > 0
    return {
        "probability": (np.bincount(index, weights=score, minlength=BINS)[held] / count[held]).tolist(),
        "frequency": (np.bincount(index, weights=label, minlength=BINS)[held] / count[held]).tolist(),
        "count": count[held].tolist(),
    }


def _bin_of(score: FloatArray) -> IntArray:
    return np.minimum((score * BINS).astype(np.int64), BINS - 1)


def _check_probabilities(probabilities: ArrayLike, labels: ArrayLike) -> tuple[FloatArray, IntArray]:
    scores, truth = check_scores(probabilities, labels)
    if scores.size and (scores.min() < 0 or scores.max() > 1):
        raise ValueError(f"expected probabilities in 0..1, found {scores.min():.3g}..{scores.max():.3g}, not logits")
    return scores, truth
