"""The domain that is fitted on training scans."""

import logging
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from bundle.ctfindings.evaluation.domain import domain_of_studies, domain_scores, fit_domain
from bundle.ctfindings.evaluation.evaluated_model import EvaluatedModel


def scans(count: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """Correlated features ``[S, 2, 30]``; the second anatomy is missing in every third scan."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(0).normal(size=(30, 30))
    features = rng.normal(size=(count, 2, 30)) @ mix + shift
    features[::3, 1] = np.nan
    return features


def test_scans_of_another_distribution_are_outside_and_held_out_ones_inside() -> None:
    domain = fit_domain(scans(200, 1), scans(100, 2), outside_share=0.01)
    assert (domain_scores(domain, scans(200, 3)) > float(domain.threshold)).mean() <= 0.03
    assert (domain_scores(domain, scans(50, 4, shift=15.0)) > float(domain.threshold)).mean() >= 0.95
    # A typical scan has a distance of 1.
    assert np.median(domain_scores(domain, scans(200, 3))) == pytest.approx(1, abs=0.1)


def test_of_a_hundred_held_out_scans_at_most_the_given_share_is_outside() -> None:
    held_out = scans(99, 2)
    domain = fit_domain(scans(200, 1), held_out, outside_share=0.1)
    # The conformal quantile: rank 90 of 99.
    assert float(domain.threshold) == pytest.approx(np.sort(domain_scores(domain, held_out))[89], rel=1e-4)


def test_ten_training_scans_and_one_that_was_held_out_are_enough() -> None:
    domain = fit_domain(scans(10, 1), scans(1, 2), outside_share=0.01)
    assert domain.fitted and int(domain.scans) == 10
    assert (domain_scores(domain, scans(100, 3)) > float(domain.threshold)).mean() <= 0.25
    assert (domain_scores(domain, scans(50, 4, shift=40.0)) > float(domain.threshold)).all()


def test_an_anatomy_that_no_training_scan_shows_says_nothing() -> None:
    training, held_out = scans(50, 1), scans(30, 2)
    training[:, 1] = np.nan
    domain = fit_domain(training, held_out, outside_share=0.01)
    found = domain.score(torch.from_numpy(scans(2, 3)[1]))
    assert found.anatomy[1].isnan() and found.anatomy[0] == found.score
    assert domain.anatomy_threshold.isnan().tolist() == [False, True]


def test_too_few_training_scans_give_no_domain_and_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert not fit_domain(scans(3, 1), scans(30, 2), outside_share=0.01).fitted
    assert "3 training scans are too few for a domain; at least 5 are needed" in caplog.text


@pytest.mark.parametrize("count", [0, 4])
def test_too_few_training_scans_are_not_scored(count: int, caplog: pytest.LogCaptureFixture) -> None:
    model = Mock(spec=EvaluatedModel)
    assert not domain_of_studies(model, [{}] * count, scans(30, 2), outside_share=0.01).fitted
    assert not model.score.called and f"{count} training scans are too few for a domain" in caplog.text


def test_scans_of_one_patient_are_left_out_together() -> None:
    random = np.random.default_rng(0)
    patients = random.normal(size=(15, 1, 1, 4)).repeat(4, axis=1)
    scans = (patients + 0.05 * random.normal(size=(15, 4, 1, 4))).reshape(60, 1, 4)
    new = np.random.default_rng(1).normal(size=(500, 1, 4))
    for groups, low, high in (([str(index // 4) for index in range(60)], 0, 0.06), (None, 0.15, 1)):
        domain = fit_domain(scans, scans[:0], 0.01, groups)
        assert low <= (domain_scores(domain, new) > float(domain.threshold)).mean() <= high
