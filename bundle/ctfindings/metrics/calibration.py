"""Calibration: a temperature for all, Platt scaling of each finding's logit, and how far stated probabilities are from
the truth.

Shapes: S scans, C findings, R resamples.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from bundle.ctfindings.metrics.classification import FloatArray, IntArray, check_scores, known_pairs

TEMPERATURES = (0.01, 1000.0)
"""Range in which a temperature is looked for."""


def fit_platt(
    logits: ArrayLike, labels: ArrayLike, l2: float = 1.0, *, names: Sequence[str] | None = None
) -> tuple[FloatArray, FloatArray]:
    """Scale and shift of each finding so that ``sigmoid(scale * logit + shift)`` is its probability; scale > 0 keeps
    the AUC.

    A slope shared by all findings is fitted first (logistic regression with one intercept per finding). Each finding
    then gets its own slope, held to the shared one by ``l2 / 2 * log(scale / shared)^2``: with few positives the data
    say little and the shared slope stays. A finding whose slope would not be positive (its positives do not score above
    its negatives), or that lacks one class, takes the shared slope. Targets are Platt's smoothed ones, (n+ + 1)/(n+ +
    2) and 1/(n- + 2), so perfectly separated scans give a finite slope.

    Platt, "Probabilistic Outputs for Support Vector Machines", Advances in Large Margin Classifiers, 1999.

    Args:
        logits: uncalibrated scores of the calibration scans [S, C].
        labels: 1, 0 or -1, [S, C].
        l2: strength of the pull to the shared slope, not negative.
        names: of the findings [C], for warnings; their numbers when not given.

    Returns:
        Scale [C] and shift [C]. A finding without any known label has shift 0, with a warning.

    Raises:
        ValueError: the logits do not rise with the labels over all findings together, so that no positive slope exists.
    """
    scores, truth = check_scores(logits, labels)
    known = truth >= 0
    # One unit for all: the fit does not depend on whether the logits carry a temperature.
    unit = float(np.std(scores[known])) if known.any() else 0.0
    if unit == 0:
        raise ValueError("all calibration logits are equal or unlabelled; calibration needs logits that vary")
    shared = _shared_slope(scores / unit, truth)
    scale = np.full(scores.shape[1], shared)
    shift = np.zeros(scores.shape[1])
    unlabelled = []
    for finding in range(scores.shape[1]):
        score, label = known_pairs(scores / unit, truth, finding)
        if not label.size:
            unlabelled.append(names[finding] if names else f"finding {finding}")
            continue
        # The maximum-likelihood slope of one feature has the sign of the difference of the class means.
        own = 0 < label.sum() < label.size and score[label == 1].mean() > score[label == 0].mean()
        scale[finding], shift[finding] = _fit_finding(score, _smoothed_targets(label), shared, l2, own)
    if unlabelled:
        warnings.warn(
            f"no known label among the calibration scans, so that shift 0 is used: {', '.join(unlabelled)}",
            stacklevel=2,
        )
    return scale / unit, shift


def apply_platt(logits: ArrayLike, scale: ArrayLike, shift: ArrayLike) -> FloatArray:
    """Calibrated probabilities ``sigmoid(scale * logit + shift)``, [..., C]."""
    probabilities: FloatArray = expit(np.asarray(logits, dtype=np.float64) * np.asarray(scale) + np.asarray(shift))
    return probabilities


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The one number that divides all logits so that ``sigmoid(logit / temperature)`` has the smallest cross-entropy.

    It mends how sure a model is, not a wrong offset: where logits of all findings lie on the wrong side of zero, the
    best temperature grows without limit, and the upper end of `TEMPERATURES` is returned. Platt scaling (`fit_platt`)
    mends both.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, https://arxiv.org/abs/1706.04599

    Args:
        logits: uncalibrated scores of the calibration scans [S, C].
        labels: 1, 0 or -1, [S, C].

    Raises:
        ValueError: no label is known.
    """
    scores, truth = check_scores(logits, labels)
    score, label = scores[truth >= 0], truth[truth >= 0]
    if not label.size:
        raise ValueError("no calibration label is known; a temperature needs scans with labels")

    def cross_entropy(log_temperature: float) -> float:
        logit = score / np.exp(log_temperature)
        return float((np.logaddexp(0, logit) - label * logit).mean())

    low, high = np.log(TEMPERATURES)
    return float(
        np.exp(minimize_scalar(cross_entropy, bounds=(low, high), method="bounded", options={"xatol": 1e-6}).x)
    )


