"""The correlation objective by hand, over the scans that have pairs."""

import pytest
import torch

from bundle.ctfindings.losses.correlation_exploration import CorrelationExplorationLoss

NO_HINGE = torch.zeros(2)


def test_pairs_count_by_their_weight_and_scans_alike() -> None:
    found, target, weight = torch.zeros(2, 2, 2), torch.zeros(2, 2, 2), torch.zeros(2, 2, 2)
    # Smooth L1 with beta 0.1: 0.05 costs 0.0125, and 0.5 costs 0.45.
    target[0, 0, 1], weight[0, 0, 1] = 0.05, 2.0
    target[0, 1, 0], weight[0, 1, 0] = 0.5, 1.0
    weight[1, 0, 1] = 5.0
    expected = ((2 * 0.0125 + 0.45) / 3 + 0) / 2
    assert CorrelationExplorationLoss()(found, target, weight, NO_HINGE).item() == pytest.approx(expected)
    loss = CorrelationExplorationLoss(variance_weight=0.5)
    assert loss(found, target, weight, torch.tensor([0.2, 0.6])).item() == pytest.approx(expected + 0.2)


def test_scans_without_a_pair_do_not_count_and_alone_give_zero_without_gradient() -> None:
    found, target = torch.zeros(2, 2, 2, requires_grad=True), torch.full((2, 2, 2), 0.5)
    weight = torch.zeros(2, 2, 2)
    nothing = CorrelationExplorationLoss()(found, target, weight, NO_HINGE)
    assert nothing.item() == 0 and not nothing.requires_grad
    weight[1] = 1
    loss = CorrelationExplorationLoss()
    assert loss(found, target, weight, torch.tensor([9.0, 0.0])).item() == pytest.approx(0.45)
    assert loss.means(found, target, weight, NO_HINGE)[0, 1] == 1


def test_beta_has_to_be_positive_and_the_weight_not_negative() -> None:
    with pytest.raises(ValueError, match="beta"):
        CorrelationExplorationLoss(beta=0)
    with pytest.raises(ValueError, match="variance_weight"):
        CorrelationExplorationLoss(variance_weight=-1)
