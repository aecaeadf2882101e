"""The state of a run: a stopped and resumed run is the run that was never stopped."""

from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from bundle.ctfindings.training.checkpointing import RunCheckpoint, studies_digest
from bundle.ctfindings.training.parameter_groups import parameter_groups


class Run:
    """A small training with noise in its data, so that a lost random state or optimizer shows."""

    def __init__(self, folder: Path, metrics: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8), **options: object) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(3, 1)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)
        self.losses: list[float] = []
        self.evaluator = Engine(lambda engine, batch: None)
        self.trainer = Engine(self.step)
        self.evaluator.add_event_handler(
            Events.COMPLETED,
            lambda engine: engine.state.metrics.update(macro_auc=metrics[self.trainer.state.epoch - 1]),
        )
        self.trainer.add_event_handler(Events.EPOCH_STARTED, lambda engine: torch.manual_seed(engine.state.epoch))
        self.trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: self.evaluator.run([0]))
        saved = {"model": self.model, "optimizer": self.optimizer}
        self.checkpoint = RunCheckpoint(folder, saved, self.evaluator, **options)  # type: ignore[arg-type]
        self.checkpoint.attach(self.trainer)

    def step(self, engine: Engine, batch: int) -> None:
        loss = (self.model(torch.rand(8, 3)) - 1).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.item())

    def run(self, epochs: int) -> list[float]:
        self.trainer.run(range(3), max_epochs=epochs)
        return self.losses


def test_resumed_losses_equal_those_of_a_run_that_was_not_stopped(tmp_path: Path) -> None:
    whole = Run(tmp_path / "whole").run(4)
    first = Run(tmp_path / "parts").run(2)
    second = Run(tmp_path / "parts").run(4)
    assert first + second == whole


def test_a_run_that_began_with_other_studies_or_weights_is_not_resumed(tmp_path: Path) -> None:
    begun = {"studies": studies_digest([{"id": "a"}, {"id": "b"}]), "init_ckpt": "1"}
    Run(tmp_path, begun_with=begun).run(1)
    Run(tmp_path, begun_with=begun).run(2)
    for name, value in (("studies", studies_digest([{"id": "ab"}])), ("init_ckpt", "2")):
        with pytest.raises(ValueError, match=rf"last\.pt: belongs to a run with other {name}; choose another"):
            Run(tmp_path, begun_with={**begun, name: value}).run(3)
    Run(tmp_path, begun_with={**begun, "init_ckpt": "2"}, resume=False).run(1)


def test_a_run_that_begins_anew_has_no_best_model_of_an_earlier_one(tmp_path: Path) -> None:
    Run(tmp_path).run(1)
    again = Run(tmp_path, resume=False)
    again.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=1), lambda: seen.append(list(tmp_path.iterdir())))
    seen: list[list[Path]] = []
    again.run(1)
    assert {path.name for path in seen[0]} == {"last.pt", "best.earlier.pt"} and (tmp_path / "best.pt").is_file()


def test_both_checkpoints_hold_all_validations_also_after_resuming(tmp_path: Path) -> None:
    metrics = (0.5, 0.9, 0.7, 0.8)
    Run(tmp_path, metrics).run(2)
    Run(tmp_path, metrics).run(4)
    best, last = (torch.load(tmp_path / name, weights_only=True)["validations"] for name in ("best.pt", "last.pt"))
    assert last == [{"epoch": epoch, "macro_auc": value} for epoch, value in enumerate(metrics, 1)] and best == last[:2]


def test_a_metric_that_the_validation_lacks_is_refused_with_those_that_it_has(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="selection_metric: the validation has no 'auc'; choose one of macro_auc"):
        Run(tmp_path, metric="auc").run(1)


def test_a_complete_run_is_not_trained_again(tmp_path: Path) -> None:
    Run(tmp_path).run(2)
    again = Run(tmp_path)
    before = again.model.weight.detach().clone()
    assert again.run(2) == []
    assert not torch.equal(again.model.weight, before), "the trained weights are loaded"


def test_best_model_is_that_of_the_best_validation_also_after_resuming(tmp_path: Path) -> None:
    metrics = (0.5, 0.9, 0.7, 0.8)
    Run(tmp_path, metrics).run(2)
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    Run(tmp_path, metrics).run(4)
    after = torch.load(tmp_path / "best.pt", weights_only=True)
    assert after["macro_auc"] == best["macro_auc"] == 0.9
    assert torch.equal(after["model"]["weight"], best["model"]["weight"])


def test_patience_ends_the_run_and_is_counted_across_a_stop(tmp_path: Path) -> None:
    metrics = (0.9, 0.5, 0.5, 0.5)
    Run(tmp_path, metrics, patience=2).run(2)
    resumed = Run(tmp_path, metrics, patience=2)
    resumed.run(4)
    assert resumed.trainer.state.epoch == 3


