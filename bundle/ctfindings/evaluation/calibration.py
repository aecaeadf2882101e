"""Calibration of a model on one split: temperature, Platt scaling and thresholds, never on a study that is scored.

Shapes: S studies, T templates, C findings.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle.ctfindings.evaluation.scoring import SplitScores
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.metrics.calibration import apply_platt, fit_platt, fit_temperature
from bundle.ctfindings.metrics.thresholds import ThresholdRule, check_disjoint, choose_thresholds


@dataclass(frozen=True)
class Calibration:
    """What was fitted on the calibration studies, and nothing else.

    Attributes:
        temperature: one for all findings, dividing the logits.
        scale: Platt's, ``[C]``.
        shift: Platt's, ``[C]``.
        thresholds: on Platt-scaled probabilities, ``[C]``.
        template_thresholds: on the logits of each template, ``[T, C]``.
        problem: why nothing could be fitted, so that the probabilities are the sigmoid of the logits; None when all is
            well.
    """

    temperature: float
    scale: NDArray[np.float64]
    shift: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    template_thresholds: NDArray[np.float64]
    problem: str | None = None

    def probabilities(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Logits ``[..., C]`` to Platt-scaled probabilities."""
        return apply_platt(logits, self.scale, self.shift)


def calibrate(
    scores: SplitScores, split: str = "validation", scored_ids: Sequence[str] = (), *, rule: ThresholdRule
) -> Calibration:
    """Temperature, Platt scaling and thresholds from the studies of one split.

    A network that has learned nothing cannot be calibrated but can be scored; the calibration then says so in
    ``problem``.

    Args:
        scores: of the calibration studies.
        split: its name; the test split is refused.
        scored_ids: studies on which the thresholds will be scored.
        rule: of the thresholds, see ``choose_thresholds``.

    Raises:
        ValueError: a study is in both sets, the split is the test split, or the rule is unknown.
    """
    check_disjoint(scores.ids, scored_ids)
    problem = None
    try:
        scale, shift = fit_platt(scores.logits, scores.labels, names=FINDING_NAMES)
    except ValueError as error:
        problem = f"not calibrated: {error}"
        scale, shift = np.ones(scores.labels.shape[1]), np.zeros(scores.labels.shape[1])

    def thresholds(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return choose_thresholds(
            values,
            scores.labels,
            split=split,
            calibration_ids=scores.ids,
            scored_ids=scored_ids,
            rule=rule,
            names=FINDING_NAMES,
        )

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # The labels are those of all templates together, whose thresholds warn of the same findings.
        of_templates = np.stack(
            [thresholds(scores.template_logits[:, index]) for index in range(scores.template_logits.shape[1])]
        )
    return Calibration(
        temperature=fit_temperature(scores.logits, scores.labels),
        scale=scale,
        shift=shift,
        thresholds=thresholds(apply_platt(scores.logits, scale, shift)),
        template_thresholds=of_templates,
        problem=problem,
    )
