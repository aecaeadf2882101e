"""A run of the experiment: a training on one datalist, and the scores of its last epoch on the test scans of another.

Shapes: S scans, C findings, K anatomies, E embedding.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from monai.bundle import ConfigParser
from numpy.typing import NDArray

from bundle.ctfindings.data.datalist import load_datalist
from bundle.ctfindings.evaluation.evaluated_model import EvaluatedModel
from bundle.ctfindings.files.atomic_write import atomic_path
from experiments.harness.runs import ROOT, Variant, train_variant

SCORES_FILE = "scores.npz"


@dataclass(frozen=True)
class Scores:
    """What a model says of the test scans."""

    patients: NDArray[np.str_]  # S
    labels: NDArray[np.int64]  # 1, 0 or -1, [S, C]
    logits: NDArray[np.float64]  # of the mean of the templates, [S, C]
    anatomy: NDArray[np.float64]  # unit image rows, [S, K, E]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads the file of ``scored_run``."""
        with np.load(path, allow_pickle=False) as archive:
            return cls(**{field.name: archive[field.name] for field in fields(cls)})


def scored_run(
    variant: Variant, seed: int, trained_on: Path, scored_on: Path, folder: Path, keys: Mapping[str, Any]
) -> Scores:
    """Trains a variant and scores the test split with the last epoch, unless that is done.

    Raises:
        ValueError: The folder of the run contains a run with other settings, or the training failed.
    """
    run = train_variant(variant, seed, trained_on, folder, keys)
    path = run.folder / SCORES_FILE
    if not path.is_file():
        parser = ConfigParser()
        parser.read_config([*run.configs, str(ROOT / "configs" / "evaluate.json")])
        parser.update({**run.keys, "ckpt_path": str(run.checkpoint)})
        model: EvaluatedModel = parser.get_parsed_content("evaluated_model")
        model.load()
        scores = model.score(load_datalist(scored_on, "test"), f"scoring {run.folder.name}")
        with atomic_path(path) as temporary:
            np.savez_compressed(
                temporary,
                patients=np.asarray(scores.patients, dtype=str),
                labels=scores.labels,
                logits=scores.logits,
                anatomy=scores.anatomy,
            )
    return Scores.load(path)