def test_a_run_that_patience_ended_trains_on_only_when_patience_is_raised(tmp_path: Path) -> None:
    metrics = (0.9, 0.5, 0.5, 0.5)
    Run(tmp_path, metrics, patience=2).run(4)
    again = Run(tmp_path, metrics, patience=2)
    assert again.run(4) == [] and again.trainer.state.epoch == 3
    patient = Run(tmp_path, metrics, patience=3)
    assert len(patient.run(4)) == 3 and patient.trainer.state.epoch == 4


class ScaledRun(Run):
    """The same with a scaler of gradients, made when the run starts as MONAI's trainer does, whose scale grows every
    fourth step.
    """

    def run(self, epochs: int) -> list[float]:
        self.trainer.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=4)  # type: ignore[attr-defined]
        return super().run(epochs)

    def step(self, engine: Engine, batch: int) -> None:
        scaler = self.trainer.scaler  # type: ignore[attr-defined]
        loss = (self.model(torch.rand(8, 3)) - 1).square().mean()
        self.optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(self.optimizer)
        scaler.update()
        self.losses.append(scaler.get_scale())


def test_the_scale_of_gradients_in_mixed_precision_goes_on_where_it_was(tmp_path: Path) -> None:
    whole = ScaledRun(tmp_path / "whole").run(4)
    assert whole == [8.0] * 3 + [16.0] * 4 + [32.0] * 4 + [64.0]
    first = ScaledRun(tmp_path / "parts").run(2)
    assert first + ScaledRun(tmp_path / "parts").run(4) == whole


def test_a_run_without_mixed_precision_can_go_on_with_it(tmp_path: Path) -> None:
    Run(tmp_path).run(1)
    assert ScaledRun(tmp_path).run(2) == [8.0] * 3


def test_state_of_another_network_is_refused_by_file(tmp_path: Path) -> None:
    Run(tmp_path).run(1)
    other = Run(tmp_path)
    other.checkpoint.saved["model"] = nn.Linear(4, 1)
    with pytest.raises(ValueError, match=r"last\.pt: belongs to a run with other settings"):
        other.run(2)


class Hostile:
    """Runs a function when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code of the file was run')",)


@pytest.mark.parametrize("damage", ["truncated", "empty", "hostile"])
def test_a_state_that_cannot_be_read_is_refused_by_file_and_runs_no_code(tmp_path: Path, damage: str) -> None:
    Run(tmp_path).run(1)
    last = tmp_path / "last.pt"
    if damage == "hostile":
        torch.save({"model": Hostile()}, last)
    else:
        last.write_bytes(last.read_bytes()[: 300 if damage == "truncated" else 0])
    with pytest.raises(ValueError, match=r"last\.pt: cannot be read as a checkpoint; remove it"):
        Run(tmp_path).run(2)


def test_an_optimizer_of_an_older_grouping_is_refused_by_file(tmp_path: Path) -> None:
    Run(tmp_path).run(1)
    other = Run(tmp_path)
    other.checkpoint.saved["optimizer"] = torch.optim.AdamW(parameter_groups(other.model, torch.nn.Identity()), lr=0.1)
    with pytest.raises(ValueError, match=r"last\.pt: belongs to a run with other settings"):
        other.run(2)


def test_an_interrupted_write_leaves_the_older_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Run(tmp_path).run(1)
    kept = (tmp_path / "last.pt").read_bytes()

    def full_disk(state: object, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="no space"):
        Run(tmp_path).run(2)
    assert (tmp_path / "last.pt").read_bytes() == kept


def test_a_complete_run_trains_on_when_epochs_are_raised_by_the_longer_schedule(tmp_path: Path) -> None:
    def run(epochs: int) -> tuple[int, float]:
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=3 * epochs + 1)
        evaluator, trainer = (
            Engine(lambda engine, batch: None),
            Engine(lambda engine, batch: (optimizer.step(), schedule.step())),
        )
        evaluator.add_event_handler(Events.COMPLETED, lambda engine: engine.state.metrics.update(macro_auc=0.5))
        RunCheckpoint(tmp_path, {"model": model, "optimizer": optimizer, "lr_scheduler": schedule}, evaluator).attach(
            trainer
        )
        trainer.run(range(3), max_epochs=epochs)
        return trainer.state.epoch, schedule.get_last_lr()[0]

    assert run(2)[0] == 2
    whole = torch.optim.lr_scheduler.OneCycleLR(
        torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0), max_lr=1.0, total_steps=13
    )
    for _ in range(12):
        whole.optimizer.step()
        whole.step()
    epoch, rate = run(4)
    assert epoch == 4 and rate == pytest.approx(whole.get_last_lr()[0], rel=1e-6)
