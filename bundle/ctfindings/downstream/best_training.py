"""Training of a small network with Ignite engines, which keeps the weights with the best validation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import EarlyStopHandler, ValidationHandler
from torch import nn


def train_best(
    network: nn.Module,
    parameters: Sequence[dict[str, Any]],
    training: Iterable[Any],
    evaluator: SupervisedEvaluator,
    prepare: Callable[..., Any],
    loss: Callable[..., torch.Tensor],
    device: torch.device,
    metric: str,
    epochs: int,
    steps: int,
    patience: int,
) -> float:
    """Trains until a metric stops rising, and leaves the weights that were best in the network.

    Args:
        network: changed in place.
        parameters: groups of AdamW with their learning rates; what they do not name stays as it is.
        training: loader of batches.
        evaluator: of the validation split and the same network; its state gets the metric.
        prepare: ``prepare_batch`` of the trainer.
        loss: of predictions and targets.
        device: where to train.
        metric: name of the metric, higher is better.
        epochs: largest number of validations.
        steps: steps between two validations, at every fraction of the labels.
        patience: validations without a better metric before training stops.

    Returns:
        The best value of the metric.
    """
    trainer = SupervisedTrainer(
        device=device,
        max_epochs=epochs,
        epoch_length=steps,
        train_data_loader=training,
        network=network,
        optimizer=torch.optim.AdamW(parameters),
        loss_function=loss,
        prepare_batch=prepare,
        train_handlers=[ValidationHandler(1, evaluator)],
        decollate=False,
    )
    EarlyStopHandler(patience, lambda engine: engine.state.metrics[metric], trainer).attach(evaluator)
    best: dict[str, Any] = {"value": -float("inf")}

    def keep(engine: Engine) -> None:
        if engine.state.metrics[metric] > best["value"]:
            best.update(value=engine.state.metrics[metric], weights=copy.deepcopy(network.state_dict()))

    evaluator.add_event_handler(Events.COMPLETED, keep)
    sampler: Any = getattr(training, "sampler", None)
    if hasattr(sampler, "set_epoch"):
        trainer.add_event_handler(Events.EPOCH_STARTED, lambda engine: sampler.set_epoch(engine.state.epoch))
    trainer.run()
    network.load_state_dict(best["weights"])
    return float(best["value"])
