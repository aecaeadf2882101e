"""The state of a run: written after every epoch, whole or not at all, and taken up again where it stopped."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator
from torch.optim.lr_scheduler import OneCycleLR

_LENGTH_OF_SCHEDULE = ("total_steps", "_schedule_phases")
"""What ``OneCycleLR`` makes of the number of steps; the rate of a step follows from it."""


class RunCheckpoint:
    """Keeps ``last.pt``, the whole state after the newest epoch, and ``best.pt``, the model at its best validation.

    The last epoch is validated here where the interval of validation left it out, so that a run of one epoch has a best
    model as well.

    MONAI's ``CheckpointSaver`` writes in place, so that a run killed while it writes loses its newest state, and its
    ``EarlyStopHandler`` forgets its count when a run is resumed; here both are part of the state.

    Args:
        folder: of the run.
        saved: objects with a state dictionary; ``model`` is one of them.
        evaluator: its metric chooses the best model.
        metric: name of that metric; larger is better.
        patience: validations without a better metric after which the run ends; None never ends it early.
        resume: whether to go on from ``last.pt`` when it is there.
        primary: whether this process writes (rank 0).
    """

    def __init__(
        self,
        folder: str | Path,
        saved: Mapping[str, Any],
        evaluator: Evaluator,
        metric: str = "macro_auc",
        patience: int | None = None,
        resume: bool = True,
        primary: bool = True,
    ) -> None:
        self.folder = Path(folder)
        self.saved = dict(saved)
        self.metric = metric
        self.resume = resume
        self.primary = primary
        self.patience = patience
        self.best = float("-inf")
        self.waited = 0
        self.evaluator = evaluator
        self._validated = 0
        self._trainer: Engine | None = None
        self.logger = logging.getLogger("ctfindings.run")
        evaluator.add_event_handler(Events.COMPLETED, self._keep_best)

    def attach(self, engine: Engine) -> None:
        """Registers the handler with the trainer; attach it last, so that validation of an epoch belongs to its state."""
        self._trainer = engine
        engine.add_event_handler(Events.STARTED, self._take_up)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._keep_last)
        engine.add_event_handler(Events.COMPLETED, self._say_what_lacks)

    def _keep_best(self, engine: Engine) -> None:
        if self._trainer is not None:
            self._validated = self._trainer.state.epoch
        value = float(engine.state.metrics[self.metric])
        self.waited += 1
        if value > self.best:
            self.best, self.waited = value, 0
            self._write("best.pt", {"model": _model_state(self.saved["model"]), self.metric: value})
        if self.patience is not None and self.waited >= self.patience and self._trainer is not None:
            self.logger.info("no better %s in %d validations: the run ends", self.metric, self.waited)
            self._trainer.terminate()

    def _keep_last(self, engine: Engine) -> None:
        if (
            engine.state.epoch == engine.state.max_epochs
            and self._validated != engine.state.epoch
            and isinstance(self.evaluator, Evaluator)
        ):
            self.evaluator.run(engine.state.epoch)
        state = {name: item.state_dict() for name, item in self.saved.items() if name != "model"}
        state["model"] = _model_state(self.saved["model"])
        state["trainer"] = {"epoch": engine.state.epoch, "iteration": engine.state.iteration}
        state["best"], state["waited"] = self.best, self.waited
        state["scaler"] = _scaler_state(engine)
        self._write("last.pt", state)

    def _say_what_lacks(self, engine: Engine) -> None:
        if self.primary and not (self.folder / "best.pt").is_file():
            self.logger.warning(
                "%s: has no best.pt, because no study was validated; add studies to the split validation", self.folder
            )

    def _take_up(self, engine: Engine) -> None:
        path = self.folder / "last.pt"
        if not self.resume or not path.is_file():
            return
        state = torch.load(path, map_location="cpu", weights_only=True)
        try:
            for name, item in self.saved.items():
                planned = {key: vars(item)[key] for key in _LENGTH_OF_SCHEDULE} if isinstance(item, OneCycleLR) else {}
                (getattr(item, "module", item) if name == "model" else item).load_state_dict(state[name])
                # The schedule of the saved run would end with that run's epochs, which may have been raised since.
                vars(item).update(planned)
        except (KeyError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"{path}: belongs to a run with other settings or of an older version; choose another output_dir, or set resume to false"
            ) from error
        # MONAI's trainer makes its scaler anew when it starts. A run without amp, or on the CPU, has left no state of
        # one.
        if state.get("scaler") and _scaler_state(engine):
            engine.scaler.load_state_dict(state["scaler"])  # type: ignore[attr-defined]
        engine.state.epoch = state["trainer"]["epoch"]
        engine.state.iteration = state["trainer"]["iteration"]
        self.best, self.waited = state["best"], state["waited"]
        if engine.state.max_epochs is not None and engine.state.epoch >= engine.state.max_epochs:
            self.logger.info(
                "the run in %s is complete (%d epochs); raise epochs to train on", self.folder, engine.state.epoch
            )
            engine.terminate()
        elif self.patience is not None and self.waited >= self.patience:
            self.logger.info(
                "the run in %s ended after epoch %d, with no better %s in %d validations; raise patience to train on",
                self.folder,
                engine.state.epoch,
                self.metric,
                self.waited,
            )
            engine.terminate()
        else:
            self.logger.info("going on from epoch %d of %s", engine.state.epoch, path)

    def _write(self, name: str, state: dict[str, Any]) -> None:
        if not self.primary:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f".{name}.partial"
        torch.save(state, partial)
        partial.replace(self.folder / name)


def _scaler_state(engine: Engine) -> dict[str, Any]:
    """State of the scaler of gradients in mixed precision; empty where there is none, or it is off."""
    scaler = getattr(engine, "scaler", None)
    return {} if scaler is None else dict(scaler.state_dict())


def _model_state(model: Any) -> dict[str, torch.Tensor]:
    return getattr(model, "module", model).state_dict()
