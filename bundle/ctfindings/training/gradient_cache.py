"""Large batches on small machines: gradients of the whole batch with the memory of a part of it (gradient caching).

Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", 2021,
https://arxiv.org/abs/2101.06983. The batch passes the network twice, in parts (micro-batches): first without gradient,
to get every output; the loss of the joined outputs then gives the gradient of each output; in the second pass every
part is run again, with the same random draws and running statistics, and its outputs are differentiated with those
gradients. The result is the gradient of the whole batch, whatever the loss. It costs one more forward pass, and what
the outputs themselves take; nothing else grows with the batch. A loss that can do so (``CompositeLoss.condense``) first
reduces what a part says of its tokens to the means that it needs of them, so that the outputs are a few rows for each
scan.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from ignite.engine import Engine
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys as Keys
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bundle.ctfindings.losses.composite import GIVEN_TO, MEANS_OF
from bundle.ctfindings.networks.image.standardization import RunningStandardization

BATCH_AXIS = {"prompt_drawn": 1}
"""Outputs of the network whose scans are not along the first axis."""

PER_SNIPPET = ("depth", "depth_mm", "snippet", "target_mm")
"""Outputs with a row for each snippet, so that a part without snippets has no rows of them."""


def rows_if_absent(name: str, scans: int) -> int:
    """Rows of an output in a part that does not have it, where others do: one for each scan, but for what counts other
    things.
    """
    return 0 if name in PER_SNIPPET or name.startswith((MEANS_OF, GIVEN_TO)) else scans


class MicroBatches:
    """A loader's batches in groups: each group is one step of the optimizer, and is read while it is used.

    Args:
        loader: of the micro-batches; with a ``sampler``.
        size: micro-batches of a group. An incomplete group at the end of an epoch is dropped.

    Raises:
        ValueError: when the size is not positive, or the loader has not enough for one group.
    """

    def __init__(self, loader: Iterable[Any], size: int) -> None:
        if size < 1:
            raise ValueError(f"a group of {size} micro-batches was asked for; it needs at least 1")
        if len(cast(Sized, loader)) < size:
            raise ValueError(
                f"the data set gives {len(cast(Sized, loader))} micro-batches and a step needs {size}; lower micro_batches or batch_size"
            )
        self.loader = loader
        self.size = size
        self.sampler = getattr(loader, "sampler", None)

    def __len__(self) -> int:
        return len(cast(Sized, self.loader)) // self.size

    def __iter__(self) -> Iterator[Iterator[Any]]:
        source = iter(self.loader)
        for _ in range(len(self)):
            group = _take(source, self.size)
            yield group
            # What was not read of this group does not belong to the next.
            for _ in group:
                pass


class GradientCache:
    """One step over a group of micro-batches, as the ``iteration_update`` of MONAI's ``SupervisedTrainer``.

    Losses that contrast within a batch see all scans of the group, and of all ranks where they gather; the network's
    parameters get the gradient of that loss, as if the group had been one batch. The scans wait on the disk between the
    two passes, so that memory is that of one micro-batch. Works under ``DistributedDataParallel``, which exchanges
    gradients once a step, with mixed precision (the trainer's ``amp``), and with any checkpoint, for a step leaves
    nothing behind.

    Args:
        waiting_dir: folder in which the scans of a step wait, below which each step makes and removes its own; the
            system's temporary folder by default. Where that is kept in memory, name one on a disk.
    """

    def __init__(self, waiting_dir: str | Path | None = None) -> None:
        self.waiting_dir = waiting_dir

    def __call__(self, engine: Engine, group: Iterable[Any]) -> dict[str, Any]:
        """Runs a step; the micro-batches are collated studies."""
        trainer = cast(SupervisedTrainer, engine)
        trainer.network.train()
        trainer.optimizer.zero_grad(set_to_none=trainer.optim_set_to_none)
        if self.waiting_dir is not None:
            Path(self.waiting_dir).mkdir(parents=True, exist_ok=True)
        _share_running_statistics(trainer.network)
        with tempfile.TemporaryDirectory(prefix="step_", dir=self.waiting_dir) as folder:
            parts: list[Path] = []
            outputs, targets, draws, statistics = [], [], [], []
            for batch in group:
                prepared = trainer.prepare_batch(batch, trainer.state.device, trainer.non_blocking, **trainer.to_kwargs)
                del batch
                parts.append(Path(folder) / f"{len(parts)}.pt")
                torch.save(prepared, parts[-1])
                draws.append(_random_state(trainer.state.device))
                statistics.append(_running_statistics(trainer.network))
                with torch.no_grad(), _precision(trainer):
                    outputs.append(_detached(_condensed(trainer, _forward(trainer, prepared), prepared[1])))
                targets.append(prepared[1])
                del prepared
            afterwards = _random_state(trainer.state.device)

            rows = [len(known["labels"]) for known in targets]
            joined = _leaves(join_parts(outputs, rows))
            # Of the parts only the shapes are needed from here on.
            shapes = [
                {name: None if value is None else value.to("meta") for name, value in part.items()} for part in outputs
            ]
            del outputs
            with _precision(trainer):
                loss = trainer.loss_function(joined, join_parts(targets, rows)).mean()
            trainer.state.output = {Keys.PRED: joined, Keys.LOSS: loss}
            trainer.fire_event(IterationEvents.LOSS_COMPLETED)
            _scaled(trainer, loss).backward()
            gradients = {
                name: value.grad for name, value in joined.items() if value is not None and value.grad is not None
            }
            given = split_gradients(gradients, shapes, rows)
            loss = loss.detach()
            trainer.state.output = {Keys.LOSS: loss}
            del joined

            for index, (part, draw, gradient) in enumerate(zip(parts, draws, given, strict=True)):
                _set_random_state(draw, trainer.state.device)
                _set_running_statistics(trainer.network, statistics[index])
                last = index == len(parts) - 1
                with _without_exchange(trainer.network, not last):
                    prepared = torch.load(part, map_location=trainer.state.device, weights_only=True)
                    with _precision(trainer):
                        again = _forward(trainer, prepared)
                        found = _condensed(trainer, again, prepared[1])
                    pairs = [(found[name], value) for name, value in gradient.items() if found[name].requires_grad]
                    # A part whose outputs the loss did not read still takes part in the exchange between processes.
                    zero = _zero(again)
                    torch.autograd.backward(
                        [*(output for output, _ in pairs), zero],
                        [*(value for _, value in pairs), torch.ones_like(zero)],
                    )
                del prepared, again, found, pairs, zero
            _set_random_state(afterwards, trainer.state.device)
        trainer.fire_event(IterationEvents.BACKWARD_COMPLETED)
        if trainer.scaler is not None:
            trainer.scaler.step(trainer.optimizer)
            trainer.scaler.update()
        else:
            trainer.optimizer.step()
        trainer.fire_event(IterationEvents.MODEL_COMPLETED)
        return trainer.state.output


def join_parts(parts: Sequence[dict[str, Tensor | None]], rows: Sequence[int]) -> dict[str, Tensor | None]:
    """Outputs or targets of the micro-batches as those of the whole batch.

    A scalar is the same for all parts. A part without an entry that others have gets zeros, which is what a scan
    without a caption, a report or a mask has in a batch where others have one; but no rows of what is not counted by
    scans.

    Args:
        parts: by name, scans along the first axis (``BATCH_AXIS`` names the exceptions).
        rows: scans of each part.
    """
    joined: dict[str, Tensor | None] = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        held = [part[name] for part in parts if part.get(name) is not None]
        like = held[0] if held else None
        if like is None or like.dim() == 0:
            joined[name] = None if like is None else like.clone()
            continue
        axis = BATCH_AXIS.get(name, 0)
        values = []
        for part, count in zip(parts, rows, strict=True):
            value = part.get(name)
            if value is None:
                shape = list(like.shape)
                shape[axis] = rows_if_absent(name, count)
                value = like.new_zeros(shape)
            values.append(value)
        joined[name] = torch.cat(values, dim=axis)
    return joined


def split_gradients(
    gradients: dict[str, Tensor], parts: Sequence[dict[str, Tensor | None]], rows: Sequence[int]
) -> list[dict[str, Tensor]]:
    """The gradients of joined outputs, by part; that of a scalar goes to the first part, once.

    Args:
        gradients: of the entries of ``join_parts`` that have one.
        parts: what was joined.
        rows: scans of each part.
    """
    shares: list[dict[str, Tensor]] = [{} for _ in parts]
    for name, gradient in gradients.items():
        if gradient.dim() == 0:
            shares[0][name] = gradient
            continue
        axis = BATCH_AXIS.get(name, 0)
        held = [part.get(name) for part in parts]
        absent = [rows_if_absent(name, count) for count in rows]
        sizes = [none if value is None else value.shape[axis] for value, none in zip(held, absent, strict=True)]
        for share, value, piece in zip(shares, held, gradient.split(sizes, dim=axis), strict=True):
            if value is not None:
                share[name] = piece
    return shares


def _take(source: Iterator[Any], count: int) -> Iterator[Any]:
    for _ in range(count):
        yield next(source)


def _forward(trainer: SupervisedTrainer, prepared: tuple[Any, ...]) -> dict[str, Any]:
    """Outputs of the network for what ``prepare_batch`` made of a micro-batch."""
    image, _, args, inputs = prepared
    outputs: dict[str, Any] = trainer.inferer(image, trainer.network, *args, **inputs)
    return outputs


def _condensed(trainer: SupervisedTrainer, outputs: dict[str, Any], targets: dict[str, Any]) -> dict[str, Any]:
    """Outputs of a part as the loss reads them of a joined batch."""
    condense = getattr(trainer.loss_function, "condense", None)
    return outputs if condense is None else cast(dict[str, Any], condense(outputs, targets))


def _detached(outputs: dict[str, Any]) -> dict[str, Tensor | None]:
    return {name: None if value is None else value.detach() for name, value in outputs.items()}


def _leaves(outputs: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
    """The outputs as the start of a graph of their own."""
    return {
        name: value.requires_grad_() if value is not None and value.is_floating_point() else value
        for name, value in outputs.items()
    }


def _zero(outputs: dict[str, Any]) -> Tensor:
    """A zero that depends on every output, also when one holds infinity or NaN."""
    return torch.stack(
        [value[None][:0].sum() for value in outputs.values() if isinstance(value, Tensor) and value.requires_grad]
    ).sum()


def _precision(trainer: SupervisedTrainer) -> AbstractContextManager[Any]:
    return torch.autocast(trainer.state.device.type, **trainer.amp_kwargs) if trainer.amp else nullcontext()


def _scaled(trainer: SupervisedTrainer, loss: Tensor) -> Tensor:
    return loss if trainer.scaler is None else trainer.scaler.scale(loss)


def _without_exchange(network: nn.Module, active: bool) -> AbstractContextManager[Any]:
    return network.no_sync() if active and isinstance(network, DistributedDataParallel) else nullcontext()


def _share_running_statistics(network: nn.Module) -> None:
    """Gives every rank the statistics of rank 0, as ``DistributedDataParallel`` does in the first forward pass of a
    step.

    By then those of the first part would have been noted, and the second pass would start from others than the first.
    """
    if isinstance(network, DistributedDataParallel):
        for module in network.modules():
            if isinstance(module, RunningStandardization):
                for buffer in module.buffers():
                    dist.broadcast(buffer, 0)


def _running_statistics(network: nn.Module) -> list[dict[str, Tensor]]:
    """Of every standardisation, as they are before a part has been counted."""
    modules = (module for module in network.modules() if isinstance(module, RunningStandardization))
    return [{name: value.clone() for name, value in module.state_dict().items()} for module in modules]


def _set_running_statistics(network: nn.Module, statistics: list[dict[str, Tensor]]) -> None:
    modules = (module for module in network.modules() if isinstance(module, RunningStandardization))
    for module, state in zip(modules, statistics, strict=True):
        module.load_state_dict(state)


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """State of torch's generators, from which dropout and the wordings are drawn."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
