"""The state that the sections of an evaluation share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bundle.ctfindings.evaluation.evaluated_model import EvaluatedModel, SplitScores
from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.published_protocols import ZeroShotScores


class ScoredModel(Protocol):
    """A checkpoint that scores scans: an ``EvaluatedModel`` or a published model.

    Attributes:
        ckpt_path: file with the weights.
        template_ids: ids of the prompt templates.
        not_scored: names of the findings without a score.
    """

    ckpt_path: Path
    template_ids: tuple[str, ...]
    not_scored: tuple[str, ...]

    def load(self) -> None: ...
    def score(self, studies: Sequence[dict[str, Any]], name: str) -> ZeroShotScores: ...
    def settings(self) -> dict[str, Any]: ...


@dataclass
class EvaluationRun:
    """A scored split, and what the sections have found so far.

    Attributes:
        model: the model with its weights.
        split: split that is scored.
        calibration_split: split of the calibration; None if no section needs it.
        studies: studies by split.
        scores: scores by split.
        bootstrap: resamples of the scored studies.
        record: content of ``metrics.json``.
        probabilities: content of ``predictions.csv``, ``[S, C]``.
        figures: write the files of a section into the output folder.
        problems: errors that are raised after everything is written.
    """

    model: ScoredModel
    split: str
    calibration_split: str | None
    studies: dict[str, list[dict[str, Any]]]
    scores: dict[str, ZeroShotScores]
    bootstrap: Bootstrap
    record: dict[str, Any]
    probabilities: NDArray[np.float64]
    figures: list[Callable[[Path], None]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def own_model(self) -> EvaluatedModel:
        """The model, if it is one of this bundle.

        Raises:
            ValueError: it is a published model.
        """
        if not isinstance(self.model, EvaluatedModel):
            raise ValueError("sections: a published model can be evaluated by PublishedProtocol only")
        return self.model

    @property
    def own_scores(self) -> SplitScores:
        """The scores of the split, if the model is one of this bundle."""
        scores = self.scores[self.split]
        assert isinstance(scores, SplitScores)
        return scores


class Section(Protocol):
    """A part of an evaluation. Called with the run, it adds to the record and returns text for the console.

    Attributes:
        needs_labels: whether the scored studies must have labels.
        needs_calibration: whether the studies of the calibration split must be scored.
    """

    needs_labels: bool
    needs_calibration: bool

    def __call__(self, run: EvaluationRun) -> str: ...
