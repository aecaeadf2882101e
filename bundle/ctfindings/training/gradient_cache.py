"""Gradient caching: the gradient of a large batch with the memory of a micro-batch.

Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", 2021,
https://arxiv.org/abs/2101.06983. The micro-batches pass through the network twice. The first pass, without gradient,
gives all outputs; the loss of the joined outputs gives the gradient of each output. The second pass repeats each
micro-batch, with the same random draws and running statistics, and backpropagates those gradients. The result is the
gradient of the whole batch for any loss, at the cost of one more forward pass. ``CompositeLoss.condense`` reduces
outputs with one row per token to their means before they are kept.
"""

import copy
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
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

from bundle.ctfindings.losses.composite import CompositeLoss, zero_of
from bundle.ctfindings.networks.image.standardization import standardizations
from bundle.ctfindings.step_keys import batch_axis


class MicroBatches:
    """Groups ``size`` batches of a loader; each group is one optimizer step, and is read while it is used.

    An incomplete group at the end of an epoch is dropped. ValueError if the size is below 1, or the loader has fewer
    batches than one group.
    """

    def __init__(self, loader: Iterable[Any], size: int) -> None:
        if size < 1:
            raise ValueError(f"micro_batches: expected at least 1, got {size}")
        if len(cast(Sized, loader)) < size:
            raise ValueError(
                f"the data set has {len(cast(Sized, loader))} micro-batches and a step needs {size}; "
                "lower micro_batches or batch_size"
            )
        self.loader = loader
        self.size = size
        self.sampler = getattr(loader, "sampler", None)

    def __len__(self) -> int:
        return len(cast(Sized, self.loader)) // self.size

    def __iter__(self) -> Iterator[Iterator[Any]]:
        source = iter(self.loader)
        for _ in range(len(self)):
            group = (next(source) for _ in range(self.size))
            yield group
            # What was not read of this group does not belong to the next.
            for _ in group:
                pass


class GradientCache:
    """One optimizer step over a group of micro-batches: ``iteration_update`` of MONAI's ``SupervisedTrainer``.

    Contrastive losses see all scans of the group, and of all ranks where they gather. The scans wait between the two
    passes in ``waiting_dir``, by default the system's temporary folder, which should be on a disk. Works with mixed
    precision (``amp``) and ``DistributedDataParallel``, which exchanges gradients once a step. A step leaves no
    state behind.
    """

    def __init__(self, waiting_dir: str | Path | None) -> None:
        self.waiting_dir = waiting_dir

    def __call__(self, engine: Engine, group: Iterable[Any]) -> dict[str, Any]:
        """Runs a step on micro-batches of collated studies."""
        trainer = cast(SupervisedTrainer, engine)
        trainer.network.train()
        trainer.optimizer.zero_grad(set_to_none=trainer.optim_set_to_none)
        if self.waiting_dir is not None:
            Path(self.waiting_dir).mkdir(parents=True, exist_ok=True)
        _share_running_statistics(trainer.network)
        with tempfile.TemporaryDirectory(prefix="step_", dir=self.waiting_dir) as folder:
            parts: list[Path] = []
            outputs, targets, states, rows = [], [], [], []
            for batch in group:
                prepared = trainer.prepare_batch(batch, trainer.state.device, trainer.non_blocking, **trainer.to_kwargs)
                del batch
                parts.append(Path(folder) / f"{len(parts)}.pt")
                torch.save(prepared, parts[-1])
                states.append(_state(trainer))
                with torch.no_grad(), _precision(trainer):
                    outputs.append(_condensed(trainer, _forward(trainer, prepared), prepared[1]))
                targets.append(prepared[1])
                rows.append(len(prepared[0]))
                del prepared
            afterwards = _state(trainer)
            gradients = _output_gradients(trainer, outputs, targets, rows)
            for part, state, gradient in zip(parts, states, gradients, strict=True):
                _restore(trainer, state)
                with _without_exchange(trainer.network, part != parts[-1]):
                    _backpropagate(trainer, part, gradient)
            _restore(trainer, afterwards)
        trainer.fire_event(IterationEvents.BACKWARD_COMPLETED)
        if trainer.scaler is not None:
            trainer.scaler.step(trainer.optimizer)
            trainer.scaler.update()
        else:
            trainer.optimizer.step()
        trainer.fire_event(IterationEvents.MODEL_COMPLETED)
        return trainer.state.output


def join_parts(parts: Sequence[Mapping[str, Any]], scans: Sequence[int]) -> dict[str, Tensor | None]:
    """Outputs or targets of the micro-batches as those of the whole batch.

    Scalars are the same in all parts. A part without an entry that others have gets zeros for its scans, as a scan
    without a caption, report or mask does in a batch; an entry that does not count scans gets no rows. ``scans`` is
    the number of scans of each part.
    """
    joined: dict[str, Tensor | None] = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        like = next((part[name] for part in parts if part.get(name) is not None), None)
        if like is None or like.dim() == 0:
            joined[name] = None if like is None else like.detach().clone()
            continue
        along = batch_axis(name)
        values = []
        for part, count in zip(parts, scans, strict=True):
            shape = list(like.shape)
            shape[along.axis] = count if along.per_scan else 0
            values.append(like.new_zeros(shape) if part.get(name) is None else part[name])
        joined[name] = torch.cat(values, dim=along.axis)
    return joined


