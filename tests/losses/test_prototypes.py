import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bundle.ctfindings.losses.prototypes import AnatomyPrototypeLoss

KINDS = ["ema", "learnable"]
HEART = 1  # of the three anatomies of these batches
NAMES = ("anatomy", "anatomy_valid", "caption", "caption_valid")


def rows_of(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: batch[name] for name in NAMES}


def prototype_loss(kind: str = "learnable", **options) -> AnatomyPrototypeLoss:
    return AnatomyPrototypeLoss(3, 5, kind, **options).double()  # type: ignore[arg-type]


def test_loss_is_the_formula_written_out(make_batch):
    batch, loss = rows_of(make_batch()), prototype_loss(temperature=0.3)
    with torch.no_grad():
        loss.prototypes.copy_(torch.randn(3, 5, generator=torch.Generator().manual_seed(1)))
    prototypes = loss.prototypes.detach().numpy()
    prototypes = prototypes / np.linalg.norm(prototypes, axis=1, keepdims=True)
    terms = []
    for i in range(6):
        for k in range(3):
            if batch["anatomy_valid"][i, k] and batch["caption_valid"][i, k]:
                for modality in ("caption", "anatomy"):
                    score = prototypes @ batch[modality][i, k].numpy() / 0.3
                    terms.append(-score[k] + math.log(np.exp(score).sum()))
    assert loss(**batch).item() == pytest.approx(2 * np.mean(terms), abs=1e-10)


def test_moving_prototypes_start_as_the_mean_of_image_and_text_and_follow_it_with_the_decay():
    loss = AnatomyPrototypeLoss(2, 2, "ema", decay=0.9)
    valid, right, up = torch.ones(1, 2, dtype=torch.bool), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    images, captions = torch.stack([right, up])[None], torch.stack([up, up])[None]
    loss(images, valid, captions, valid)
    between = F.normalize(right + up, dim=0)
    torch.testing.assert_close(loss.prototypes, torch.stack([between, up]))
    loss(images, valid, images, valid)
    torch.testing.assert_close(loss.prototypes, torch.stack([F.normalize(0.9 * between + 0.1 * right, dim=0), up]))


def test_an_excluded_anatomy_has_no_prototype(make_batch):
    batch = make_batch()
    excluded = prototype_loss(excluded=["heart"])
    assert not excluded.seen[HEART] and excluded.seen.sum() == len(excluded.seen) - 1
    rows = rows_of(batch)
    rows["anatomy_valid"] = rows["anatomy_valid"].clone()
    rows["anatomy_valid"][:, HEART] = False
    assert torch.equal(excluded(**rows_of(batch)), excluded(**rows))


def test_an_anatomy_that_never_occurred_is_no_rival():
    """Two of three anatomies are known, at right angles: cross-entropy of two classes, log(1 + exp(-1 / tau)), in both
    modalities.
    """
    loss = prototype_loss("ema", temperature=0.5)
    rows = torch.eye(5, dtype=torch.float64)[:3][None]
    valid = torch.tensor([[True, True, False]])
    assert loss(rows, valid, rows, valid).item() == pytest.approx(2 * math.log(1 + math.exp(-2)))
    assert loss.seen.tolist() == [True, True, False]


def test_without_gradients_nothing_is_learned(make_batch):
    batch, loss = rows_of(make_batch()), prototype_loss("ema")
    with torch.no_grad():
        assert loss(**batch).item() == 0
    assert not loss.seen.any()
    loss(**batch)
    before = loss.prototypes.clone()
    with torch.no_grad():
        assert loss(**batch).item() > 0
    assert torch.equal(loss.prototypes, before)


