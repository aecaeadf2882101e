from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from bundle.ctfindings.losses import (
    AnatomyHeadLoss,
    CompositeLoss,
    CrossAnatomyLoss,
    DiseasePromptLoss,
    LocalAnatomyLoss,
    TextSeparationLoss,
)


class Square(nn.Module):
    inputs = ("x",)

    def forward(self, x: Tensor) -> Tensor:
        return (x * x).sum()


class Distance(nn.Module):
    inputs = ("x", "y")

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x - y).abs().sum()


class Forbidden(nn.Module):
    inputs = ("x",)

    def forward(self, x: Tensor) -> Tensor:
        raise AssertionError("a loss of weight 0 was computed")


def x(value: float = 3.0) -> Tensor:
    return torch.tensor([value], dtype=torch.float32, requires_grad=True)


def test_total_is_the_weighted_sum_and_the_log_is_unweighted():
    loss = CompositeLoss({"square": Square(), "distance": Distance()}, {"square": 0.5, "distance": 2.0})
    value = x()
    total = loss({"x": value}, {"y": torch.tensor([1.0])})
    total.backward()
    assert total.item() == pytest.approx(0.5 * 9 + 2 * 2)
    assert {name: term.item() for name, term in loss.last.items()} == {"square": 9.0, "distance": 2.0}
    assert not any(term.requires_grad for term in loss.last.values())
    assert value.grad is not None
    assert value.grad.item() == pytest.approx(0.5 * 6 + 2 * 1)


@pytest.mark.parametrize("targets", [{}, {"y": None}])
def test_loss_whose_input_is_absent_is_left_out_also_from_the_log(targets):
    loss = CompositeLoss({"square": Square(), "distance": Distance()}, {"square": 1.0, "distance": 1.0})
    loss({"x": x()}, {"y": torch.tensor([1.0])})
    assert loss({"x": x()}, targets).item() == pytest.approx(9)
    assert list(loss.last) == ["square"]


def test_outputs_come_before_targets_and_none_falls_through():
    loss = CompositeLoss({"square": Square()}, {"square": 1.0})
    assert loss({"x": x(2)}, {"x": x(5)}).item() == pytest.approx(4)
    assert loss({"x": None}, {"x": x(5)}).item() == pytest.approx(25)


def test_loss_of_weight_zero_is_never_computed():
    loss = CompositeLoss({"square": Square(), "off": Forbidden()}, {"square": 1.0, "off": 0.0}, warmup_steps={"off": 5})
    assert loss({"x": x()}, {}).item() == pytest.approx(9)
    assert list(loss.last) == ["square"]


def test_total_without_any_loss_is_a_zero_connected_to_every_output():
    loss = CompositeLoss({"distance": Distance()}, {"distance": 1.0})
    values = {"x": torch.tensor([[math.nan, math.inf]], requires_grad=True), "temperature": torch.tensor(0.07, requires_grad=True)}
    total = loss(values, {})
    total.backward()
    assert total.item() == 0
    assert values["x"].grad is not None
    assert values["x"].grad.tolist() == [[0, 0]]
    assert values["temperature"].grad is not None
    assert values["temperature"].grad.item() == 0


@pytest.mark.parametrize("outputs", [{}, {"x": torch.ones(1)}, {"grid": (1, 2, 3)}])
def test_backward_works_even_when_no_output_has_a_gradient(outputs):
    CompositeLoss({"distance": Distance()}, {"distance": 1.0})(outputs, {}).backward()


def test_weight_grows_linearly_over_the_warm_up():
    loss = CompositeLoss({"square": Square()}, {"square": 2.0}, warmup_steps={"square": 4})
    assert [loss({"x": x(1)}, {}).item() for _ in range(6)] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0])
    assert loss.last["square"].item() == 1


def test_validation_has_full_weights_and_does_not_advance_the_warm_up():
    loss = CompositeLoss({"square": Square()}, {"square": 2.0}, warmup_steps={"square": 4})
    loss({"x": x(1)}, {})
    with torch.no_grad():
        assert [loss({"x": x(1)}, {}).item() for _ in range(3)] == pytest.approx([2.0, 2.0, 2.0])
    assert loss({"x": x(1)}, {}).item() == pytest.approx(1.0)


def test_warm_up_resumes_from_a_checkpoint():
    def new() -> CompositeLoss:
        return CompositeLoss({"square": Square()}, {"square": 2.0}, warmup_steps={"square": 4})

    stopped, resumed = new(), new()
    for _ in range(2):
        stopped({"x": x(1)}, {})
    resumed.load_state_dict(stopped.state_dict())
    assert resumed({"x": x(1)}, {}).item() == stopped({"x": x(1)}, {}).item() == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("weights", "warmup_steps", "message"),
    [
        ({}, {}, "each loss needs a weight"),
        ({"square": 1.0, "sqare": 1.0}, {}, "each loss needs a weight"),
        ({"square": -1.0}, {}, "weight of loss 'square' is -1.0"),
        ({"square": math.nan}, {}, "weight of loss 'square' is nan"),
        ({"square": 1.0}, {"local": 3}, "warmup_steps are given for"),
        ({"square": 1.0}, {"square": -3}, "warm-up of loss 'square' is -3 steps"),
    ],
)
def test_settings_that_do_not_fit_are_refused(weights, warmup_steps, message):
    with pytest.raises(ValueError, match=message):
        CompositeLoss({"square": Square()}, weights, warmup_steps)


def test_all_losses_of_the_package_find_their_inputs_in_a_training_step(make_batch):
    batch = make_batch()
    outputs = {name: batch[name] for name in ("anatomy", "anatomy_valid", "caption", "caption_valid")}
    outputs |= {
        "anatomy_logits": torch.zeros(6, 4, 3, dtype=torch.float64),
        "finding_logits_drawn": torch.zeros(6, 18, dtype=torch.float64),
        "temperature": torch.tensor(0.07, dtype=torch.float64),
        "temperature_global": torch.tensor(0.07, dtype=torch.float64),
    }
    for value in outputs.values():
        if value.is_floating_point():
            value.requires_grad_()
    targets = {
        "membership": torch.ones(6, 4, 3, dtype=torch.bool),
        "membership_known": torch.ones(6, 3, dtype=torch.bool),
        "caption_id": batch["caption_id"],
        "caption_normal": batch["caption_normal"],
        "labels": torch.ones(6, 18, dtype=torch.int64),
    }
    losses = {
        "local": LocalAnatomyLoss(),
        "cross": CrossAnatomyLoss(),
        "separation": TextSeparationLoss(),
        "head": AnatomyHeadLoss(),
        "prompts": DiseasePromptLoss(),
    }
    loss = CompositeLoss(losses, dict.fromkeys(losses, 1.0))
    total = loss(outputs, targets)
    total.backward()
    assert set(loss.last) == set(losses)
    assert total.item() == pytest.approx(sum(value.item() for value in loss.last.values()))
    assert all(value.grad.any() for value in outputs.values() if value.is_floating_point())
