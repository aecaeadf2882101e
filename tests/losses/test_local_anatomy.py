import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bundle.ctfindings.losses.local_anatomy import LocalAnatomyLoss

TEMPERATURE = torch.tensor(0.2, dtype=torch.float64)


def by_hand(batch: dict[str, Tensor], temperature: float) -> list[float]:
    """methods.md 1.3, entry by entry: the loss of each anatomy that takes part."""
    array = {name: value.numpy() for name, value in batch.items()}
    losses = []
    for k in range(array["anatomy"].shape[1]):
        rows = [
            i for i in range(len(array["anatomy"])) if array["anatomy_valid"][i, k] and array["caption_valid"][i, k]
        ]
        normal, text = array["caption_normal"][:, k], array["caption_id"][:, k]
        positive = np.array(
            [[float(i == j or (normal[i] and normal[j]) or text[i] == text[j]) for j in rows] for i in rows]
        )
        if not any(not normal[i] for i in rows) or positive.min() == 1:
            continue
        target = positive / positive.sum(axis=1, keepdims=True)
        similarity = np.array(
            [[array["anatomy"][i, k] @ array["caption"][j, k] / temperature for j in rows] for i in rows]
        )
        both = 0.0
        for matrix in (similarity, similarity.T):
            log_probability = matrix - np.log(np.exp(matrix).sum(axis=1, keepdims=True))
            both += -(target * log_probability).sum(axis=1).mean()
        losses.append(both / 2)
    return losses


def test_loss_is_the_formula_written_out(make_batch):
    batch = make_batch()
    expected = by_hand(batch, 0.2)
    assert expected
    assert LocalAnatomyLoss("sum")(**batch, temperature=TEMPERATURE).item() == pytest.approx(sum(expected), abs=1e-10)
    assert LocalAnatomyLoss()(**batch, temperature=TEMPERATURE).item() == pytest.approx(np.mean(expected), abs=1e-10)


def test_distinct_abnormal_texts_give_plain_symmetric_info_nce(make_batch):
    batch = make_batch(scans=4, anatomies=1)
    everything = torch.ones(4, 1, dtype=torch.bool)
    batch |= {"anatomy_valid": everything, "caption_valid": everything, "caption_normal": ~everything}
    batch["caption_id"] = torch.arange(4)[:, None]
    similarity = batch["anatomy"][:, 0] @ batch["caption"][:, 0].T / TEMPERATURE
    same = torch.arange(4)
    expected = (F.cross_entropy(similarity, same) + F.cross_entropy(similarity.T, same)) / 2
    assert LocalAnatomyLoss()(**batch, temperature=TEMPERATURE).item() == pytest.approx(expected.item(), abs=1e-12)


def test_anatomy_whose_captions_are_all_normal_is_skipped(make_batch):
    batch = make_batch(scans=5, anatomies=2)
    batch["anatomy_valid"][:], batch["caption_valid"][:] = True, True
    batch["caption_normal"][:, 0], batch["caption_normal"][:, 1] = True, False
    batch["caption_id"][:] = torch.arange(5)[:, None]
    anatomy = batch.pop("anatomy").requires_grad_()
    LocalAnatomyLoss()(anatomy=anatomy, **batch, temperature=TEMPERATURE).backward()
    assert anatomy.grad is not None
    assert not anatomy.grad[:, 0].any()
    assert anatomy.grad[:, 1].any()


@pytest.mark.parametrize("case", ["all normal", "one text", "one scan", "no anatomy", "no caption"])
def test_nothing_to_tell_apart_gives_zero_without_gradient(make_batch, case):
    batch = make_batch(scans=4)
    batch["anatomy_valid"][:], batch["caption_valid"][:], batch["caption_normal"][:] = True, True, False
    batch["caption_id"] = torch.arange(12).reshape(4, 3)
    match case:
        case "all normal":
            batch["caption_normal"][:] = True
        case "one text":
            batch["caption_id"][:] = 1
        case "one scan":
            batch["anatomy_valid"][1:] = False
        case "no anatomy":
            batch["anatomy_valid"][:] = False
        case "no caption":
            batch["caption_valid"][:] = False
    batch["anatomy"].requires_grad_()
    loss = LocalAnatomyLoss()(**batch, temperature=TEMPERATURE)
    assert loss.item() == 0
    assert not loss.requires_grad


@pytest.mark.parametrize("content", [0.0, float("nan")])
def test_invalid_rows_change_nothing_and_get_no_gradient(make_batch, content):
    batch = make_batch(seed=1)
    whole = LocalAnatomyLoss()(**batch, temperature=TEMPERATURE)
    invalid = ~(batch["anatomy_valid"] & batch["caption_valid"])
    assert invalid.any()
    for name in ("anatomy", "caption"):
        batch[name] = batch[name].masked_fill(invalid[..., None], content).requires_grad_()
    loss = LocalAnatomyLoss()(**batch, temperature=TEMPERATURE)
    loss.backward()
    assert loss.item() == whole.item()
    for name in ("anatomy", "caption"):
        assert batch[name].grad.isfinite().all()
        assert not batch[name].grad[invalid].any()


def test_temperature_learns(make_batch):
    temperature = TEMPERATURE.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda value: LocalAnatomyLoss()(**make_batch(), temperature=value), (temperature,))


def test_smallest_temperature_stays_finite(make_batch):
    batch = {name: value.float() if value.is_floating_point() else value for name, value in make_batch().items()}
    batch["anatomy"].requires_grad_()
    loss = LocalAnatomyLoss()(**batch, temperature=torch.tensor(0.001))
    loss.backward()
    assert loss.isfinite()
    assert batch["anatomy"].grad.isfinite().all()


def test_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match=r"reduction_over_anatomies: .* got 'none'"):
        LocalAnatomyLoss("none")  # type: ignore[arg-type]
