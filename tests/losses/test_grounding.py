"""GroundingLoss: tokens inside a finding's mask are raised, all others lowered, and scans without knowledge are left
alone.
"""

import math

import torch

from bundle.ctfindings.losses.grounding import GroundingLoss

ALL = torch.ones(1, 1, 1, dtype=torch.bool)
"""An anatomy that has every token."""


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def test_inside_and_outside_weigh_alike_whatever_their_size() -> None:
    z = torch.tensor([[[2.0], [-1.0], [-1.0], [0.5]]])
    tokens = torch.tensor([[[True], [False], [False], [False]]])
    expected = softplus(-2.0) + (2 * softplus(-1.0) + softplus(0.5)) / 3
    assert math.isclose(GroundingLoss()(z, tokens, ALL, torch.tensor([[1]])).item(), expected, rel_tol=1e-6)


def test_false_alarms_count_by_their_weight_and_misses_once() -> None:
    z = torch.tensor([[[2.0], [-1.0]]])
    loss = GroundingLoss(false_alarm_weight=10)(z, torch.tensor([[[True], [False]]]), ALL, torch.tensor([[1]]))
    assert math.isclose(loss.item(), softplus(-2.0) + 10 * softplus(-1.0), rel_tol=1e-6)


def test_only_the_anatomy_counts_as_outside_but_the_mask_counts_everywhere() -> None:
    z = torch.tensor([[[2.0], [-1.0], [3.0], [0.5]]])
    tokens = torch.tensor([[[True], [False], [False], [False]]])
    anatomy = torch.tensor([[[False], [True], [False], [True]]])
    expected = softplus(-2.0) + (softplus(-1.0) + softplus(0.5)) / 2
    assert math.isclose(GroundingLoss()(z, tokens, anatomy, torch.tensor([[1]])).item(), expected, rel_tol=1e-6)


def test_a_rare_finding_weighs_as_much_as_its_absence() -> None:
    z = torch.zeros(4, 2, 1)
    tokens = torch.tensor([[[True], [False]]] + [[[False], [False]]] * 3)
    loss = GroundingLoss()(z, tokens, ALL, torch.tensor([[1], [0], [0], [0]]))
    assert math.isclose(loss.item(), 2 * softplus(0.0), rel_tol=1e-6)


def test_a_scan_without_the_finding_lowers_every_token() -> None:
    z = torch.tensor([[[2.0], [-1.0]]])
    loss = GroundingLoss()(z, torch.zeros(1, 2, 1, dtype=torch.bool), ALL, torch.tensor([[0]]))
    assert math.isclose(loss.item(), (softplus(2.0) + softplus(-1.0)) / 2, rel_tol=1e-6)


def test_present_without_a_mask_and_unknown_labels_get_no_gradient() -> None:
    z = torch.randn(3, 5, 1, requires_grad=True)
    tokens = torch.zeros(3, 5, 1, dtype=torch.bool)
    GroundingLoss()(z, tokens, ALL, torch.tensor([[1], [-1], [0]])).backward()
    assert z.grad is not None
    assert z.grad[:2].abs().sum() == 0 and z.grad[2].abs().sum() > 0


def test_nothing_known_gives_zero_without_gradient() -> None:
    z = torch.randn(1, 5, 2, requires_grad=True)
    loss = GroundingLoss()(z, torch.zeros(1, 5, 2, dtype=torch.bool), ALL, torch.tensor([[-1, 1]]))
    assert loss.item() == 0 and not loss.requires_grad


def test_large_logits_stay_finite() -> None:
    z = torch.tensor([[[200.0], [-200.0]]], requires_grad=True)
    loss = GroundingLoss()(z, torch.tensor([[[True], [False]]]), ALL, torch.tensor([[1]]))
    loss.backward()
    assert loss.item() < 1e-6 and torch.isfinite(z.grad).all()  # type: ignore[arg-type]
