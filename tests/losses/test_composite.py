import math

import pytest
import torch
from torch import Tensor, nn

from bundle.ctfindings.losses.anatomy_head import AnatomyHeadLoss
from bundle.ctfindings.losses.composite import CompositeLoss
from bundle.ctfindings.losses.cross_anatomy import CrossAnatomyLoss
from bundle.ctfindings.losses.disease_prompts import DiseasePromptLoss
from bundle.ctfindings.losses.grounding import GroundingLoss
from bundle.ctfindings.losses.local_anatomy import LocalAnatomyLoss
from bundle.ctfindings.losses.means import mean_of_parts, with_counts
from bundle.ctfindings.losses.text_separation import TextSeparationLoss


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
    loss = CompositeLoss(
        {"square": Square(), "off": Forbidden()}, {"square": 1.0, "off": 0.0}, warmup_epochs={"off": 5}
    )
    assert loss({"x": x()}, {}).item() == pytest.approx(9)
    assert list(loss.last) == ["square"]


def test_total_without_any_loss_is_a_zero_connected_to_every_output():
    loss = CompositeLoss({"distance": Distance()}, {"distance": 1.0})
    values = {
        "x": torch.tensor([[math.nan, math.inf]], requires_grad=True),
        "temperature": torch.tensor(0.07, requires_grad=True),
    }
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
    loss = CompositeLoss({"square": Square()}, {"square": 2.0}, warmup_epochs={"square": 2}, steps_per_epoch=2)
    assert [loss({"x": x(1)}, {}).item() for _ in range(6)] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0])
    assert loss.last["square"].item() == 1


def test_validation_has_full_weights_and_does_not_advance_the_warm_up():
    loss = CompositeLoss({"square": Square()}, {"square": 2.0}, warmup_epochs={"square": 4})
    loss({"x": x(1)}, {})
    with torch.no_grad():
        assert [loss({"x": x(1)}, {}).item() for _ in range(3)] == pytest.approx([2.0, 2.0, 2.0])
    assert loss({"x": x(1)}, {}).item() == pytest.approx(1.0)


def test_warm_up_resumes_from_a_checkpoint():
    def new() -> CompositeLoss:
        return CompositeLoss({"square": Square()}, {"square": 2.0}, warmup_epochs={"square": 4})

    stopped, resumed = new(), new()
    for _ in range(2):
        stopped({"x": x(1)}, {})
    resumed.load_state_dict(stopped.state_dict())
    assert resumed({"x": x(1)}, {}).item() == stopped({"x": x(1)}, {}).item() == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("weights", "warmup_epochs", "message"),
    [
        ({}, {}, "give each loss a weight"),
        ({"square": 1.0, "sqare": 1.0}, {}, "give each loss a weight"),
        ({"square": -1.0}, {}, "weight of loss 'square': .* got -1.0"),
        ({"square": math.nan}, {}, "weight of loss 'square': .* got nan"),
        ({"square": 1.0}, {"local": 3}, "loss_warmup_epochs has"),
        ({"square": 1.0}, {"square": -3}, "warm-up of loss 'square': .* got -3"),
    ],
)
def test_settings_that_do_not_fit_are_refused(weights, warmup_epochs, message):
    with pytest.raises(ValueError, match=message):
        CompositeLoss({"square": Square()}, weights, warmup_epochs)


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
        "anatomy_known": torch.ones(6, 3, dtype=torch.bool),
        "caption_id": batch["caption_id"],
        "caption_normal": batch["caption_normal"],
        "caption_sentences": batch["caption_id"][..., None],
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


