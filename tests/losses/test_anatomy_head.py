import math

import pytest
import torch

from bundle.ctfindings.losses.anatomy_head import AnatomyHeadLoss


def test_undecided_head_costs_ln2_plus_one_minus_dice():
    """p = 1/2 on 4 tokens of which 1 belongs: Dice = 2 * 0.5 / (2 + 1)."""
    membership = torch.tensor([1.0, 0.0, 0.0, 0.0]).reshape(1, 4, 1)
    loss = AnatomyHeadLoss()(torch.zeros(1, 4, 1), membership, torch.ones(1, 1, dtype=torch.bool))
    assert loss.item() == pytest.approx(math.log(2) + 1 - 1 / 3, abs=1e-4)


def test_overlapping_anatomies_can_all_be_right():
    membership = torch.tensor([[[1, 1], [0, 1], [0, 0]]], dtype=torch.bool)
    loss = AnatomyHeadLoss()(20.0 * (2 * membership.float() - 1), membership, torch.ones(1, 2, dtype=torch.bool))
    assert loss.item() == pytest.approx(0, abs=1e-4)


def test_anatomies_unknown_in_a_scan_change_nothing_and_get_no_gradient():
    torch.manual_seed(0)
    membership = (torch.rand(2, 5, 3) < 0.5).float()
    known = torch.tensor([[True, False, True], [False, False, False]])
    logits = torch.randn(2, 5, 3)
    poisoned = logits.masked_fill(~known[:, None], float("nan")).requires_grad_()
    membership_poisoned = membership.masked_fill(~known[:, None], float("nan"))
    loss = AnatomyHeadLoss()(poisoned, membership_poisoned, known)
    loss.backward()
    assert poisoned.grad is not None
    assert poisoned.grad.isfinite().all()
    assert not poisoned.grad.transpose(1, 2)[~known].any()

    alone = [
        AnatomyHeadLoss()(logits[:1, :, [k]], membership[:1, :, [k]], torch.ones(1, 1, dtype=torch.bool))
        for k in (0, 2)
    ]
    assert loss.item() == pytest.approx(sum(value.item() for value in alone) / 2, abs=1e-6)


def test_loss_is_lowest_at_the_true_share_of_a_token():
    share = torch.tensor([0.2, 0.7, 0.5]).reshape(1, 3, 1)
    known = torch.ones(1, 1, dtype=torch.bool)
    best = AnatomyHeadLoss()(torch.logit(share), share, known)
    assert all(AnatomyHeadLoss()(torch.logit(share) + shift, share, known) > best for shift in (-0.5, -0.05, 0.05, 0.5))


def test_anatomy_the_scan_does_not_contain_has_a_finite_gradient_towards_no():
    logits = torch.zeros(1, 4, 1, requires_grad=True)
    AnatomyHeadLoss()(logits, torch.zeros(1, 4, 1), torch.ones(1, 1, dtype=torch.bool)).backward()
    assert logits.grad is not None
    assert (logits.grad > 0).all()
    assert logits.grad.isfinite().all()


def test_nothing_known_gives_zero_without_gradient():
    logits = torch.randn(2, 5, 3, requires_grad=True)
    loss = AnatomyHeadLoss()(logits, torch.zeros(2, 5, 3), torch.zeros(2, 3, dtype=torch.bool))
    assert loss.item() == 0
    assert not loss.requires_grad
