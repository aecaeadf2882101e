import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.losses.text_separation import TextSeparationLoss


def by_hand(caption: Tensor, valid: Tensor, margin: float) -> float:
    """The formula, pair by pair."""
    text, pairs = caption.numpy(), [tuple(pair) for pair in valid.nonzero().tolist()]
    rows = []
    for a in pairs:
        repulsion = [math.exp((text[a] @ text[b] - margin) / 0.1) for b in pairs if b[1] != a[1]]
        rows.append(math.log(1 + sum(repulsion) / len(repulsion)))
    return float(np.mean(rows))


@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_loss_is_the_formula_written_out(make_batch, margin):
    batch = make_batch()
    loss = TextSeparationLoss(margin=margin)(batch["caption"], batch["caption_valid"])
    assert loss.item() == pytest.approx(by_hand(batch["caption"], batch["caption_valid"], margin), abs=1e-10)


@pytest.mark.parametrize(
    ("loss", "excluded"),
    [(TextSeparationLoss(), ["thorax"]), (TextSeparationLoss(excluded=["lung", "aorta"]), ["lung", "aorta"])],
    ids=["usual", "given"],
)
def test_an_excluded_anatomy_neither_repels_nor_is_repelled(make_batch, loss, excluded):
    batch = make_batch(scans=4, anatomies=len(ANATOMY_NAMES))
    left = torch.tensor([name not in excluded for name in ANATOMY_NAMES])
    expected = by_hand(batch["caption"], batch["caption_valid"] & left, 0.0)
    assert loss(batch["caption"], batch["caption_valid"]).item() == pytest.approx(expected, abs=1e-10)


def test_collapsed_texts_are_pushed_apart_by_a_gradient_step():
    torch.manual_seed(0)
    noise = 1e-3 * torch.randn(4, 3, 8, dtype=torch.float64)
    raw = (torch.ones(4, 3, 8, dtype=torch.float64) + noise).requires_grad_()
    valid = torch.ones(4, 3, dtype=torch.bool)
    TextSeparationLoss()(F.normalize(raw, dim=-1), valid).backward()
    assert raw.grad is not None
    assert raw.grad.abs().max() > 0

    def similarity_across(rows: torch.Tensor) -> float:
        text = F.normalize(rows, dim=-1).flatten(0, 1)
        organ = torch.arange(3).repeat(4)
        return (text @ text.T)[organ[:, None] != organ].mean().item()

    # A step of the size of the noise: the gradient of collapsed texts is nearly radial, and its tangent part is what
    # separates.
    step = raw.detach() - raw.grad / raw.grad.abs().max() * 1e-3
    assert similarity_across(step) < similarity_across(raw.detach())


def test_a_single_anatomy_is_exactly_zero(make_batch):
    batch = make_batch()
    batch["caption_valid"][:, 1:] = False
    loss = TextSeparationLoss()(batch["caption"].requires_grad_(), batch["caption_valid"])
    assert loss.item() == 0
    assert not loss.requires_grad


def test_texts_of_one_anatomy_do_not_repel_each_other():
    """The other anatomy is orthogonal to both placements of the two lung texts, so the loss cannot tell the placements
    apart.
    """
    heart = torch.tensor([0.0, 0.0, 1.0])
    near = torch.stack([torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 0.0, 0.0])])
    far = torch.stack([torch.tensor([1.0, 0.0, 0.0]), torch.tensor([-1.0, 0.0, 0.0])])
    valid = torch.ones(2, 2, dtype=torch.bool)
    values = [
        TextSeparationLoss()(torch.stack([lung, heart.expand(2, 3)], dim=1), valid).item() for lung in (near, far)
    ]
    assert values == pytest.approx([math.log(2), math.log(2)])


def test_order_of_scans_and_of_anatomies_does_not_matter(make_batch):
    batch, loss = make_batch(), TextSeparationLoss()
    expected = loss(batch["caption"], batch["caption_valid"]).item()
    scans, organs = torch.tensor([3, 1, 5, 0, 4, 2]), torch.tensor([2, 0, 1])
    assert loss(batch["caption"][scans], batch["caption_valid"][scans]).item() == pytest.approx(expected)
    assert loss(batch["caption"][:, organs], batch["caption_valid"][:, organs]).item() == pytest.approx(expected)


@pytest.mark.parametrize("content", [0.0, float("nan")])
def test_invalid_rows_change_nothing_and_get_no_gradient(make_batch, content):
    batch = make_batch()
    whole = TextSeparationLoss()(batch["caption"], batch["caption_valid"])
    invalid = ~batch["caption_valid"]
    caption = batch["caption"].masked_fill(invalid[..., None], content).requires_grad_()
    loss = TextSeparationLoss()(caption, batch["caption_valid"])
    loss.backward()
    assert caption.grad is not None
    assert loss.item() == whole.item()
    assert caption.grad.isfinite().all()
    assert not caption.grad[invalid].any()


def test_no_caption_gives_zero():
    assert TextSeparationLoss()(torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool)).item() == 0


def test_temperature_must_be_positive():
    with pytest.raises(ValueError, match=r"temperature: .* got 0"):
        TextSeparationLoss(temperature=0)
