"""The calibration error and the reliability curve by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from bundle.ctfindings.metrics.calibration_error import expected_calibration_error, reliability


def test_calibration_error_is_the_gap_of_each_bin_weighted_by_its_count() -> None:
    # Bin 0: .05 and .05, none present -> 2 x .05. Bin 9: .95 present, 1.0 absent -> |1.95 - 1|. Sum 1.05 over 4 scans.
    probabilities, labels = [[0.05], [0.05], [0.95], [1.0], [0.5]], [[0], [0], [1], [0], [-1]]
    assert expected_calibration_error(probabilities, labels) == pytest.approx([1.05 / 4])
    assert np.isnan(expected_calibration_error([[0.5]], [[-1]]))
    with pytest.raises(ValueError, match="not logits"):
        expected_calibration_error([[1.5]], [[1]])


def test_weights_count_as_repeated_scans() -> None:
    random = np.random.default_rng(4)
    logits, labels = random.normal(size=(30, 2)), random.integers(0, 2, (30, 2))
    weights = np.random.default_rng(0).integers(0, 4, (5, 30)).astype(float)
    found = expected_calibration_error(expit(logits), labels, weights)
    for row, weight in zip(found, weights.astype(int), strict=True):
        repeated = np.repeat(np.arange(30), weight)
        np.testing.assert_allclose(row, expected_calibration_error(expit(logits)[repeated], labels[repeated]))


def test_reliability_is_the_mean_and_frequency_of_each_bin_that_holds_an_answer() -> None:
    curve = reliability([[0.05], [0.15], [0.11], [1.0]], [[0], [1], [0], [1]])
    assert curve["probability"] == pytest.approx([0.05, 0.13, 1.0])
    assert curve["frequency"] == pytest.approx([0.0, 0.5, 1.0])
    assert curve["count"] == [1, 2, 1]
