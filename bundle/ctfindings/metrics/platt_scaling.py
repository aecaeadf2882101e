"""Calibration of logits: Platt scaling by finding, one temperature for all findings. Shapes: S scans, C findings."""

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from bundle.ctfindings.metrics.classification import FloatArray, IntArray, check_scores, known_pairs

TEMPERATURES = (0.01, 1000.0)  # Search range of the temperature


def fit_platt(
    logits: ArrayLike, labels: ArrayLike, names: Sequence[str], l2: float = 1.0
) -> tuple[FloatArray, FloatArray]:
    """Scale and shift, [C] each, for probabilities ``sigmoid(scale * logit + shift)``; scale > 0 keeps the AUC.

    First, a slope shared by all findings is fitted (logistic regression with one intercept per finding). Then each
    finding gets its own slope with the penalty ``l2 / 2 * log(scale / shared)^2``, so a finding with few positives
    stays near the shared slope. A finding whose positives do not score above its negatives, or that lacks one class,
    gets the shared slope; without any known label its shift is 0, with a warning. The targets are Platt's smoothed
    ones, (n+ + 1)/(n+ + 2) and 1/(n- + 2), so perfectly separated scans give a finite slope. Logits are [S, C].

    Platt, "Probabilistic Outputs for Support Vector Machines", Advances in Large Margin Classifiers, 1999. ValueError
    if the logits do not rise with the labels over all findings together.
    """
    scores, truth = check_scores(logits, labels)
    known = truth >= 0
    # One unit for all findings: the fit does not depend on a temperature that the logits carry.
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
            unlabelled.append(names[finding])
            continue
        # The maximum-likelihood slope of one feature has the sign of the difference of the class means.
        own = 0 < label.sum() < label.size and score[label == 1].mean() > score[label == 0].mean()
        scale[finding], shift[finding] = _fit_finding(score, _smoothed_targets(label), shared, l2, own)
    if unlabelled:
        warnings.warn(f"no calibration scan has a label, shift 0 is used: {', '.join(unlabelled)}", stacklevel=2)
    return scale / unit, shift


def apply_platt(logits: ArrayLike, scale: ArrayLike, shift: ArrayLike) -> FloatArray:
    """Calibrated probabilities ``sigmoid(scale * logit + shift)``, [..., C]."""
    return expit(np.asarray(logits, dtype=np.float64) * np.asarray(scale) + np.asarray(shift))


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature that minimises the cross-entropy of ``sigmoid(logit / temperature)`` over logits [S, C].

    A temperature corrects overconfidence, not a wrong offset: if most logits lie on the wrong side of zero, the best
    temperature is unbounded and the upper end of `TEMPERATURES` is returned. Platt scaling corrects both. Guo et al.,
    "On Calibration of Modern Neural Networks", ICML 2017, https://arxiv.org/abs/1706.04599. ValueError if no label is
    known.
    """
    scores, truth = check_scores(logits, labels)
    score, label = scores[truth >= 0], truth[truth >= 0]
    if not label.size:
        raise ValueError("no calibration label is known; a temperature needs scans with labels")

    def cross_entropy(log_temperature: float) -> float:
        logit = score / np.exp(log_temperature)
        return float((np.logaddexp(0, logit) - label * logit).mean())

    low, high = np.log(TEMPERATURES)
    found = minimize_scalar(cross_entropy, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def apply_temperature(logits: ArrayLike, temperature: float) -> FloatArray:
    """Probabilities ``sigmoid(logit / temperature)``, [..., C]."""
    return expit(np.asarray(logits, dtype=np.float64) / temperature)


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
    # The weak ridge keeps the intercept of a finding that lacks one class finite.
    slope = float(LogisticRegression(C=100.0, fit_intercept=False, max_iter=1000).fit(design, target).coef_[0, 0])
    if slope <= 0:
        raise ValueError(
            f"logits do not rise with the labels (shared slope {slope:.3g}); check the order of findings and prompts"
        )
    return slope


def _fit_finding(score: FloatArray, target: FloatArray, shared: float, l2: float, own: bool) -> tuple[float, float]:
    """Penalised maximum likelihood in (log(scale / shared), shift); without `own` the scale is the shared one."""
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