def apply_temperature(logits: ArrayLike, temperature: float) -> FloatArray:
    """Probabilities ``sigmoid(logit / temperature)``, [..., C]."""
    probabilities: FloatArray = expit(np.asarray(logits, dtype=np.float64) / temperature)
    return probabilities


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = 10) -> FloatArray:
    """Mean gap between stated probability and observed frequency over equal bins of [0, 1], by bin count, [C].

    Args:
        probabilities: in [0, 1], [S, C].
        labels: 1, 0 or -1, [S, C].
        bins: number of bins; a bin holds its lower edge, the last one also 1.

    Returns:
        One error per finding, NaN without known labels.

    Raises:
        ValueError: a probability lies outside [0, 1].
    """
    return weighted_calibration_error(probabilities, labels, np.ones((1, np.shape(labels)[0])), bins)[0]


def weighted_calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, weights: FloatArray, bins: int = 10
) -> FloatArray:
    """`expected_calibration_error` under every set of scan weights, [R, C].

    Args:
        probabilities: in [0, 1], [S, C].
        labels: 1, 0 or -1, [S, C].
        weights: not negative, [R, S].
        bins: as for `expected_calibration_error`.
    """
    scores, truth = _check_probabilities(probabilities, labels)
    result = np.full((len(weights), scores.shape[1]), np.nan)
    for finding in range(scores.shape[1]):
        known = truth[:, finding] >= 0
        score, label = known_pairs(scores, truth, finding)
        if not label.size:
            continue
        in_bin = np.minimum((score * bins).astype(np.int64), bins - 1)[:, None] == np.arange(bins)
        weight = weights[:, known]
        total = weight.sum(axis=1)
        gap = np.abs((weight * (score - label)) @ in_bin).sum(axis=1)
        np.divide(gap, total, out=result[:, finding], where=total > 0)
    return result


def reliability(probabilities: ArrayLike, labels: ArrayLike, bins: int = 10) -> dict[str, list[float] | list[int]]:
    """Stated probability against observed frequency of all findings together, for each bin that holds an answer.

    Args:
        probabilities: in [0, 1], [S, C].
        labels: 1, 0 or -1, [S, C].
        bins: as for `expected_calibration_error`.

    Returns:
        ``probability`` (mean of the bin), ``frequency`` and ``count``.
    """
    scores, truth = _check_probabilities(probabilities, labels)
    score, label = scores[truth >= 0], truth[truth >= 0]
    index = np.minimum((score * bins).astype(np.int64), bins - 1)
    count = np.bincount(index, minlength=bins)
    held = count > 0
    return {
        "probability": (np.bincount(index, weights=score, minlength=bins)[held] / count[held]).tolist(),
        "frequency": (np.bincount(index, weights=label, minlength=bins)[held] / count[held]).tolist(),
        "count": count[held].tolist(),
    }


def _check_probabilities(probabilities: ArrayLike, labels: ArrayLike) -> tuple[FloatArray, IntArray]:
    scores, truth = check_scores(probabilities, labels)
    if scores.size and (scores.min() < 0 or scores.max() > 1):
        raise ValueError(
            f"probabilities span {scores.min():.3g}..{scores.max():.3g}; values in 0..1 are expected, not logits"
        )
    return scores, truth


def _smoothed_targets(label: IntArray) -> FloatArray:
    positives = int(label.sum())
    negatives = label.size - positives
    return np.where(label == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))


def _shared_slope(scores: FloatArray, labels: IntArray) -> float:
    scans, findings = np.nonzero(labels >= 0)
    design = np.zeros((scans.size, 1 + scores.shape[1]))
    design[:, 0] = scores[scans, findings]
    design[np.arange(scans.size), 1 + findings] = 1
    target = labels[scans, findings]
    if target.min() == target.max():
        raise ValueError(
            "the calibration labels hold one class only; calibration needs scans with and without findings"
        )
    # The weak default ridge keeps the intercept of a finding that lacks one class finite.
    slope = float(LogisticRegression(C=100.0, fit_intercept=False, max_iter=1000).fit(design, target).coef_[0, 0])
    if slope <= 0:
        raise ValueError(
            f"logits do not rise with the labels (shared slope {slope:.3g}); check the order of findings and of prompt pairs"
        )
    return slope


def _fit_finding(score: FloatArray, target: FloatArray, shared: float, l2: float, own: bool) -> tuple[float, float]:
    """Penalised maximum likelihood in (log(scale / shared), shift); without `own` the scale stays the shared one."""
    prevalence = float(target.mean())
    start = np.array([0.0, np.log(prevalence / (1 - prevalence)) - shared * float(score.mean())])

    def objective(parameters: FloatArray) -> tuple[float, FloatArray]:
        scale = shared * np.exp(parameters[0])
        logit = scale * score + parameters[1]
        residual = expit(logit) - target
        value = (np.logaddexp(0, logit) - target * logit).sum() + l2 / 2 * parameters[0] ** 2
        return float(value), np.array([(residual * score).sum() * scale + l2 * parameters[0], residual.sum()])

    bounds = [(-5.0, 5.0) if own else (0.0, 0.0), (None, None)]
    fit = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-12, "gtol": 1e-8})
    return shared * float(np.exp(fit.x[0])), float(fit.x[1])
