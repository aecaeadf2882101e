"""The bootstrap: resampling by patient, and the fast AUC path against scikit-learn and the plain path."""

import time
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from bundle.ctfindings.metrics.bootstrap import Bootstrap, weighted_auc, weighted_average_precision
from bundle.ctfindings.metrics.classification import finding_auc, macro_auc


def scores(scans: int, findings: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Scores that carry some signal, with ties and unknown labels; two scans per patient."""
    random = np.random.default_rng(seed)
    labels = random.choice([-1, 0, 1], p=[0.1, 0.6, 0.3], size=(scans, findings))
    probabilities = np.round(random.normal(size=(scans, findings)) + (labels == 1), 1)
    return probabilities, labels, [f"p{scan // 2:04d}" for scan in range(scans)]


def test_all_scans_of_a_patient_are_drawn_together_and_patients_number_the_same() -> None:
    weights = Bootstrap(["a", "b", "a", "c", "c", "c"], resamples=200, seed=1).weights
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, 3], weights[:, 5])
    np.testing.assert_array_equal(weights[:, [0, 1, 3]].sum(axis=1), 3)


def test_each_patient_is_expected_once_with_the_variance_of_a_multinomial_draw() -> None:
    weights = Bootstrap([str(i) for i in range(50)], resamples=4000, seed=2).weights
    assert weights.mean() == 1
    assert weights.var() == pytest.approx(1 - 1 / 50, rel=0.02)


def test_weighted_auc_agrees_with_scikit_learn_sample_weights() -> None:
    probabilities, labels, _ = scores(40, 3)
    weights = np.random.default_rng(3).integers(0, 4, (5, 40))
    expected = np.empty((5, 3))
    for resample in range(5):
        for finding in range(3):
            known = labels[:, finding] >= 0
            expected[resample, finding] = roc_auc_score(
                labels[known, finding], probabilities[known, finding], sample_weight=weights[resample, known]
            )
    np.testing.assert_allclose(weighted_auc(probabilities, labels, weights), expected, atol=1e-12)


def test_fast_auc_intervals_equal_the_plain_bootstrap() -> None:
    probabilities, labels, patients = scores(40, 2)
    bootstrap = Bootstrap(patients, resamples=100, seed=5)
    fast = bootstrap.auc(probabilities, labels)
    findings = bootstrap.row_interval(finding_auc, [probabilities, labels])
    macro = bootstrap.row_interval(macro_auc, [probabilities, labels])
    for ours, plain in ((fast.findings, findings), (fast.macro, macro)):
        np.testing.assert_allclose(ours.estimate, plain.estimate)
        np.testing.assert_allclose(ours.low, plain.low)
        np.testing.assert_allclose(ours.high, plain.high)


def test_interval_of_a_mean_is_the_normal_interval() -> None:
    values = np.random.default_rng(6).normal(size=400)
    interval = Bootstrap([str(i) for i in range(400)], resamples=4000, seed=7).row_interval(np.mean, [values])
    half = norm.ppf(0.975) * values.std() / np.sqrt(400)
    assert float(interval.low) == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert float(interval.high) == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_repeated_scans_of_a_patient_do_not_narrow_the_interval() -> None:
    probabilities, labels, _ = scores(40, 1)
    patients = [str(i) for i in range(40)]
    once = Bootstrap(patients, seed=8).auc(probabilities, labels)
    thrice = Bootstrap(np.repeat(patients, 3).tolist(), seed=8).auc(
        np.repeat(probabilities, 3, 0), np.repeat(labels, 3, 0)
    )
    np.testing.assert_allclose([thrice.findings.low, thrice.findings.high], [once.findings.low, once.findings.high])


def test_a_model_does_not_differ_from_itself() -> None:
    probabilities, labels, patients = scores(40, 2)
    interval = Bootstrap(patients, resamples=50).auc_difference(probabilities, 2 * probabilities - 1, labels).macro
    assert (float(interval.estimate), float(interval.low), float(interval.high)) == (0, 0, 0)


def test_fast_paired_intervals_equal_the_plain_ones() -> None:
    first, labels, patients = scores(40, 2)
    second = first + np.random.default_rng(9).normal(size=first.shape)
    bootstrap = Bootstrap(patients, resamples=60, seed=3)
    fast = bootstrap.auc_difference(first, second, labels)

    def difference(one: Any, other: Any, truth: Any) -> Any:
        return finding_auc(one, truth) - finding_auc(other, truth)

    plain = bootstrap.row_interval(difference, [first, second, labels])
    np.testing.assert_allclose(fast.findings.estimate, plain.estimate)
    np.testing.assert_allclose([fast.findings.low, fast.findings.high], [plain.low, plain.high])


def test_a_finding_with_one_class_has_no_interval() -> None:
    probabilities, labels, patients = scores(40, 2)
    labels[:, 1] = 0
    intervals = Bootstrap(patients, resamples=50).auc(probabilities, labels)
    assert np.isnan(intervals.findings.low[1]) and np.isnan(intervals.findings.high[1])
    assert float(intervals.macro.estimate) == intervals.findings.estimate[0]


def test_the_same_seed_gives_the_same_interval() -> None:
    probabilities, labels, patients = scores(40, 2)
    first, again, other = (Bootstrap(patients, seed=seed).auc(probabilities, labels).findings.low for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_thousand_resamples_of_three_hundred_scans_take_seconds() -> None:
    probabilities, labels, patients = scores(300, 18)
    start = time.process_time()
    Bootstrap(patients, resamples=1000).auc(probabilities, labels)
    assert time.process_time() - start < 10


def test_what_cannot_be_resampled_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 patients"):
        Bootstrap(["a", "a", "a"]).row_interval(np.mean, [np.ones(3)])
    with pytest.raises(ValueError, match="one row for each of the 2 scans"):
        Bootstrap(["a", "b"]).row_interval(np.mean, [np.ones(3)])


def test_an_interval_over_weights_is_that_over_resampled_rows() -> None:
    values = np.random.default_rng(4).normal(size=60)
    patients = [f"p{i // 3}" for i in range(60)]
    bootstrap = Bootstrap(patients, resamples=300, seed=5)
    rows = bootstrap.row_interval(np.mean, [values])
    weighted = bootstrap.interval(lambda weights: weights @ values / weights.sum(axis=1))
    assert (float(weighted.estimate), float(weighted.low), float(weighted.high)) == pytest.approx(
        (float(rows.estimate), float(rows.low), float(rows.high))
    )


def test_weighted_average_precision_agrees_with_scikit_learn_sample_weights() -> None:
    random = np.random.default_rng(3)
    labels = random.integers(0, 2, (60, 2))
    labels[::7, 1] = -1
    scores = random.integers(0, 12, (60, 2)) / 12  # with ties
    weights = random.integers(0, 3, (5, 60))
    known = [labels[:, finding] >= 0 for finding in range(2)]
    expected = [
        [average_precision_score(labels[k, f], scores[k, f], sample_weight=w[k]) for f, k in enumerate(known)]
        for w in weights
    ]
    np.testing.assert_allclose(weighted_average_precision(scores, labels, weights), expected, atol=1e-12)


def test_a_perfect_auc_has_the_exact_limit_of_its_smaller_class() -> None:
    """Three patients with the finding, two scans each, and five without: 0.025^(1/3), whatever the resamples say."""
    patients = ["a", "a", "b", "b", "c", "c", "d", "e", "f", "g", "h"]
    labels = np.asarray([1] * 6 + [0] * 5)[:, None]
    right = Bootstrap(patients, resamples=50).auc(labels * 1.0, labels).findings
    wrong = Bootstrap(patients, resamples=50).auc(labels * -1.0, labels).findings
    assert (right.low[0], right.high[0]) == (pytest.approx(0.025 ** (1 / 3)), 1.0)
    assert (wrong.low[0], wrong.high[0]) == (0.0, pytest.approx(1 - 0.025 ** (1 / 3)))
