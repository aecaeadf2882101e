import math

import numpy as np
import pytest
import torch
from torch import Tensor

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.losses.cross_anatomy import CrossAnatomyLoss

TEMPERATURE = torch.tensor(0.2, dtype=torch.float64)


def by_hand(batch: dict[str, Tensor], temperature: float) -> float:
    """methods.md 2.4, G1, pair by pair."""
    array = {name: value.numpy() for name, value in batch.items()}
    scans, anatomies = array["anatomy_valid"].shape
    pairs = [
        (i, k)
        for i in range(scans)
        for k in range(anatomies)
        if array["anatomy_valid"][i, k] and array["caption_valid"][i, k]
    ]
    both = 0.0
    for image, text in (("anatomy", "caption"), ("caption", "anatomy")):
        rows = []
        for a in pairs:
            score = {b: array[image][a] @ array[text][b] / temperature for b in pairs}
            positives = [
                b
                for b in pairs
                if a == b
                or (
                    a[1] == b[1]
                    and (
                        (array["caption_normal"][a] and array["caption_normal"][b])
                        or array["caption_id"][a] == array["caption_id"][b]
                    )
                )
            ]
            terms = []
            for p in positives:
                rivals = [p] + [b for b in pairs if b[1] != a[1]]
                terms.append(-math.log(math.exp(score[p]) / sum(math.exp(score[b]) for b in rivals)))
            rows.append(np.mean(terms))
        both += np.mean(rows)
    return float(both) / 2


def consistent(batch: dict[str, Tensor], order: Tensor, dimension: int) -> dict[str, Tensor]:
    return {name: value.index_select(dimension, order) for name, value in batch.items()}


def test_loss_is_the_formula_written_out(make_batch):
    batch = make_batch()
    loss = CrossAnatomyLoss()(**batch, temperature_global=TEMPERATURE)
    assert loss.item() == pytest.approx(by_hand(batch, 0.2), abs=1e-8)


@pytest.mark.parametrize(
    ("loss", "excluded"),
    [(CrossAnatomyLoss(), ["thorax"]), (CrossAnatomyLoss(["lung", "aorta"]), ["lung", "aorta"])],
    ids=["usual", "given"],
)
def test_an_excluded_anatomy_is_neither_a_row_nor_a_negative(make_batch, loss, excluded):
    batch = make_batch(scans=4, anatomies=len(ANATOMY_NAMES))
    left = torch.tensor([name not in excluded for name in ANATOMY_NAMES])
    expected = by_hand({**batch, "anatomy_valid": batch["anatomy_valid"] & left}, 0.2)
    assert loss(**batch, temperature_global=TEMPERATURE).item() == pytest.approx(expected, abs=1e-8)


def test_swapping_the_anatomies_consistently_changes_nothing(make_batch):
    batch, loss = make_batch(), CrossAnatomyLoss()
    swapped = consistent(batch, torch.tensor([2, 0, 1]), 1)
    assert loss(**swapped, temperature_global=TEMPERATURE).item() == pytest.approx(
        loss(**batch, temperature_global=TEMPERATURE).item()
    )


def test_permuting_the_scans_changes_nothing(make_batch):
    batch, loss = make_batch(), CrossAnatomyLoss()
    permuted = consistent(batch, torch.tensor([3, 1, 5, 0, 4, 2]), 0)
    assert loss(**permuted, temperature_global=TEMPERATURE).item() == pytest.approx(
        loss(**batch, temperature_global=TEMPERATURE).item()
    )


def test_loss_of_a_single_anatomy_is_exactly_zero(make_batch):
    batch = make_batch()
    batch["anatomy_valid"][:, 1:] = False
    batch["anatomy"].requires_grad_()
    loss = CrossAnatomyLoss()(**batch, temperature_global=TEMPERATURE)
    assert loss.item() == 0
    assert not loss.requires_grad


def test_loss_ignores_other_scans_of_the_same_anatomy():
    """Two scans whose captions are swapped within each anatomy: the local loss is wrong, the cross-anatomy loss does
    not mind.
    """
    right = torch.eye(4, dtype=torch.float64).reshape(2, 2, 4)
    batch = {
        "anatomy_valid": torch.ones(2, 2, dtype=torch.bool),
        "caption_valid": torch.ones(2, 2, dtype=torch.bool),
        "caption_normal": torch.ones(2, 2, dtype=torch.bool),
        "caption_id": torch.arange(4).reshape(2, 2),
    }
    loss = CrossAnatomyLoss()
    kept = loss(anatomy=right, caption=right, **batch, temperature_global=TEMPERATURE)
    swapped = loss(anatomy=right, caption=right.flip(0), **batch, temperature_global=TEMPERATURE)
    assert swapped.item() == pytest.approx(kept.item(), abs=1e-12)


def test_no_valid_row_gives_zero_without_gradient(make_batch):
    batch = make_batch()
    batch["caption_valid"][:] = False
    batch["anatomy"].requires_grad_()
    loss = CrossAnatomyLoss()(**batch, temperature_global=TEMPERATURE)
    assert loss.item() == 0
    assert not loss.requires_grad


@pytest.mark.parametrize("content", [0.0, float("nan")])
def test_invalid_rows_change_nothing_and_get_no_gradient(make_batch, content):
    batch, loss = make_batch(seed=1), CrossAnatomyLoss()
    whole = loss(**batch, temperature_global=TEMPERATURE)
    invalid = ~(batch["anatomy_valid"] & batch["caption_valid"])
    assert invalid.any()
    for name in ("anatomy", "caption"):
        batch[name] = batch[name].masked_fill(invalid[..., None], content).requires_grad_()
    value = loss(**batch, temperature_global=TEMPERATURE)
    value.backward()
    assert value.item() == whole.item()
    for name in ("anatomy", "caption"):
        assert batch[name].grad.isfinite().all()
        assert not batch[name].grad[invalid].any()


def test_gradient_is_that_of_finite_differences_also_for_the_temperature(make_batch):
    batch = make_batch(scans=3)
    anatomy, caption = batch.pop("anatomy").requires_grad_(), batch.pop("caption").requires_grad_()
    temperature = TEMPERATURE.clone().requires_grad_()

    def loss(anatomy: Tensor, caption: Tensor, temperature: Tensor) -> Tensor:
        return CrossAnatomyLoss()(anatomy=anatomy, caption=caption, **batch, temperature_global=temperature)

    assert torch.autograd.gradcheck(loss, (anatomy, caption, temperature))


def test_smallest_temperature_stays_finite(make_batch):
    batch = {name: value.float() if value.is_floating_point() else value for name, value in make_batch().items()}
    batch["anatomy"].requires_grad_()
    loss = CrossAnatomyLoss()(**batch, temperature_global=torch.tensor(0.001))
    loss.backward()
    assert loss.isfinite()
    assert batch["anatomy"].grad.isfinite().all()


def test_the_same_words_for_every_anatomy_move_image_rows_along_one_vector_only(make_batch):
    batch = make_batch()
    batch["caption"] = batch["caption"][:1, :1].expand_as(batch["caption"])
    batch["caption_id"] = torch.full_like(batch["caption_id"], 7)
    batch["anatomy"].requires_grad_()
    loss = CrossAnatomyLoss()(**batch, temperature_global=TEMPERATURE)
    loss.backward()
    assert loss.isfinite()
    gradient, words = batch["anatomy"].grad, batch["caption"][0, 0]
    torch.testing.assert_close(gradient, (gradient @ words)[..., None] * words, rtol=0, atol=1e-12)
