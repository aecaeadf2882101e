"""The training objective: a weighted sum of losses that reads the dictionaries of a training step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

from bundle.ctfindings.losses.gathering import true_on_every_rank, world_size
from bundle.ctfindings.losses.means import mean_of_parts

MEANS_OF, GIVEN_TO = "means_of_", "given_to_"
"""Begin the names of what ``CompositeLoss.condense`` says of a loss."""


class CompositeLoss(_Loss):
    """Weighs losses, and leaves out those whose inputs a batch does not have: mixed data is the rule.

    A loss says what it needs in its attribute ``inputs``, a tuple of names that are its arguments and keys of the
    dictionaries. A loss that gathers over ranks says so with ``gathers = True``; it is computed only where every rank
    has its inputs, because a rank that waits for the rows of another would wait for ever. A loss whose value is a sum
    of means over the scans of a batch has a method ``means``, so that it can be computed on parts of a batch, one at a
    time (``condense``). Its attribute ``empty_if_absent`` names the inputs for which such a loss takes None in a part
    that has none, because scans without them still count beside scans that have them.

    Args:
        losses: the losses by name.
        weights: the weight of each loss, by the same names; a loss of weight 0 is never computed.
        warmup_steps: training steps over which a weight grows linearly to its value, for the names given. A training
            step is a call with gradients enabled; without gradients every weight is at its full value, so that
            validation totals compare between epochs.

    Attributes:
        last: the unweighted value of each loss that took part in the last call, detached, for logging.
        step: training steps done, part of the state dictionary: save the loss in the checkpoint and the warm-up resumes
            where it stopped.

    Raises:
        ValueError: when the names do not match, a weight is negative or not a number, or a warm-up is negative.

    Example:
        >>> import torch
        >>> from bundle.ctfindings.losses import DiseasePromptLoss
        >>> loss = CompositeLoss({"prompts": DiseasePromptLoss()}, weights={"prompts": 2.0})
        >>> total = loss({"finding_logits_drawn": torch.zeros(1, 1)}, {"labels": torch.tensor([[1]])})
        >>> round(total.item(), 4), round(loss.last["prompts"].item(), 4)
        (1.3863, 0.6931)
    """

    step: Tensor

    def __init__(
        self,
        losses: Mapping[str, nn.Module],
        weights: Mapping[str, float],
        warmup_steps: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        warmup_steps = warmup_steps or {}
        if set(weights) != set(losses):
            raise ValueError(
                f"weights are given for {sorted(weights)}, losses are {sorted(losses)}; each loss needs a weight (0 leaves it out)"
            )
        if not set(warmup_steps) <= set(losses):
            raise ValueError(f"warmup_steps are given for {sorted(warmup_steps)}, losses are {sorted(losses)}")
        for name, weight in weights.items():
            if not weight >= 0:
                raise ValueError(f"weight of loss {name!r} is {weight}; it must be a number of at least 0")
        for name, steps in warmup_steps.items():
            if steps < 0:
                raise ValueError(f"warm-up of loss {name!r} is {steps} steps; it must be at least 0")
        self.losses = nn.ModuleDict(losses)
        self.weights = dict(weights)
        self.warmup_steps = dict(warmup_steps)
        self.last: dict[str, Tensor] = {}
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def current_weights(self) -> dict[str, float]:
        """The weight of each loss in the next call: ``weight * (step + 1) / warmup_steps`` while it grows, step
        counting from 0.
        """
        if not self.warmup_steps or not torch.is_grad_enabled():
            return dict(self.weights)
        step = int(self.step)
        return {
            name: weight * min(1.0, (step + 1) / max(1, self.warmup_steps.get(name, 0)))
            for name, weight in self.weights.items()
        }

    def condense(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs for a part of a batch, with the means of the losses that are sums of means in place of what only
        these read.

        The outputs of a network are large where they speak of every token, and its means are two numbers: parts
        condensed and joined along the first axis cost a large batch next to nothing, and ``forward`` gives the value of
        the whole batch from them.

        Args:
            outputs: of the network for the part.
            targets: of the part.

        Returns:
            The other outputs, and for each such loss ``means_of_<name>``, ``[1, T, 2]``: its T means and the counts
            they are taken over; and ``given_to_<name>``, ``[1]``: whether the part had all of its inputs. A loss for
            which the part says nothing has neither.
        """
        weighed = {name: loss for name, loss in self.losses.items() if self.weights[name] > 0}
        apart = {name: cast(Any, loss) for name, loss in weighed.items() if hasattr(loss, "means")}
        kept = {
            key for name, loss in weighed.items() if name not in apart for key in cast(tuple[str, ...], loss.inputs)
        }
        condensed = {key: value for key, value in outputs.items() if key in kept}
        for name, loss in apart.items():
            given = {key: targets.get(key) if outputs.get(key) is None else outputs[key] for key in loss.inputs}
            absent = {key for key, value in given.items() if value is None}
            if absent <= set(getattr(loss, "empty_if_absent", ())):
                means = loss.means(**given)
                condensed[MEANS_OF + name] = means[None]
                condensed[GIVEN_TO + name] = torch.tensor([not absent], device=means.device)
        return condensed

    def forward(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> Tensor:
        """
        Args:
            outputs: what the network gave, by name; absent or None where it had nothing to give. Or parts that
                ``condense`` gave, joined.
            targets: what is known of the batch, by name; looked up where `outputs` has no such entry.

        Returns:
            The weighted sum, a scalar. When no loss takes part it is a zero on which ``backward`` works.
        """
        anchor = _anchor(outputs)
        weights = self.current_weights()
        active = [name for name in self.losses if weights[name] > 0]
        arguments = {name: _arguments(self.losses[name], outputs, targets) for name in active}
        gathering = [name for name in arguments if getattr(self.losses[name], "gathers", False)]
        everywhere = true_on_every_rank([arguments[name] is not None for name in gathering], anchor.device)
        left_out = [name for name, present in zip(gathering, everywhere, strict=True) if not present]

        values = {
            name: self.losses[name](**given)
            for name, given in arguments.items()
            if given is not None and name not in left_out
        }
        condensed = [name for name in active if GIVEN_TO + name in outputs and outputs[GIVEN_TO + name].any()]
        values |= {name: mean_of_parts(outputs[MEANS_OF + name]).sum() for name in condensed}
        self.last = {name: value.detach() for name, value in values.items()}
        total = anchor.new_zeros(())
        for name, value in values.items():
            total = total + weights[name] * value
        if torch.is_grad_enabled():
            self.step += 1
            # DistributedDataParallel waits for every parameter, also on the rank whose batch had no input for one of
            # the losses.
            if world_size() > 1 or not total.requires_grad:
                total = total + anchor
        return total


def _arguments(loss: nn.Module, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Any] | None:
    """The arguments of a loss by name, or None when one is absent."""
    names = cast(tuple[str, ...], loss.inputs)
    arguments = {name: targets.get(name) if outputs.get(name) is None else outputs[name] for name in names}
    return None if any(value is None for value in arguments.values()) else arguments


def _anchor(outputs: Mapping[str, Any]) -> Tensor:
    """A scalar zero that depends on all outputs, on their device; it depends on itself when no output has a gradient.

    It adds sums of nothing: unlike ``0 * output.sum()`` they stay zero when an output holds infinity or NaN.
    """
    floating = [value for value in outputs.values() if isinstance(value, Tensor) and value.is_floating_point()]
    connected = [value[None][:0].sum() for value in floating if value.requires_grad]
    if connected and torch.is_grad_enabled():
        return torch.stack(connected).sum()
    device = floating[0].device if floating else None
    return torch.zeros((), device=device, requires_grad=torch.is_grad_enabled())
