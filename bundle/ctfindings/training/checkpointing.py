"""The state of a run: written atomically after every epoch, and resumed from there."""

import hashlib
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator
from torch.optim.lr_scheduler import OneCycleLR

from bundle.ctfindings.files.atomic_write import atomic_path, remove_partials
from bundle.ctfindings.training.unwrapped import unwrapped

_LENGTH_OF_SCHEDULE = ("total_steps", "_schedule_phases")
"""What ``OneCycleLR`` derives from the number of steps."""


class RunCheckpoint:
    """Keeps ``last.pt``, the whole state after the newest epoch, and ``best.pt``, the model with the best validation.

    Both hold the metrics of all validations so far, ``validations``.

    The last epoch is validated here if the validation interval skips it, so that every run has a best model. Unlike
    MONAI's ``CheckpointSaver`` and ``EarlyStopHandler``, it writes atomically and keeps its count when resumed.

    Args:
        saved: Objects with a state dictionary by name; ``model`` is one of them.
        evaluator: Evaluator whose metric chooses the best model.
        patience: Validations without a better metric after which the run ends; None never ends it early.
        resume: Whether to resume from an existing ``last.pt``.
        primary: Whether this process writes (rank 0).
        metric: Metric that chooses the best model; larger is better.
        begun_with: What the run began with, such as digests of its studies and weights, by name. A run that began with
            others is not resumed.
    """

    def __init__(
        self,
        folder: str | Path,
        saved: Mapping[str, Any],
        evaluator: Evaluator,
        patience: int | None = None,
        resume: bool = True,
        primary: bool = True,
        metric: str = "macro_auc",
        begun_with: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.saved = dict(saved)
        self.resume = resume
        self.primary = primary
        self.patience = patience
        self.best = float("-inf")
        self.waited = 0
        self.validations: list[dict[str, float]] = []
        self.evaluator = evaluator
        self.metric = metric
        self.begun_with = dict(begun_with or {})
        self._validated = 0
        self.logger = logging.getLogger("ctfindings.run")

    def attach(self, engine: Engine) -> None:
        """Registers the handler; attach it last, so that the state of an epoch includes its validation."""
        self._trainer = engine
        self.evaluator.add_event_handler(Events.COMPLETED, self._keep_best)
        engine.add_event_handler(Events.STARTED, self._resume)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._keep_last)
        engine.add_event_handler(Events.COMPLETED, self._warn_without_best)

    def _keep_best(self, engine: Engine) -> None:
        self._validated = self._trainer.state.epoch
        if self.metric not in engine.state.metrics:
            known = ", ".join(sorted(engine.state.metrics))
            raise ValueError(f"selection_metric: the validation has no {self.metric!r}; choose one of {known}")
        value = float(engine.state.metrics[self.metric])
        numbers = {name: float(number) for name, number in engine.state.metrics.items() if np.ndim(number) == 0}
        self.validations.append({"epoch": self._validated, **numbers})
        self.waited += 1
        if value > self.best:
            self.best, self.waited = value, 0
            state = {"model": unwrapped(self.saved["model"]).state_dict(), self.metric: value}
            self._write("best.pt", {**state, "validations": self.validations})
        if self.patience is not None and self.waited >= self.patience:
            self.logger.info("no better %s in %d validations: the run ends", self.metric, self.waited)
            self._trainer.terminate()

    def _keep_last(self, engine: Engine) -> None:
        epoch = engine.state.epoch
        if epoch == engine.state.max_epochs != self._validated and isinstance(self.evaluator, Evaluator):
            self.evaluator.run(epoch)
        state = {name: unwrapped(item).state_dict() for name, item in self.saved.items()}
        state["trainer"] = {"epoch": epoch, "iteration": engine.state.iteration}
        state["best"], state["waited"], state["validations"] = self.best, self.waited, self.validations
        state["scaler"], state["begun_with"] = _scaler_state(engine), self.begun_with
        self._write("last.pt", state)

    def _warn_without_best(self, engine: Engine) -> None:
        if self.primary and not (self.folder / "best.pt").is_file():
            self.logger.warning(
                "%s: has no best.pt, because no study was validated; add studies to the split validation", self.folder
            )

    def _resume(self, engine: Engine) -> None:
        path = self.folder / "last.pt"
        if self.primary:
            for name in ("last.pt", "best.pt"):
                remove_partials(self.folder / name)
        if not self.resume or not path.is_file():
            if self.primary:
                # Of an earlier run: without a validation it would pass for the best of this one.
                best = self.folder / "best.pt"
                if best.is_file():
                    best.replace(self.folder / "best.earlier.pt")
            return
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (UnpicklingError, EOFError, RuntimeError) as error:
            raise ValueError(f"{path}: cannot be read as a checkpoint; remove it to start the run again") from error
        begun_with = state.get("begun_with", {})
        if other := [name for name, value in begun_with.items() if self.begun_with.get(name, value) != value]:
            raise ValueError(
                f"{path}: belongs to a run with other {' and '.join(other)}; "
                "choose another output_dir, or set resume to false"
            )
        try:
            for name, item in self.saved.items():
                planned = {key: vars(item)[key] for key in _LENGTH_OF_SCHEDULE} if isinstance(item, OneCycleLR) else {}
                unwrapped(item).load_state_dict(state[name])
                # The schedule of the saved run ends with the epochs of that run, which may have been raised since.
                vars(item).update(planned)
        except (KeyError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"{path}: belongs to a run with other settings; choose another output_dir, or set resume to false"
            ) from error
        # MONAI's trainer creates a new scaler at the start. A run without amp, or on the CPU, saves no state of it.
        if state.get("scaler") and _scaler_state(engine):
            engine.scaler.load_state_dict(state["scaler"])  # type: ignore[attr-defined]
        engine.state.epoch = state["trainer"]["epoch"]
        engine.state.iteration = state["trainer"]["iteration"]
        self.best, self.waited, self.validations = state["best"], state["waited"], state["validations"]
        folder, epoch = self.folder, engine.state.epoch
        if engine.state.max_epochs is not None and epoch >= engine.state.max_epochs:
            self.logger.info("the run in %s is complete (%d epochs); raise epochs to train on", folder, epoch)
            engine.terminate()
        elif self.patience is not None and self.waited >= self.patience:
            ended = (
                "the run in %s ended after epoch %d, with no better %s in %d validations; raise patience to train on"
            )
            self.logger.info(ended, folder, epoch, self.metric, self.waited)
            engine.terminate()
        else:
            self.logger.info("resuming after epoch %d of %s", epoch, path)

    def _write(self, name: str, state: dict[str, Any]) -> None:
        if self.primary:
            with atomic_path(self.folder / name) as partial:
                torch.save(state, partial)


def studies_digest(studies: Iterable[Mapping[str, Any]]) -> str:
    """SHA-256 of the ids of studies in their order."""
    return hashlib.sha256("\n".join(str(study["id"]) for study in studies).encode()).hexdigest()


def _scaler_state(engine: Engine) -> dict[str, Any]:
    """State of the gradient scaler of mixed precision; empty without one."""
    scaler = getattr(engine, "scaler", None)
    return {} if scaler is None else dict(scaler.state_dict())
