"""Training of a small network with Ignite engines, which keeps the weights with the best validation."""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import EarlyStopHandler, ValidationHandler


@dataclass(frozen=True)
class BestTraining:
    """Trains a decoder with AdamW until a metric stops rising.

    Args:
        epochs: Largest number of validations.
        steps: Steps between two validations, at every fraction of the labels.
        patience: Validations without a better metric before training stops.
        batch_size: Scans of a step.
        learning_rate: Learning rate of the decoder.
    """

    epochs: int
    steps: int
    patience: int
    batch_size: int
    learning_rate: float

    def run(
        self,
        evaluator: SupervisedEvaluator,
        parameters: Sequence[dict[str, Any]],
        training: Iterable[Any],
        loss: Callable[..., torch.Tensor],
        metric: str,
    ) -> float:
        """Trains the network of an evaluator, and leaves the weights that were best in it.

        Args:
            evaluator: Evaluator of the validation split; its state gets the metric.
            parameters: Parameter groups of AdamW with their learning rates; other parameters are not trained.
            training: Loader of batches, which the ``prepare_batch`` of the evaluator reads too.
            loss: Function of predictions and targets.
            metric: Name of the metric; higher is better.

        Returns:
            The best value of the metric.

        Raises:
            ValueError: the metric was not defined at any validation.
        """
        network = evaluator.network
        trainer = SupervisedTrainer(
            device=evaluator.state.device,
            max_epochs=self.epochs,
            epoch_length=self.steps,
            train_data_loader=training,
            network=network,
            optimizer=torch.optim.AdamW(parameters),
            loss_function=loss,
            prepare_batch=evaluator.prepare_batch,
            train_handlers=[ValidationHandler(1, evaluator)],
            decollate=False,
        )
        EarlyStopHandler(self.patience, lambda engine: engine.state.metrics[metric], trainer).attach(evaluator)
        best: dict[str, Any] = {"value": -float("inf")}

        def keep(engine: Engine) -> None:
            if engine.state.metrics[metric] > best["value"]:
                best.update(value=engine.state.metrics[metric], weights=copy.deepcopy(network.state_dict()))

        evaluator.add_event_handler(Events.COMPLETED, keep)
        sampler: Any = getattr(training, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            trainer.add_event_handler(Events.EPOCH_STARTED, lambda engine: sampler.set_epoch(engine.state.epoch))
        trainer.run()
        if "weights" not in best:
            rate = f"lower the learning rate ({self.learning_rate:g})"
            raise ValueError(f"training: {metric} is not a number at any validation; {rate}")
        network.load_state_dict(best["weights"])
        return float(best["value"])
