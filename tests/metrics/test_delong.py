"""DeLong's intervals by hand, from the definition, and against the spread of the AUC over samples."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bundle.ctfindings.metrics.delong import delong_intervals


def by_definition(positive: np.ndarray, negative: np.ndarray) -> tuple[float, float]:
    """AUC and variance from the kernel of every pair, equations 3 to 5 of the paper."""
    kernel = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    auc = kernel.mean()
    first = ((kernel.mean(axis=1) - auc) ** 2).sum() / (len(positive) - 1)
    second = ((kernel.mean(axis=0) - auc) ** 2).sum() / (len(negative) - 1)
    return float(auc), float(first / len(positive) + second / len(negative))


def test_four_scans_by_hand() -> None:
    # Of the positives 3 and 5, the negatives 1 and 4 lie below by halves 0.5 and 1; AUC 0.75, variance 0.125.
    low, high = delong_intervals([[3.0], [5.0], [1.0], [4.0]], [[1], [1], [0], [0]])
    assert low[0] == pytest.approx(0.75 - 1.959964 * 0.125**0.5) and high[0] == 1


def test_limits_with_ties_are_those_of_the_definition() -> None:
    draw = np.random.default_rng(0)
    label = draw.integers(0, 2, 80)
    score = np.round(label + draw.normal(size=80), 1)
    auc, variance = by_definition(score[label == 1], score[label == 0])
    assert auc == pytest.approx(roc_auc_score(label, score)) and len(np.unique(score)) < 80
    low, high = delong_intervals(score[:, None], label[:, None])
    assert (low[0], high[0]) == pytest.approx((auc - 1.959964 * variance**0.5, auc + 1.959964 * variance**0.5))


def test_nineteen_of_twenty_intervals_hold_the_auc_of_the_distribution() -> None:
    draw = np.random.default_rng(1)
    label = np.repeat([[1], [0]], 60, axis=0)
    scores = draw.normal(size=(120, 2000)) + label
    low, high = delong_intervals(scores, np.repeat(label, 2000, axis=1))
    true_auc = 0.7602  # of two normal distributions that are one SD apart: Phi(1 / sqrt(2))
    assert np.mean((low < true_auc) & (true_auc < high)) == pytest.approx(0.95, abs=0.015)


def test_no_interval_without_two_scans_of_each_class_or_for_a_perfect_score() -> None:
    labels = [[1, 1, -1], [0, 1, 1], [0, 0, 0], [0, 0, 0]]
    scores = [[4.0, 4.0, 0.0], [1.0, 3.0, 4.0], [2.0, 2.0, 1.0], [3.0, 1.0, 2.0]]
    assert np.isnan(np.stack(delong_intervals(scores, labels))).all()
