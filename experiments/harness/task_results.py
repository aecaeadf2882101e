"""Downstream tasks of an experiment: one is run on a checkpoint, and what it found of each test scan is read.

Shapes: R resamples, S scans, C classes.
"""

import csv
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bundle.ctfindings.metrics.classification import FloatArray, IntArray
from bundle.ctfindings.reports.captions import read_report
from experiments.harness.runs import ROOT, bundle_run

logger = logging.getLogger(__name__)

MASKED = ("Lung nodule", "Pleural effusion", "Consolidation", "Hiatal hernia")
"""Findings with masks on the synthetic scans."""

FOUND = 10
"""A scan counts as found if its report is among as many (R@10)."""


def run_task(task: str, configs: Sequence[str], keys: Mapping[str, Any], folder: Path) -> None:
    """Runs a downstream task with its results in ``folder/<task>``, unless that is done.

    Args:
        task: Name of its config in ``configs/downstream``.
        configs: Config files of the network; those of the task follow them.
        keys: Config keys over all of them: the checkpoint, the datalist, and those of the task.
        folder: Folder of the tasks.

    Raises:
        ValueError: The task failed.
    """
    if (folder / task / "metrics.json").is_file():
        return
    logger.info("%s: %s", folder, task)
    folder.mkdir(parents=True, exist_ok=True)
    of_task = [str(ROOT / "configs" / "downstream" / f"{name}.json") for name in ("task", task)]
    bundle_run([*configs, *of_task], {**keys, "task_dir": str(folder / task)}, folder / f"{task}.log")


def probed(folder: Path, ids: Sequence[str], percent: float) -> list[tuple[FloatArray, IntArray]]:
    """Probabilities and labels of the probes at a fraction of the labels, both ``[S, C]``, of each draw of the labels.

    Raises:
        FileNotFoundError: The task was not run.
    """
    paths = sorted((folder / "classification").glob(f"predictions_{percent:g}_*.csv"))
    if not paths:
        raise FileNotFoundError(f"{folder / 'classification'}: no predictions at {percent:g} %")
    return [_probabilities(path, ids) for path in paths]


def _probabilities(path: Path, ids: Sequence[str]) -> tuple[FloatArray, IntArray]:
    rows = {row["id"]: row for row in _rows(path)}
    columns = next(iter(rows.values()))
    kinds = [[name for name in columns if name.endswith(f" {kind}")] for kind in ("probability", "label")]
    values, labels = (np.array([[float(rows[key][name]) for name in names] for key in ids]) for names in kinds)
    return values, labels.astype(np.int64)


def retrieved(folder: Path, ids: Sequence[str], score: str) -> FloatArray:
    """Whether the report of each scan is among the first ``FOUND``, ``[S, 1]``; NaN if the model has no such score.

    Args:
        folder: Folder of the tasks.
        ids: Test scans.
        score: ``set`` or ``global``.
    """
    column = f"{score} image_to_text"
    rows = _rows(folder / "retrieval" / "predictions.csv")
    found = {row["id"]: float(int(row[column]) <= FOUND) for row in rows if column in row}
    return np.array([[found.get(name, np.nan)] for name in ids])


def pointed(folder: Path, ids: Sequence[str], heat_map: str, column: str = "pointing") -> FloatArray:
    """Whether the peak of a map hits a lesion, ``[S, C]``; NaN without a lesion, or if the model has no such map.

    Args:
        folder: Folder of the tasks.
        ids: Test scans.
        heat_map: ``field``, ``answer`` or ``attention``.
        column: ``pointing``, or one of its controls.
    """
    rows = [row for row in _rows(folder / "detection" / "pointing.csv") if row["map"] == heat_map]
    return _by_scan({(row["id"], row["finding"]): row[column] for row in rows}, ids)


def dice(folder: Path, ids: Sequence[str], percent: float = 100) -> FloatArray:
    """Dice of each finding with a mask, ``[S, C]``; NaN where the scan has none."""
    rows = _rows(folder / "segmentation" / f"predictions_{percent:g}.csv")
    return _by_scan({(row["id"], row["class"]): row["dice"] or "nan" for row in rows}, ids)


def stated(folder: Path, ids: Sequence[str], method: str, percent: float) -> IntArray:
    """Labels that the report reader finds in the generated reports, ``[S, C]``; the findings are in their order.

    Raises:
        KeyError: A scan has no report.
    """
    rows = _rows(folder / "report_generation" / f"reports_{method}_{percent:g}.csv")
    texts = {row["id"]: row["generated"] for row in rows}
    return np.array([read_report(texts[key]).labels for key in ids])


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _by_scan(cells: dict[tuple[str, str], str], ids: Sequence[str]) -> FloatArray:
    return np.array([[float(cells.get((name, finding), "nan")) for finding in MASKED] for name in ids])
