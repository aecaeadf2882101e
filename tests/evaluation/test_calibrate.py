"""Calibration, thresholds and the weight of pathology queries, fitted on made-up scores of one split."""

from typing import Any

import numpy as np
import pytest
import torch

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.evaluation.calibrate import calibrate, fit_observation_weight
from bundle.ctfindings.evaluation.evaluated_model import SplitScores
from bundle.ctfindings.findings import FINDING_NAMES, TEMPLATES
from bundle.ctfindings.metrics.prompt_perturbations import PERTURBATIONS
from bundle.ctfindings.networks.classifier import NO_THRESHOLD

C, T = len(FINDING_NAMES), len(TEMPLATES)


def made_up_scores(**changes: Any) -> SplitScores:
    studies = 4
    labels = np.tile([[1], [1], [0], [0]], (1, C))
    values: dict[str, Any] = {
        "ids": [f"s{i}" for i in range(studies)],
        "patients": [f"p{i}" for i in range(studies)],
        "labels": labels,
        "logits": np.tile([[2.0], [1.0], [-1.0], [-2.0]], (1, C)),
        "template_logits": np.zeros((studies, T, C)),
        "wording_logits": np.zeros((studies, len(PERTURBATIONS), C)),
        "anatomy": np.zeros((studies, len(ANATOMY_NAMES), 4)),
        "anatomy_valid": np.ones((studies, len(ANATOMY_NAMES)), dtype=bool),
        "domain_features": np.zeros((studies, len(ANATOMY_NAMES), 2)),
        "peaks_mm": np.zeros((studies, C, 3)),
        "random_mm": np.zeros((studies, C, 4, 3)),
        "anatomy_dice": np.zeros((studies, len(ANATOMY_NAMES))),
        "depth": [torch.zeros(1, 4)] * studies,
        "depth_mm": [torch.zeros(1)] * studies,
    }
    return SplitScores(**{**values, **changes})


def test_pathology_queries_get_the_least_weight_with_the_best_macro_auc_of_the_calibration_split() -> None:
    # -3 + w exceeds 3 - w from w = 5 of the weights that are tried.
    logits, observed = np.array([0.0, -3.0, 3.0, 0.0]), np.array([1.0, 1.0, -1.0, -1.0])
    scores = made_up_scores(
        logits=np.tile(logits[:, None], (1, C)),
        observed=np.tile(observed[:, None, None], (1, 1 + T, C)),
        observed_wordings=np.tile(observed[:, None, None], (1, len(PERTURBATIONS), C)),
    )
    weight = fit_observation_weight(scores)
    assert weight == 5
    added = scores.with_observations(weight)
    np.testing.assert_allclose(added.logits[:, 0], [5, 2, -2, -5])
    np.testing.assert_allclose(added.template_logits[:, 2, 0], 5 * observed)
    np.testing.assert_allclose(added.wording_logits[:, 1, 0], 5 * observed)
    assert fit_observation_weight(made_up_scores()) == 0, "a model without queries"
    assert (
        fit_observation_weight(made_up_scores(observed=scores.observed, observed_wordings=scores.observed_wordings))
        == 0
    ), "no gain"


def test_thresholds_are_cut_on_calibrated_probabilities() -> None:
    calibration = calibrate(made_up_scores(), "validation", "youden")
    # Youden's largest threshold without an error is the lowest positive.
    np.testing.assert_allclose(calibration.thresholds, 1 / (1 + np.exp(-(calibration.scale * 1.0 + calibration.shift))))


def test_calibration_on_the_test_split_is_refused() -> None:
    with pytest.raises(ValueError, match="'test'"):
        calibrate(made_up_scores(), "test", "f1")


def test_a_finding_without_both_classes_has_no_threshold_and_is_named_once_and_not_for_each_template() -> None:
    labels = made_up_scores().labels.copy()
    labels[:, 0] = 0
    with pytest.warns(UserWarning) as caught:
        calibration = calibrate(made_up_scores(labels=labels), "validation", "f1")
    assert calibration.thresholds[0] == NO_THRESHOLD and (calibration.thresholds[1:] < 1).all()
    told = [str(warning.message) for warning in caught if FINDING_NAMES[0] in str(warning.message)]
    (line,) = told
    assert line.startswith(f"no threshold can be fitted for findings without both classes: {FINDING_NAMES[0]} (4 scans")
