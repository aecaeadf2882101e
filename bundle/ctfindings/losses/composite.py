"""The training objective: a weighted sum of losses over the named entries of a training step (``step_keys``)."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

from bundle.ctfindings.losses.gathering import true_on_every_rank, world_size
from bundle.ctfindings.losses.means import mean_of_parts
from bundle.ctfindings.step_keys import MEANS_OF, WAS_GIVEN


class CompositeLoss(_Loss):
    """Weighted sum of losses; a loss whose inputs a batch does not have is left out, because mixed data is the rule.

    A loss names the entries it reads in its attribute ``inputs``, which are the arguments of its ``forward``. Optional
    attributes of a loss:

    - ``gathers = True``: the loss gathers rows of all ranks. It is computed only if every rank has its inputs;
      otherwise one rank would wait for the others forever.
    - ``means(**inputs)``: the loss is a sum of means over the scans of a batch, and can be computed on parts of a batch
      (``condense``).
    - ``empty_if_absent``: inputs that ``means`` takes as None. Scans without them still count.

    Args:
        losses: Losses by name.
        weights: Weight of each loss. A loss of weight 0 is never computed.
        warmup_epochs: Epochs over which the weight of a loss grows linearly from 0, by name.
        steps_per_epoch: Training steps of an epoch. A step is a call with gradients enabled; calls without gradients
            use the full weights, so that validation totals compare between epochs.

    Attributes:
        last: Unweighted value of each loss that took part in the last call, detached, for logging.
        step: Number of training steps, saved in the state dictionary, so that a resumed run resumes the warm-up.
    """

    step: Tensor

    def __init__(
        self,
        losses: Mapping[str, nn.Module],
        weights: Mapping[str, float],
        warmup_epochs: Mapping[str, float] | None = None,
        steps_per_epoch: int = 1,
    ) -> None:
        super().__init__()
        warmup_epochs = warmup_epochs or {}
        if set(weights) != set(losses):
            raise ValueError(
                f"loss_weights has {sorted(weights)}, the losses are {sorted(losses)}; "
                "give each loss a weight, 0 to leave it out"
            )
        if not set(warmup_epochs) <= set(losses):
            raise ValueError(f"loss_warmup_epochs has {sorted(warmup_epochs)}, the losses are {sorted(losses)}")
        for name, weight in weights.items():
            if not weight >= 0:
                raise ValueError(f"weight of loss {name!r}: expected a number of at least 0, got {weight}")
        for name, epochs in warmup_epochs.items():
            if not epochs >= 0:
                raise ValueError(f"warm-up of loss {name!r}: expected at least 0 epochs, got {epochs}")
        self.losses = nn.ModuleDict(losses)
        self.weights = dict(weights)
        self.warmup_steps = {name: epochs * steps_per_epoch for name, epochs in warmup_epochs.items()}
        self.last: dict[str, Tensor] = {}
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def current_weights(self) -> dict[str, float]:
        """The weight of each loss in the next call: ``weight * (step + 1) / warm-up steps`` during its warm-up."""
        if not self.warmup_steps or not torch.is_grad_enabled():
            return dict(self.weights)
        step = int(self.step)
        return {
            name: weight * min(1.0, (step + 1) / max(1, self.warmup_steps.get(name, 0)))
            for name, weight in self.weights.items()
        }

    def condense(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Any]:
        """Reduces what a part of a batch says about every token to the few means that the losses need of it.

        Condensed parts, joined along the first axis, give the same ``forward`` as the whole batch and need almost no
        memory.

        Returns:
            The outputs that other losses read. For each loss with ``means``, also ``means_of_<name>`` ``[1, T, 2]``,
            its T means with their counts, and ``was_given_<name>`` ``[1]``, whether the part had all of its inputs.
            Both are absent if the part lacks inputs that ``means`` needs.
        """
        weighed = {name: cast(Any, loss) for name, loss in self.losses.items() if self.weights[name] > 0}
        kept = {key for loss in weighed.values() if not hasattr(loss, "means") for key in loss.inputs}
        condensed = {key: value for key, value in outputs.items() if key in kept}
        for name, loss in weighed.items():
            if not hasattr(loss, "means"):
                continue
            given = _arguments(loss, outputs, targets)
            absent = {key for key, value in given.items() if value is None}
            if absent <= set(getattr(loss, "empty_if_absent", ())):
                means = loss.means(**given)
                condensed[MEANS_OF + name] = means[None]
                condensed[WAS_GIVEN + name] = torch.tensor([not absent], device=means.device)
        return condensed

    def forward(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> Tensor:
        """The weighted sum, a scalar. If no loss takes part, a zero on which ``backward`` works.

        Args:
            outputs: Outputs of the network, absent or None where it had none; or joined parts from ``condense``.
            targets: Targets of the batch, used where ``outputs`` has no entry of that name.
        """
        anchor = zero_of(outputs)
        weights = self.current_weights()
        active = [name for name in self.losses if weights[name] > 0]
        arguments = {name: _arguments(self.losses[name], outputs, targets) for name in active}
        complete = [name for name in active if all(value is not None for value in arguments[name].values())]
        gathering = [name for name in active if getattr(self.losses[name], "gathers", False)]
        agreed = true_on_every_rank([name in complete for name in gathering], anchor.device)
        left_out = [name for name, present in zip(gathering, agreed, strict=True) if not present]

        values = {name: self.losses[name](**arguments[name]) for name in complete if name not in left_out}
        condensed = [name for name in active if WAS_GIVEN + name in outputs and outputs[WAS_GIVEN + name].any()]
        values |= {name: mean_of_parts(outputs[MEANS_OF + name]).sum() for name in condensed}
        self.last = {name: value.detach() for name, value in values.items()}
        total = anchor.new_zeros(())
        for name, value in values.items():
            total = total + weights[name] * value
        if torch.is_grad_enabled():
            self.step += 1
            # DistributedDataParallel waits for every parameter, also on a rank whose batch lacks the inputs of a loss.
            if world_size() > 1 or not total.requires_grad:
                total = total + anchor
        return total


def _arguments(loss: nn.Module, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a loss by name; None where absent."""
    return {key: targets.get(key) if outputs.get(key) is None else outputs[key] for key in cast(Any, loss).inputs}


def zero_of(outputs: Mapping[str, Any]) -> Tensor:
    """A scalar zero that depends on all outputs; a leaf with gradient if no output has one.

    It adds empty sums: unlike ``0 * output.sum()`` they stay zero where an output is infinite or NaN.
    """
    floating = [value for value in outputs.values() if isinstance(value, Tensor) and value.is_floating_point()]
    connected = [value[None][:0].sum() for value in floating if value.requires_grad]
    if connected and torch.is_grad_enabled():
        return torch.stack(connected).sum()
    return torch.zeros((), device=floating[0].device if floating else None, requires_grad=torch.is_grad_enabled())