def test_a_validation_batch_with_an_anatomy_that_training_has_not_seen_gives_zero(make_batch):
    batch, loss = rows_of(make_batch()), prototype_loss("ema")
    loss(**{**batch, "anatomy_valid": batch["anatomy_valid"] & torch.tensor([True, True, False])})
    assert loss.seen.tolist() == [True, True, False]
    with torch.no_grad():
        assert loss(**batch).item() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_no_valid_pair_gives_zero_without_gradient(make_batch, kind):
    batch, loss = rows_of(make_batch()), prototype_loss(kind)
    batch["caption_valid"][:] = False
    batch["anatomy"].requires_grad_()
    value = loss(**batch)
    assert value.item() == 0
    assert not value.requires_grad


def test_a_single_anatomy_has_no_moving_rival_and_gives_zero(make_batch):
    batch = rows_of(make_batch())
    batch["anatomy_valid"][:, 1:] = False
    value = prototype_loss("ema")(**batch)
    assert value.item() == 0
    assert not value.requires_grad


def test_a_single_anatomy_is_drawn_to_its_learnable_prototype(make_batch):
    batch = rows_of(make_batch())
    batch["anatomy_valid"][:, 1:] = False
    raw = batch["caption"].clone().requires_grad_()
    loss = prototype_loss()
    loss(**{**batch, "caption": F.normalize(raw, dim=-1)}).backward()
    valid = (batch["anatomy_valid"] & batch["caption_valid"])[:, 0]
    assert raw.grad is not None
    after = F.normalize(raw.detach() - 0.1 * raw.grad, dim=-1)
    assert (after[valid, 0, 0] > batch["caption"][valid, 0, 0]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_collapsed_identical_captions_are_pushed_apart(kind):
    """Image rows are apart, so that the prototypes are; the captions are one point, and a gradient step tells anatomies
    apart.
    """
    loss = AnatomyPrototypeLoss(3, 5, kind).double()  # type: ignore[arg-type]
    images = torch.eye(5, dtype=torch.float64)[:3].expand(4, 3, 5)
    valid = torch.ones(4, 3, dtype=torch.bool)
    raw = torch.ones(4, 3, 5, dtype=torch.float64, requires_grad=True)
    loss(images, valid, F.normalize(raw, dim=-1), valid).backward()
    assert raw.grad is not None
    after = F.normalize(raw.detach() - raw.grad, dim=-1)[0]
    assert (after @ after.T)[0, 1] < 1 - 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", [0.0, float("nan")])
def test_invalid_rows_change_nothing_and_get_no_gradient(make_batch, kind, content):
    batch = rows_of(make_batch(seed=1))
    whole = prototype_loss(kind)(**batch)
    invalid = ~(batch["anatomy_valid"] & batch["caption_valid"])
    assert invalid.any()
    for name in ("anatomy", "caption"):
        batch[name] = batch[name].masked_fill(invalid[..., None], content).requires_grad_()
    loss = prototype_loss(kind)
    value = loss(**batch)
    value.backward()
    assert value.item() == whole.item()
    assert loss.prototypes.isfinite().all()
    for name in ("anatomy", "caption"):
        assert batch[name].grad is not None
        assert not batch[name].grad[invalid].any()


@pytest.mark.parametrize("kind", KINDS)
def test_permuting_the_scans_changes_nothing(make_batch, kind):
    batch = rows_of(make_batch())
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    permuted = {name: value[order] for name, value in batch.items()}
    assert prototype_loss(kind)(**permuted).item() == pytest.approx(prototype_loss(kind)(**batch).item(), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_prototypes_are_part_of_the_state(make_batch, kind):
    trained, resumed = prototype_loss(kind), prototype_loss(kind)
    trained(**rows_of(make_batch()))
    with torch.no_grad():
        trained.prototypes.add_(0.5)
    resumed.load_state_dict(trained.state_dict())
    assert torch.equal(resumed.prototypes, trained.prototypes)
    assert torch.equal(resumed.seen, trained.seen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "mean"}, "kind: .* got 'mean'"),
        ({"decay": 1.0}, "decay: .* got 1.0"),
        ({"temperature": 0.0}, "temperature: .* got 0.0"),
        ({"embedding": 2}, "do not fit into 2 dimensions"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AnatomyPrototypeLoss(**{"anatomies": 3, "embedding": 5, **options})
