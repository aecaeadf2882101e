"""Temperature, Platt scaling and thresholds from one split. Shapes: S studies, T templates, C findings."""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle.ctfindings.evaluation.evaluated_model import SplitScores
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.metrics.classification import finding_auc, macro_average
from bundle.ctfindings.metrics.platt_scaling import apply_platt, fit_platt, fit_temperature
from bundle.ctfindings.metrics.published_protocols import ZeroShotScores
from bundle.ctfindings.metrics.thresholds import ThresholdRule, choose_thresholds
from bundle.ctfindings.networks.classifier import NO_THRESHOLD

OBSERVATION_WEIGHTS = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
"""Weights that are tried for the pathology queries, whose answer is a difference of cosines."""


@dataclass(frozen=True)
class Calibration:
    """What was fitted on the calibration studies."""

    temperature: float  # Divides the logits of all findings
    scale: NDArray[np.float64]  # Scale of Platt scaling, [C]
    shift: NDArray[np.float64]  # Shift of Platt scaling, [C]
    thresholds: NDArray[np.float64]  # Thresholds on calibrated probabilities, [C]; NO_THRESHOLD if none can be fitted
    template_thresholds: NDArray[np.float64]  # Thresholds on the logits of each template, [T, C]
    # Why Platt scaling failed, in which case probabilities are the sigmoid of the logits; None otherwise
    problem: str | None = None

    def probabilities(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probabilities of logits ``[..., C]``."""
        return apply_platt(logits, self.scale, self.shift)


def calibrate(scores: ZeroShotScores, split: str, rule: ThresholdRule) -> Calibration:
    """Fits temperature, Platt scaling and thresholds on the studies of one split.

    An untrained network cannot be calibrated but can be scored; ``problem`` then says why. ValueError if the split is
    the test split, or the rule is unknown.
    """
    if split.strip().lower() in ("test", "testing"):
        raise ValueError(f"calibration_split: thresholds may not be chosen on the split {split!r}; use 'validation'")
    scale, shift, problem = fit_scaling(scores.logits, scores.labels)
    with warnings.catch_warnings():
        # The mean over the templates has the same labels and gives the same warning.
        warnings.simplefilter("ignore")
        of_templates = [
            choose_thresholds(logits, scores.labels, rule, FINDING_NAMES, fallback=0.0)
            for logits in scores.template_logits.transpose(1, 0, 2)
        ]
    calibrated = apply_platt(scores.logits, scale, shift)
    return Calibration(
        temperature=fit_temperature(scores.logits, scores.labels),
        scale=scale,
        shift=shift,
        thresholds=choose_thresholds(calibrated, scores.labels, rule, FINDING_NAMES, NO_THRESHOLD),
        template_thresholds=np.stack(of_templates),
        problem=problem,
    )


def fit_scaling(
    logits: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], str | None]:
    """Platt scaling of logits ``[S, C]``: scale and shift ``[C]``; where it fails, 1 and 0 and the reason."""
    try:
        return *fit_platt(logits, labels, FINDING_NAMES), None
    except ValueError as error:
        return np.ones(labels.shape[1]), np.zeros(labels.shape[1]), f"not calibrated: {error}"


def fit_observation_weight(scores: SplitScores) -> float:
    """The weight of the pathology queries with the highest macro AUC on the calibration studies, the least of equals.

    0 for a model without queries, and where they do not help.
    """
    best, chosen = -np.inf, 0.0
    for weight in OBSERVATION_WEIGHTS if scores.observed is not None and scores.observed.any() else ():
        reached = macro_average(finding_auc(scores.with_observations(weight).logits, scores.labels))
        if reached > best:
            best, chosen = reached, weight
    return chosen
