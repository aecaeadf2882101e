"""The state that the sections of an evaluation share."""

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
    """A checkpoint that scores scans: an ``EvaluatedModel`` or a published model."""

    ckpt_path: Path  # File with the weights
    template_ids: tuple[str, ...]  # Ids of the prompt templates
    not_scored: tuple[str, ...]  # Names of the findings without a score

    def load(self) -> None: ...
    def score(self, studies: Sequence[dict[str, Any]], name: str) -> ZeroShotScores: ...
    def settings(self) -> dict[str, Any]: ...


@dataclass
class EvaluationRun:
    """A scored split, and what the sections have found so far."""

    model: ScoredModel
    split: str
    calibration_split: str | None  # None if no section needs it
    studies: dict[str, list[dict[str, Any]]]  # By split
    scores: dict[str, ZeroShotScores]  # By split
    bootstrap: Bootstrap  # Of the scored studies
    record: dict[str, Any]  # Content of ``metrics.json``
    probabilities: NDArray[np.float64]  # Content of ``predictions.csv``, [S, C]
    # Functions that write the files of a section into the output folder
    figures: list[Callable[[Path], None]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # Errors that are raised after everything is written

    @property
    def own_model(self) -> EvaluatedModel:
        """The model, if it is one of this bundle. ValueError if it is a published model."""
        if not isinstance(self.model, EvaluatedModel):
            raise ValueError("sections: a published model can be evaluated by PublishedProtocol only")
        return self.model

    @property
    def own_scores(self) -> SplitScores:
        """The scores of the split, if the model is one of this bundle."""
        return self.own_scores_of(self.split)

    def own_scores_of(self, split: str) -> SplitScores:
        """The scores of one of the splits, if the model is one of this bundle."""
        scores = self.scores[split]
        assert isinstance(scores, SplitScores)
        return scores


class Section(Protocol):
    """A part of an evaluation. Called with the run, it adds to the record and returns text for the console."""

    needs_labels: bool  # Whether the scored studies must have labels
    needs_calibration: bool  # Whether the studies of the calibration split must be scored

    def __call__(self, run: EvaluationRun) -> str: ...
