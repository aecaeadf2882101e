"""The calibration error and the reliability curve by hand."""

import numpy as np
import pytest
from scipy.special import expit

from bundle.ctfindings.metrics.calibration_error import (
    brier_score,
    calibration_slope,
    expected_calibration_error,
    reliability,
)


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


def test_brier_score_is_the_mean_squared_error_of_the_known_labels() -> None:
    assert brier_score([[0.5], [0.2], [0.9]], [[1], [0], [-1]]) == pytest.approx([(0.25 + 0.04) / 2])
    assert np.isnan(brier_score([[0.5]], [[-1]]))


def test_a_model_that_is_twice_as_sure_as_it_may_be_has_slope_one_half() -> None:
    random = np.random.default_rng(1)
    logits = random.normal(size=20_000)
    labels = (random.random(logits.size) < expit(logits)).astype(int)
    both = np.stack([expit(logits), expit(2 * logits)], axis=1)
    slopes = calibration_slope(both, np.stack([labels, labels], axis=1))
    assert slopes == pytest.approx([1.0, 0.5], rel=0.06)


@pytest.mark.parametrize("labels", [[0, 0, 1], [1, 1, 0], [0, 0, 0], [-1, 0, 0]])
def test_separated_or_missing_classes_have_no_slope(labels: list[int]) -> None:
    assert np.isnan(calibration_slope([[0.1], [0.4], [0.8]], np.asarray(labels)[:, None])).all()
