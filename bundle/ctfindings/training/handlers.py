"""Ignite handlers and metrics of training: reproducible epochs, macro AUC over ranks, logs."""

import logging
import time
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.metrics import EpochMetric
from monai.utils import evenly_divisible_all_gather, set_determinism

from bundle.ctfindings.losses.composite import CompositeLoss
from bundle.ctfindings.metrics.classification import macro_auc
from bundle.ctfindings.networks.image.standardization import standardizations
from bundle.ctfindings.training.unwrapped import unwrapped


class EpochSeed:
    """Seeds every epoch by its number, so that a resumed run makes the same random draws as an uninterrupted one.

    The sampler gets the same seed on every rank; the transforms draw differently on each.
    """

    def __init__(self, seed: int, sampler: Any, transform: Any, rank: int) -> None:
        self.seed = seed
        self.sampler = sampler
        self.transform = transform
        self.rank = rank

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        seed = self.seed + 1000 * engine.state.epoch
        set_determinism(seed + self.rank)
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(seed)
        if hasattr(self.transform, "set_random_state"):
            self.transform.set_random_state(seed + self.rank)


class FreezeStandardization:
    """Freezes ``RunningStandardization`` after ``epochs``, so that training then sees what inference sees."""

    def __init__(self, network: torch.nn.Module, epochs: int) -> None:
        self.network = network
        self.epochs = epochs

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        for module in standardizations(self.network):
            module.frozen = engine.state.epoch > self.epochs


class UpdateTeacher:
    """Moves the teacher of a network once before every step, also with the gradient cache; does nothing without one.

    Before the first step it becomes the network, as a warm start or a checkpoint left it. Every rank moves its copy
    alike, because all have the same weights between two steps.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        self.network = network

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        network = unwrapped(self.network)
        if network.teacher is not None:
            network.teacher.update(network.image)


class MacroAuc(EpochMetric):
    """Mean ROC-AUC over the findings, from the logits of all ranks; findings with a single class are left out."""

    def __init__(self) -> None:
        super().__init__(_macro_auc, output_transform=_logits_and_labels, check_compute_fn=False)

    def compute(self) -> float:
        """The same value on every rank. Ignite's own gathering needs the same number of studies on each rank."""
        logits, labels = (
            evenly_divisible_all_gather(torch.cat(parts), concat=True) for parts in (self._predictions, self._targets)
        )
        if not ((labels == 1).any(0) & (labels == 0).any(0)).any():
            logging.getLogger("ctfindings.validation").warning(
                "macro_auc is undefined and reported as 0.5, because no finding is both present and absent in the "
                "validation split: best.pt is not chosen by it; add studies with and without a finding to that split"
            )
        return _macro_auc(logits, labels)


def _logits_and_labels(output: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    return output["pred"]["logits"].detach().float().cpu(), output["label"]["labels"].cpu()


def _macro_auc(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return float(np.nan_to_num(macro_auc(torch.sigmoid(logits.double()).numpy(), labels.numpy()), nan=0.5))


class MetricLog:
    """Logs the metrics of each validation, also to TensorBoard if a writer is given."""

    def __init__(self, writer: Any = None) -> None:
        self.writer = writer
        self.logger = logging.getLogger("ctfindings.validation")

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        listed = "  ".join(f"{name} {value:.4f}" for name, value in engine.state.metrics.items())
        self.logger.info("validation after epoch %d: %s", engine.state.epoch, listed)
        if self.writer is not None:
            for name, value in engine.state.metrics.items():
                self.writer.add_scalar(f"validation/{name}", value, engine.state.epoch)


class LossLog:
    """Logs the mean of every loss and the duration of each epoch, also to TensorBoard if a writer is given.

    Warns after the first epoch of losses that took no part, such as that of the anatomy head without anatomy masks.
    """

    def __init__(self, loss: CompositeLoss, writer: Any = None) -> None:
        self.loss = loss
        self.writer = writer
        self.logger = logging.getLogger("ctfindings.losses")
        self._started = 0.0
        self._sums: dict[str, list[float]] = {}

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _start(self, engine: Engine) -> None:
        self._sums.clear()
        self._started = time.perf_counter()

    def _collect(self, engine: Engine) -> None:
        for name, value in self.loss.last.items():
            self._sums.setdefault(name, []).append(float(value))

    def _write(self, engine: Engine) -> None:
        means = {name: float(np.mean(values)) for name, values in self._sums.items()}
        listed = "  ".join(f"{name} {mean:.4f}" for name, mean in means.items())
        epoch, epochs, seconds = engine.state.epoch, engine.state.max_epochs, time.perf_counter() - self._started
        self.logger.info("epoch %d of %d in %.0f s: %s", epoch, epochs, seconds, listed)
        idle = [name for name, weight in self.loss.weights.items() if weight > 0 and not any(self._sums.get(name, ()))]
        if idle and epoch == 1:
            reason = "no scan has their input (docs/datalist.md), or a step has too few scans"
            self.logger.warning("took no part in the first epoch: %s; %s", ", ".join(idle), reason)
        if self.writer is not None:
            for name, mean in means.items():
                self.writer.add_scalar(f"loss/{name}", mean, engine.state.epoch)
