"""Handlers of training: epochs draw by their number, macro AUC ignores what cannot be scored.

Run as a program, this file is one of the two processes of its own test.
"""

import logging
import math
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.transforms import Compose, RandShiftIntensity
from sklearn.metrics import roc_auc_score

from bundle.ctfindings.networks.image.standardization import RunningStandardization
from bundle.ctfindings.training.handlers import EpochSeed, FreezeStandardization, LossLog, MacroAuc
from tests.commands import run_in_ranks

ROOT = Path(__file__).parents[2]


def draws(seed: int, rank: int = 0, start: int = 0) -> list[tuple[float, float]]:
    """What torch and a transform draw in the epochs 1 to 3 of a run that starts after an epoch."""
    transform = Compose([RandShiftIntensity(offsets=1.0, prob=1.0)])
    seen: list[tuple[float, float]] = []
    engine = Engine(
        lambda engine, batch: seen.append((torch.rand(1).item(), float(transform(torch.zeros(1, 2))[0, 0])))
    )
    EpochSeed(seed, sampler=None, transform=transform, rank=rank).attach(engine)
    engine.add_event_handler(Events.STARTED, lambda: setattr(engine.state, "epoch", start))
    engine.run([0], max_epochs=3, epoch_length=1)
    return seen


@pytest.mark.parametrize(("start", "warned"), [(0, True), (1, False)])
def test_objectives_that_took_no_part_are_named_after_the_first_epoch(
    start: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    loss: Any = SimpleNamespace(weights={"used": 1.0, "idle": 0.5, "absent": 1.0, "off": 0.0}, last={})
    engine = Engine(lambda engine, batch: loss.last.update(used=torch.tensor(batch), idle=torch.tensor(0.0)))
    LossLog(loss).attach(engine)
    engine.add_event_handler(Events.STARTED, lambda: setattr(engine.state, "epoch", start))
    with caplog.at_level(logging.WARNING, logger="ctfindings.losses"):
        engine.run([0.0, 0.3], max_epochs=3)
    assert [record.message.split(";")[0] for record in caplog.records] == (
        ["took no part in the first epoch: idle, absent"] if warned else []
    )


def test_an_epoch_draws_the_same_whether_or_not_the_run_was_stopped_before_it() -> None:
    whole = draws(seed=5)
    assert draws(seed=5, start=1) == whole[1:]
    assert len(set(whole)) == 3


def test_seeds_and_ranks_draw_differently() -> None:
    assert draws(seed=5)[0] != draws(seed=6)[0]
    assert draws(seed=5)[0] != draws(seed=5, rank=1)[0]


def macro_of(logits: torch.Tensor, labels: torch.Tensor) -> float:
    metric = MacroAuc()
    engine = Engine(lambda engine, batch: {"pred": {"logits": batch[0]}, "label": {"labels": batch[1]}})
    metric.attach(engine, "macro_auc")
    engine.run(list(zip(logits.split(3), labels.split(3), strict=True)))
    return engine.state.metrics["macro_auc"]


def test_macro_auc_is_the_mean_over_the_findings_of_all_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(12, 2, generator=generator)
    labels = (torch.rand(12, 2, generator=generator) < 0.5).long()
    expected = sum(roc_auc_score(labels[:, c], logits[:, c]) for c in range(2)) / 2
    assert macro_of(logits, labels) == pytest.approx(expected, abs=1e-6)


def test_a_finding_with_one_class_and_unknown_labels_are_left_out() -> None:
    logits = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0], [-5.0, 3.0]])
    labels = torch.tensor([[0, 1], [1, 1], [1, 1], [-1, 1]])
    assert macro_of(logits, labels) == 1.0


def test_macro_auc_is_a_half_when_nothing_can_be_scored_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    value = macro_of(torch.zeros(3, 2), torch.tensor([[1, 0], [1, -1], [1, 0]]))
    assert value == 0.5 and not math.isnan(value)
    assert "macro_auc is undefined" in caplog.text
    caplog.clear()
    macro_of(torch.zeros(3, 2), torch.tensor([[1, 0], [1, 1], [1, 0]]))
    assert not caplog.text


@pytest.mark.parametrize("start", [0, 2])
def test_statistics_of_rows_stay_as_they_are_after_their_epochs_also_in_a_resumed_run(start: int) -> None:
    standardize = RunningStandardization(rows=1, features=1).train()
    seen: list[float] = []

    def step(engine: Engine, batch: float) -> None:
        standardize(torch.tensor([[[float(engine.state.epoch)]]]), torch.ones(1, 1, dtype=torch.bool))
        seen.append(standardize.mean.item())

    engine = Engine(step)
    FreezeStandardization(standardize, epochs=2).attach(engine)
    engine.add_event_handler(Events.STARTED, lambda: setattr(engine.state, "epoch", start))
    engine.run([0], max_epochs=4, epoch_length=1)
    # Means of the first batches are averaged: 1, then (1 + 2) / 2. A run that begins in epoch 3 never changes them.
    assert seen == ([1.0, 1.5, 1.5, 1.5] if start == 0 else [0.0, 0.0])


def test_frozen_rows_pass_the_whole_gradient() -> None:
    standardize = RunningStandardization(rows=1, features=1).train()
    standardize.frozen = True
    rows = torch.tensor([[[1.0]], [[2.0]]], requires_grad=True)
    standardize(rows, torch.ones(2, 1, dtype=torch.bool)).sum().backward()
    assert rows.grad is not None and rows.grad.flatten().tolist() == pytest.approx([1.0, 1.0], rel=1e-4)


SHARES = {0: slice(0, 5), 1: slice(5, 7)}


def split_of_seven() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(7, 2, generator=generator), torch.tensor(
        [[0, 1], [1, 0], [1, 1], [0, 0], [1, 0], [0, 1], [1, 1]]
    )


def rank_main(rank: int, folder: Path) -> None:
    """One of the two processes, with its share of the studies; each writes what it found."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    logits, labels = split_of_seven()
    (folder / f"found{rank}").write_text(repr(macro_of(logits[SHARES[rank]], labels[SHARES[rank]])))
    dist.destroy_process_group()


def test_macro_auc_is_of_all_studies_where_ranks_hold_different_numbers_of_them(tmp_path: Path) -> None:
    run_in_ranks([__file__, tmp_path], 2)
    logits, labels = split_of_seven()
    expected = sum(roc_auc_score(labels[:, c], logits[:, c]) for c in range(2)) / 2
    assert [float((tmp_path / f"found{rank}").read_text()) for rank in range(2)] == pytest.approx(
        [expected, expected], abs=1e-6
    )


if __name__ == "__main__":
    rank_main(int(os.environ["RANK"]), Path(sys.argv[1]))