def of_tokens(scans: int, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Outputs and targets of scans with 7 tokens, 3 anatomies and 2 findings; which findings and anatomies are known
    varies.
    """
    generator = torch.Generator().manual_seed(seed)
    outputs = {
        "anatomy_logits": torch.randn(scans, 7, 3, generator=generator).requires_grad_(),
        "token_logits_drawn": torch.randn(scans, 7, 2, generator=generator).requires_grad_(),
        "finding_logits_drawn": torch.randn(scans, 2, generator=generator).requires_grad_(),
        "membership": torch.rand(scans, 7, 3, generator=generator) < 0.5,
        "anatomy_tokens": torch.rand(scans, 7, 2, generator=generator) < 0.7,
        "finding_tokens": torch.rand(scans, 7, 2, generator=generator) < 0.3,
    }
    targets = {
        "anatomy_known": torch.rand(scans, 3, generator=generator) < 0.6,
        "labels": torch.randint(-1, 2, (scans, 2), generator=generator),
    }
    return outputs, targets


def on_tokens() -> CompositeLoss:
    losses = {"head": AnatomyHeadLoss(), "grounding": GroundingLoss(), "prompts": DiseasePromptLoss()}
    return CompositeLoss(losses, {"head": 0.5, "grounding": 2.0, "prompts": 1.0})


def in_parts(loss: CompositeLoss, outputs: dict[str, Tensor], targets: dict[str, Tensor], ends: list[int]) -> Tensor:
    """The loss of parts that were condensed one by one."""
    cuts = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
    parts = [
        loss.condense(
            {key: value[cut] for key, value in outputs.items()}, {key: value[cut] for key, value in targets.items()}
        )
        for cut in cuts
    ]
    total: Tensor = loss({key: torch.cat([part[key] for part in parts]) for key in parts[0]}, targets)
    return total


def test_parts_condensed_one_by_one_give_value_and_gradient_of_the_whole():
    outputs, targets = of_tokens(6, 0)
    loss = on_tokens()
    whole = loss(outputs, targets)
    expected, known = {**loss.last}, [name for name, value in outputs.items() if value.requires_grad]
    gradients = torch.autograd.grad(whole, [outputs[name] for name in known])
    total = in_parts(loss, outputs, targets, [1, 4, 6])
    assert {name: value.item() for name, value in loss.last.items()} == pytest.approx(
        {name: float(expected[name]) for name in expected}
    )
    for found, gradient in zip(torch.autograd.grad(total, [outputs[name] for name in known]), gradients, strict=True):
        torch.testing.assert_close(found, gradient)


def test_a_condensed_part_keeps_nothing_that_is_as_large_as_its_tokens():
    outputs, targets = of_tokens(6, 0)
    condensed = on_tokens().condense(outputs, targets)
    assert all(7 not in value.shape for value in condensed.values())
    assert condensed["finding_logits_drawn"] is outputs["finding_logits_drawn"]


def test_what_another_loss_reads_is_kept_beside_the_means():
    class Tokens(Square):
        inputs = ("anatomy_logits",)

        def forward(self, anatomy_logits: Tensor) -> Tensor:
            return anatomy_logits.square().sum()

    outputs, targets = of_tokens(2, 0)
    loss = CompositeLoss({"head": AnatomyHeadLoss(), "other": Tokens()}, {"head": 1.0, "other": 1.0})
    assert loss.condense(outputs, targets)["anatomy_logits"] is outputs["anatomy_logits"]


@pytest.mark.parametrize("bare", [[False, True], [True, True]])
def test_a_part_without_finding_masks_counts_beside_one_that_has_some_and_not_alone(bare):
    """Of a batch in which a scan has masks the others have empty ones; where none has, the loss is left out."""
    outputs, targets = of_tokens(2, 1)
    targets["labels"] = torch.tensor([[1, 0], [0, 0]])
    loss = CompositeLoss({"grounding": GroundingLoss()}, {"grounding": 1.0})
    parts = []
    for scan, without in enumerate(bare):
        given = {
            key: value[scan : scan + 1] for key, value in outputs.items() if not (without and key == "finding_tokens")
        }
        parts.append(loss.condense(given, {"labels": targets["labels"][scan : scan + 1]}))
    total = loss({key: torch.cat([part[key] for part in parts]) for key in parts[0]}, targets)
    if all(bare):
        assert total.item() == 0 and loss.last == {}
        return
    outputs["finding_tokens"] = torch.cat(
        [outputs["finding_tokens"][:1], torch.zeros_like(outputs["finding_tokens"][:1])]
    )
    torch.testing.assert_close(total, loss(outputs, targets))


def test_counts_are_exact_in_half_precision():
    whole = with_counts([torch.tensor(0.5, dtype=torch.bfloat16)], [torch.tensor(1001)])
    assert whole.tolist() == [[0.5, 1001.0]]
    assert mean_of_parts(torch.stack([whole, whole * torch.tensor([0.0, 2.0])])).item() == pytest.approx(0.5 / 3)
    assert mean_of_parts(torch.zeros(2, 1, 2)).tolist() == [0.0]
