"""Spread over wordings and its intervals, against plain loops over scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.statistic_groups import group_record
from bundle.ctfindings.metrics.wording_spread import (
    auc_by_wording,
    f1_group,
    mean_group,
    spread_record,
    spread_statistics,
)
from tests.metrics.answers import answers

NAMES = ["A", "B", "C"]


def test_spread_is_that_of_a_plain_loop() -> None:
    scores, labels, _ = answers()
    auc = np.asarray([[roc_auc_score(labels[:, c], scores[:, t, c]) for c in range(4)] for t in range(3)])
    macro = auc.mean(axis=1)
    expected = [*macro, macro.mean(), macro.std(ddof=1), np.ptp(macro), auc.std(axis=0, ddof=1).mean()]
    np.testing.assert_allclose(spread_statistics(auc_by_wording(scores, labels, np.ones((1, 80))))[0], expected)


def test_the_record_has_an_interval_for_each_number() -> None:
    scores, labels, patients = answers()
    record = spread_record(scores, labels, NAMES, Bootstrap(patients, resamples=100))
    assert record["ids"] == NAMES
    for name in ("mean", "sd", "range", "finding_sd"):
        low, high = record[f"{name}_interval"]
        assert low < high
    assert all(
        low < value < high for value, (low, high) in zip(record["macro_auc"], record["macro_auc_interval"], strict=True)
    )


def test_f1_at_decisions_is_that_of_scikit_learn() -> None:
    scores, labels, patients = answers()
    present = scores > 0.5
    f1 = np.asarray([np.mean([f1_score(labels[:, c], present[:, t, c]) for c in range(4)]) for t in range(3)])
    record = group_record(f1_group(present, labels), Bootstrap(patients, resamples=10))
    assert [record[name] for name in ("mean", "sd", "range")] == pytest.approx([f1.mean(), f1.std(ddof=1), np.ptp(f1)])


def test_unknown_labels_count_neither_in_auc_nor_in_f1() -> None:
    scores, labels, patients = answers()
    hidden = labels.copy()
    hidden[:20] = -1
    flipped = scores.copy()
    flipped[:20] = -flipped[:20]
    weights = np.ones((1, 80))
    np.testing.assert_array_equal(auc_by_wording(scores, hidden, weights), auc_by_wording(flipped, hidden, weights))
    first, second = (
        group_record(f1_group(given > 0.5, hidden), Bootstrap(patients, resamples=5))["mean"]
        for given in (scores, flipped)
    )
    assert first == second


def test_means_are_weighted_by_the_scan_of_each_row() -> None:
    group = mean_group([[1.0], [0.0], [0.0]], np.asarray([0, 0, 2]), ["hit"])
    np.testing.assert_allclose(group.statistic(np.asarray([[1.0, 5, 1], [2, 0, 1]])), [[1 / 3], [2 / 5]])
