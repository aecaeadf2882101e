"""The training that keeps the best weights, on a network of one weight."""

from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator
from torch import nn

from bundle.ctfindings.downstream.best_training import BestTraining


def run(network: nn.Linear, values: list[float]) -> tuple[float, list[float]]:
    """The best of these values of the metric, and the weight at each validation."""
    batch = {"image": torch.ones(2, 1), "label": torch.zeros(2, 1)}
    evaluator = SupervisedEvaluator(torch.device("cpu"), [batch], network)
    weights: list[float] = []

    def score(engine: Engine) -> None:
        engine.state.metrics["dice"] = values[len(weights)]
        weights.append(network.weight.item())

    evaluator.add_event_handler(Events.EPOCH_COMPLETED, score)
    groups: list[dict[str, Any]] = [{"params": network.parameters(), "lr": 0.1}]
    training = BestTraining(epochs=len(values), steps=1, patience=9, batch_size=2, learning_rate=0.1)
    return training.run(evaluator, groups, [batch], nn.MSELoss(), "dice"), weights


def test_the_weights_of_the_best_validation_are_left_in_the_network() -> None:
    network = nn.Linear(1, 1)
    best, weights = run(network, [float("nan"), 0.2, 0.1])
    assert best == 0.2 and network.weight.item() == weights[1]
    assert len(set(weights)) == 3


def test_a_metric_that_is_never_a_number_stops_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"dice is not a number at any validation; lower the learning rate \(0\.1\)"):
        run(nn.Linear(1, 1), [float("nan")] * 2)
