"""Evaluation of a checkpoint: every scan is encoded once, and every section reads the same scores."""

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit

from bundle.ctfindings import __version__
from bundle.ctfindings.data.datalist import check_patients, load_datalist
from bundle.ctfindings.evaluation.evaluation_page import write_evaluation_page
from bundle.ctfindings.evaluation.evaluation_run import EvaluationRun, ScoredModel, Section
from bundle.ctfindings.files.atomic_write import write_text
from bundle.ctfindings.files.csv_table import write_table
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.networks.checkpoint import sha256_of


class Evaluation:
    """Scores a split of a datalist from the images alone and evaluates it in sections.

    Writes ``metrics.json``, ``predictions.csv``, ``report.html`` and the figures, and prints a summary.

    Args:
        model: ``EvaluatedModel``, or a model of ``published``.
        datalist: JSON file with the splits.
        sections: parts of the evaluation, in order.
        output_dir: folder of the results; created if missing.
        split: split that is scored.
        calibration_split: split on which calibration and thresholds are fitted.
        resamples: bootstrap resamples of the intervals.
        seed: random seed of the bootstrap.
    """

    def __init__(
        self,
        model: ScoredModel,
        datalist: str | Path,
        sections: Sequence[Section],
        output_dir: str | Path,
        split: str = "test",
        calibration_split: str = "validation",
        resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        self.model, self.datalist, self.sections, self.output_dir = model, Path(datalist), sections, Path(output_dir)
        self.split, self.calibration_split, self.resamples, self.seed = split, calibration_split, resamples, seed

    def run(self) -> dict[str, Any]:
        """Runs the evaluation and returns the content of ``metrics.json``.

        ValueError if a split is missing or has no labels, a study or patient is in both, the checkpoint does not fit,
        or a section fails.
        """
        studies = self._studies()
        self.model.load()
        scores = {name: self.model.score(listed, name) for name, listed in studies.items()}
        scored = scores[self.split]
        bootstrap = Bootstrap(scored.patients, self.resamples, self.seed)
        calibration_split = self.calibration_split if len(studies) > 1 else None
        record: dict[str, Any] = {
            "split": self.split,
            "scans": len(scored.ids),
            "patients": len(set(scored.patients)),
            "bootstrap": bootstrap.settings(),
            "warnings": [],
            "settings": self._settings(calibration_split),
        }
        run = EvaluationRun(
            self.model, self.split, calibration_split, studies, scores, bootstrap, record, expit(scored.logits)
        )
        print("\n".join([*(section(run) for section in self.sections), *record["warnings"]]))
        self._write(run)
        if run.problems:
            raise ValueError("; ".join(run.problems))
        return record

    def _studies(self) -> dict[str, list[dict[str, Any]]]:
        """The studies of each split that is scored, checked before a scan is read."""
        needs_labels = any(section.needs_labels for section in self.sections)
        scored = _read_split(self.datalist, self.split, needs_labels)
        if len({study["patient"] for study in scored}) < 2:
            raise ValueError(
                f"{self.datalist}: split {self.split!r} has scans of one patient; scores and intervals need two or more"
            )
        if not any(section.needs_calibration for section in self.sections):
            return {self.split: scored}
        calibration = _read_split(self.datalist, self.calibration_split, needs_labels=True)
        check_patients(calibration, scored, f"{self.datalist}: {self.calibration_split} and {self.split}")
        return {self.calibration_split: calibration, self.split: scored}

    def _settings(self, calibration_split: str | None) -> dict[str, Any]:
        libraries = {"monai": monai.__version__, "torch": torch.__version__, "numpy": np.__version__}
        return {
            "seed": self.seed,
            "datalist": self.datalist.name,
            "calibration_split": calibration_split,
            "checkpoint": self.model.ckpt_path.name,
            "checkpoint_sha256": sha256_of(self.model.ckpt_path),
            **self.model.settings(),
            "exported_sha256": None,
            "versions": {"ctfindings": __version__, **libraries, "python": platform.python_version()},
        }

    def _write(self, run: EvaluationRun) -> None:
        scored = run.scores[self.split]
        columns = [column for column, name in enumerate(FINDING_NAMES) if name not in self.model.not_scored]
        write_predictions(
            self.output_dir / "predictions.csv",
            scored.ids,
            run.probabilities[:, columns],
            scored.labels[:, columns],
            [FINDING_NAMES[column] for column in columns],
        )
        for write in run.figures:
            write(self.output_dir)
        write_text(self.output_dir / "metrics.json", json.dumps(run.record, indent=2, allow_nan=False) + "\n")
        write_evaluation_page(self.output_dir / "report.html", run.record)


def write_predictions(
    path: Path,
    ids: Sequence[str],
    probabilities: NDArray[np.float64],
    labels: NDArray[np.int64],
    findings: Sequence[str],
) -> None:
    """Writes a CSV file with the columns ``id``, ``<finding> probability`` (six digits) and ``<finding> label``."""
    columns = ["id", *(f"{name} probability" for name in findings), *(f"{name} label" for name in findings)]
    rows = (
        [study, *(f"{value:.6g}" for value in row), *known.tolist()]
        for study, row, known in zip(ids, probabilities, labels, strict=True)
    )
    write_table(path, columns, rows)


def _read_split(datalist: Path, split: str, needs_labels: bool) -> list[dict[str, Any]]:
    studies = load_datalist(datalist, split)
    if needs_labels and not any((study["labels"] >= 0).any() for study in studies):
        problem = f"no study of split {split!r} has labels" if studies else f"split {split!r} has no study"
        remedy = "evaluation calibrates on one split and scores another: give both studies with labels"
        raise ValueError(f"{datalist}: {problem}; {remedy}")
    return studies
