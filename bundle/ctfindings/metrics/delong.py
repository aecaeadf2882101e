"""DeLong's interval of the ROC-AUC, for independent scans. Shapes: S scans, C findings."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm, rankdata

from bundle.ctfindings.metrics.bootstrap import LEVEL
from bundle.ctfindings.metrics.classification import FloatArray, check_scores, known_pairs


def delong_intervals(scores: ArrayLike, labels: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """95 % limits of the AUC of each finding, clipped to 0..1.

    DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988), https://doi.org/10.2307/2531595, computed from ranks. Scans
    count as independent, so each patient must have one scan.

    Args:
        scores: Scores, ``[S, C]``.
        labels: 1, 0 or -1, ``[S, C]``.

    Returns:
        Lower and upper limits, ``[C]``; NaN with fewer than two scans of a class, or where the variance is 0, as it is
        for an AUC of 0 or 1.

    Raises:
        ValueError: The shapes do not fit.
    """
    score, truth = check_scores(scores, labels)
    low, high = np.full((2, score.shape[1]), np.nan)
    for finding in range(score.shape[1]):
        values, label = known_pairs(score, truth, finding)
        auc, variance = _auc_and_variance(values[label == 1], values[label == 0])
        if variance > 0:
            half = norm.ppf((1 + LEVEL) / 2) * np.sqrt(variance)
            low[finding], high[finding] = np.clip([auc - half, auc + half], 0, 1)
    return low, high


def _auc_and_variance(positive: FloatArray, negative: FloatArray) -> tuple[float, float]:
    """AUC of the scores of both classes and its variance; NaN with fewer than two of a class."""
    m, n = len(positive), len(negative)
    if min(m, n) < 2:
        return np.nan, np.nan
    ranks = rankdata(np.concatenate([positive, negative]))
    # Of each positive, the share of the negatives below it; of each negative, the share of the positives above it.
    below = (ranks[:m] - rankdata(positive)) / n
    above = 1 - (ranks[m:] - rankdata(negative)) / m
    return float(below.mean()), float(below.var(ddof=1) / m + above.var(ddof=1) / n)