def split_gradients(
    gradients: Mapping[str, Tensor], parts: Sequence[Mapping[str, Any]], scans: Sequence[int]
) -> list[dict[str, Tensor]]:
    """The gradients of what ``join_parts`` joined, by part; that of a scalar goes to the first part only."""
    shares: list[dict[str, Tensor]] = [{} for _ in parts]
    for name, gradient in gradients.items():
        if gradient.dim() == 0:
            shares[0][name] = gradient
            continue
        along = batch_axis(name)
        held = [part.get(name) for part in parts]
        absent = [count if along.per_scan else 0 for count in scans]
        sizes = [none if value is None else value.shape[along.axis] for value, none in zip(held, absent, strict=True)]
        for share, value, piece in zip(shares, held, gradient.split(sizes, dim=along.axis), strict=True):
            if value is not None:
                share[name] = piece
    return shares


def _output_gradients(
    trainer: SupervisedTrainer, outputs: list[dict[str, Any]], targets: Sequence[Mapping[str, Any]], rows: Sequence[int]
) -> list[dict[str, Tensor]]:
    """The gradient of the loss of the whole batch with respect to the outputs of each part, which are freed."""
    joined = join_parts(outputs, rows)
    for value in joined.values():
        if value is not None and value.is_floating_point():
            value.requires_grad_()
    # From here on only the shapes of the parts are needed.
    shapes = [{name: None if value is None else value.to("meta") for name, value in part.items()} for part in outputs]
    outputs.clear()
    with _precision(trainer):
        loss = trainer.loss_function(joined, join_parts(targets, rows)).mean()
    trainer.state.output = {Keys.PRED: joined, Keys.LOSS: loss}
    trainer.fire_event(IterationEvents.LOSS_COMPLETED)
    (loss if trainer.scaler is None else trainer.scaler.scale(loss)).backward()
    trainer.state.output = {Keys.LOSS: loss.detach()}
    gradients = {name: value.grad for name, value in joined.items() if value is not None and value.grad is not None}
    return split_gradients(gradients, shapes, rows)


def _backpropagate(trainer: SupervisedTrainer, part: Path, gradient: Mapping[str, Tensor]) -> None:
    """The second pass of one part, from the gradient of its outputs."""
    prepared = torch.load(part, map_location=trainer.state.device, weights_only=True)
    with _precision(trainer):
        outputs = _forward(trainer, prepared)
        found = _condensed(trainer, outputs, prepared[1])
    pairs = [(found[name], value) for name, value in gradient.items() if found[name].requires_grad]
    # A part whose outputs the loss does not read still takes part in the exchange between ranks.
    zero = zero_of(outputs)
    torch.autograd.backward(
        [*(output for output, _ in pairs), zero], [*(value for _, value in pairs), torch.ones_like(zero)]
    )


def _forward(trainer: SupervisedTrainer, prepared: tuple[Any, ...]) -> dict[str, Any]:
    image, _, args, inputs = prepared
    return cast(dict[str, Any], trainer.inferer(image, trainer.network, *args, **inputs))


def _condensed(trainer: SupervisedTrainer, outputs: dict[str, Any], targets: dict[str, Any]) -> dict[str, Any]:
    """What the loss reads of the outputs of a part; all of them for other losses than ``CompositeLoss``."""
    loss = trainer.loss_function
    return loss.condense(outputs, targets) if isinstance(loss, CompositeLoss) else outputs


def _precision(trainer: SupervisedTrainer) -> AbstractContextManager[Any]:
    return torch.autocast(trainer.state.device.type, **trainer.amp_kwargs) if trainer.amp else nullcontext()


def _without_exchange(network: nn.Module, active: bool) -> AbstractContextManager[Any]:
    return network.no_sync() if active and isinstance(network, DistributedDataParallel) else nullcontext()


def _share_running_statistics(network: nn.Module) -> None:
    """Gives every rank the statistics of rank 0 before they are noted for the second pass.

    ``DistributedDataParallel`` does so in the first forward pass only, which would be too late.
    """
    if isinstance(network, DistributedDataParallel):
        for module in standardizations(network):
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)


def _state(trainer: SupervisedTrainer) -> tuple[Tensor, Tensor | None, list[dict[str, Tensor]]]:
    """Random states of the CPU and of CUDA, and running statistics, which the second pass repeats."""
    device = trainer.state.device
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return (
        torch.get_rng_state(),
        cuda,
        [copy.deepcopy(item.state_dict()) for item in standardizations(trainer.network)],
    )


def _restore(trainer: SupervisedTrainer, state: tuple[Tensor, Tensor | None, list[dict[str, Tensor]]]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], trainer.state.device)
    for module, statistics in zip(standardizations(trainer.network), state[2], strict=True):
        module.load_state_dict(statistics)
