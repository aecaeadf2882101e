"""Platt scaling and temperature against scikit-learn and known truths."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from bundle.ctfindings.metrics.calibration_error import expected_calibration_error
from bundle.ctfindings.metrics.classification import finding_auc
from bundle.ctfindings.metrics.platt_scaling import apply_platt, apply_temperature, fit_platt, fit_temperature

NAMES = ["first", "second", "third"]


def drawn(scans: int, scale: list[float], shift: list[float], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels drawn from the model that Platt scaling assumes."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(scans, len(scale)))
    return logits, (random.random(logits.shape) < expit(logits * scale + shift)).astype(int)


def test_the_scale_and_shift_that_drew_the_labels_are_recovered() -> None:
    scale, shift = fit_platt(*drawn(20000, [0.5, 2.0, 4.0], [-1.0, 0.0, -2.0]), NAMES)
    assert scale == pytest.approx([0.5, 2.0, 4.0], rel=0.1)
    assert shift == pytest.approx([-1.0, 0.0, -2.0], abs=0.12)


def test_findings_without_a_known_label_are_named_in_one_warning() -> None:
    logits, labels = drawn(50, [1.0, 1.0, 1.0], [0.0, 0.0, 0.0])
    labels[:, [0, 2]] = -1
    with pytest.warns(UserWarning) as caught:
        scale, shift = fit_platt(logits, labels, NAMES)
    assert [str(warning.message).split(": ")[1] for warning in caught] == ["first, third"]
    assert shift[[0, 2]].tolist() == [0, 0] and scale[0] == scale[2]


def test_without_a_pull_it_is_logistic_regression_on_platts_targets() -> None:
    logits, labels = drawn(200, [1.5, 0.7], [-1.0, 0.3], seed=1)
    scale, shift = fit_platt(logits, labels, NAMES, l2=0.0)
    for finding in range(2):
        label, positives = labels[:, finding], labels[:, finding].sum()
        target = np.where(label == 1, (positives + 1) / (positives + 2), 1 / (len(label) - positives + 2))
        # Soft targets, as each scan twice: present with the target's weight, absent with the rest.
        model = LogisticRegression(C=1e10, tol=1e-10, max_iter=10000).fit(
            np.tile(logits[:, [finding]], (2, 1)),
            np.repeat([1, 0], len(label)),
            sample_weight=np.concatenate([target, 1 - target]),
        )
        assert scale[finding] == pytest.approx(model.coef_[0, 0], rel=1e-3)
        assert shift[finding] == pytest.approx(model.intercept_[0], abs=1e-3)


def test_few_positives_stay_near_the_shared_slope_and_many_do_not() -> None:
    logits, labels = drawn(3000, [1.0, 1.0, 6.0], [0.0, 0.0, 0.0], seed=2)
    many = fit_platt(logits, labels, NAMES)[0]
    few_labels = labels.copy()
    few_labels[20:, 2] = -1
    few = fit_platt(logits, few_labels, NAMES, l2=10.0)[0]
    assert many[2] > 4
    assert 0.5 < few[2] < 2.5


def test_a_finding_that_scores_backwards_takes_the_shared_slope_and_keeps_its_order() -> None:
    logits, labels = drawn(2000, [2.0, 1.0, -0.5], [0.0, 0.0, -1.0], seed=3)
    scale, shift = fit_platt(logits, labels, NAMES)
    # One slope and three intercepts over all pairs, the intercepts as indicator columns.
    design = np.column_stack([logits.ravel(), np.tile(np.eye(3), (2000, 1))])
    shared = LogisticRegression(C=1e6, fit_intercept=False, max_iter=10000).fit(design, labels.ravel()).coef_[0, 0]
    assert scale[2] == pytest.approx(shared, rel=1e-2)
    np.testing.assert_allclose(finding_auc(apply_platt(logits, scale, shift), labels), finding_auc(logits, labels))
    # The shift is still fitted: stated and observed frequency agree.
    assert apply_platt(logits, scale, shift)[:, 2].mean() == pytest.approx(labels[:, 2].mean(), abs=0.01)


def test_separated_and_one_class_findings_get_finite_values() -> None:
    logits, labels = drawn(100, [1.0, 1.0, 1.0], [0.0, 0.0, 0.0], seed=4)
    labels[:, 1] = logits[:, 1] > 0
    labels[:, 2] = 0
    scale, shift = fit_platt(logits, labels, NAMES)
    assert np.isfinite(scale).all() and np.isfinite(shift).all() and scale[1] > scale[0]
    # With 100 negatives and no positive, Platt's target is 1 / 102.
    assert apply_platt(logits, scale, shift)[:, 2].mean() == pytest.approx(1 / 102, rel=1e-3)


def test_probabilities_do_not_depend_on_the_unit_of_the_logits() -> None:
    logits, labels = drawn(300, [1.0, 2.0], [0.0, -1.0], seed=5)
    plain, scaled = (
        apply_platt(logits, *fit_platt(logits, labels, NAMES)),
        apply_platt(0.01 * logits, *fit_platt(0.01 * logits, labels, NAMES)),
    )
    np.testing.assert_allclose(plain, scaled, atol=1e-5)


def test_calibration_lowers_the_error_of_overconfident_scores() -> None:
    logits, labels = drawn(4000, [0.3], [-1.0], seed=6)
    assert expected_calibration_error(expit(logits), labels)[0] > 0.15
    assert expected_calibration_error(apply_platt(logits, *fit_platt(logits, labels, NAMES)), labels)[0] < 0.03


def test_logits_that_run_against_the_labels_are_refused() -> None:
    logits, labels = drawn(300, [2.0, 2.0], [0.0, 0.0], seed=7)
    with pytest.raises(ValueError, match="do not rise with the labels"):
        fit_platt(-logits, labels, NAMES)
    with pytest.raises(ValueError, match="one class only"):
        fit_platt(logits, np.zeros_like(labels), NAMES)
    with pytest.raises(ValueError, match="equal or unlabelled"):
        fit_platt(np.zeros_like(logits), labels, NAMES)


def test_the_temperature_that_drew_the_labels_is_recovered() -> None:
    logits, labels = drawn(20000, [0.4, 0.4], [0.0, 0.0])
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(1 / 0.4, rel=0.05)
    np.testing.assert_allclose(apply_temperature(logits, temperature), expit(logits / temperature))


def test_a_fitted_temperature_has_the_smallest_cross_entropy_of_a_grid() -> None:
    logits, labels = drawn(300, [1.5, 0.7], [-0.4, 0.3], seed=2)

    def cross_entropy(temperature: float) -> float:
        return float(-np.log(expit(np.where(labels == 1, 1, -1) * logits / temperature)).mean())

    fitted = fit_temperature(logits, labels)
    assert cross_entropy(fitted) <= min(cross_entropy(value) for value in np.geomspace(0.05, 50, 400)) + 1e-12


def test_unknown_labels_do_not_move_the_temperature() -> None:
    logits, labels = drawn(200, [0.5, 2.0], [0.0, 0.0], seed=3)
    known = fit_temperature(logits, labels)
    extra = np.concatenate([logits, 50 * logits]), np.concatenate([labels, np.full_like(labels, -1)])
    assert fit_temperature(*extra) == pytest.approx(known)
    with pytest.raises(ValueError, match="no calibration label is known"):
        fit_temperature(logits, np.full_like(labels, -1))


def test_logits_on_the_wrong_side_of_zero_get_the_largest_temperature() -> None:
    """Positive logits, few positives: no temperature but the highest comes near, which is the limit the docs name."""
    logits = np.full((20, 1), 3.0)
    labels = np.zeros((20, 1), dtype=int)
    labels[0] = 1
    assert fit_temperature(logits, labels) == pytest.approx(1000, rel=1e-3)
