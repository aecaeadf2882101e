"""Downstream tasks on a run, and what they found of each test scan.

Shapes: S scans, F findings.
"""

import csv
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bundle.ctfindings.metrics.classification import FloatArray
from experiments.harness.runs import ROOT, Run, bundle_run

logger = logging.getLogger(__name__)

MASKED = ("Lung nodule", "Pleural effusion", "Consolidation", "Hiatal hernia")
"""Findings with masks on the synthetic scans."""

TASKS = {
    "retrieval": {},
    "detection": {"findings": list(MASKED), "pictures": 1},
    "segmentation": {"classes": list(MASKED), "fractions": [100], "decoder_epochs": 8, "pictures": 1},
}
"""Tasks with their config keys. The decoder of the segmentation is small and has the seed of the run."""

FOUND = 10
"""A scan counts as found if its report is among as many (R@10)."""

RETRIEVED = {"set": "set image_to_text", "global": "global image_to_text"}
"""Columns of the ranks by score."""


def run_tasks(run: Run, datalist: Path, seed: int, resamples: int) -> Path:
    """Runs each task on the last epoch of a run, unless that is done; returns the folder of the tasks.

    Args:
        run: The run.
        datalist: Its scans, or fewer: the segmentation decoder learns from the training split.
        seed: Seed of the decoder.
        resamples: Bootstrap resamples of each task's own page.

    Raises:
        ValueError: A task failed.
    """
    folder = run.folder / "tasks"
    for task, keys in TASKS.items():
        if (folder / task / "metrics.json").is_file():
            continue
        logger.info("%s: %s", run.folder.name, task)
        folder.mkdir(exist_ok=True)
        configs = [str(ROOT / "configs" / "downstream" / f"{name}.json") for name in ("task", task)]
        of_task = {
            "datalist": str(datalist),
            "ckpt_path": str(run.checkpoint),
            "task_dir": str(folder / task),
            "resamples": resamples,
            **({"subset_seeds": [seed]} if task == "segmentation" else {}),
        }
        bundle_run([*run.configs, *configs], {**run.keys, **keys, **of_task}, folder / f"{task}.log")
    return folder


def retrieved(folder: Path, ids: Sequence[str], score: str) -> FloatArray:
    """Whether the report of each scan is among the first ``FOUND``, ``[S, 1]``; NaN if the model has no such score."""
    found = {
        row["id"]: float(int(row[RETRIEVED[score]]) <= FOUND)
        for row in _rows(folder / "retrieval" / "predictions.csv")
        if RETRIEVED[score] in row
    }
    return np.array([[found.get(name, np.nan)] for name in ids])


def pointed(folder: Path, ids: Sequence[str], heat_map: str, column: str = "pointing") -> FloatArray:
    """Whether the peak of a map hits a lesion, ``[S, F]``; NaN without a lesion, or if the model has no such map.

    Args:
        folder: Folder of the tasks.
        ids: Test scans.
        heat_map: ``field``, ``answer`` or ``attention``.
        column: ``pointing``, or one of its controls.
    """
    rows = [row for row in _rows(folder / "detection" / "pointing.csv") if row["map"] == heat_map]
    return _by_scan({(row["id"], row["finding"]): row[column] for row in rows}, ids)


def dice(folder: Path, ids: Sequence[str]) -> FloatArray:
    """Dice of each finding with a mask, ``[S, F]``; NaN where the scan has none."""
    rows = _rows(folder / "segmentation" / "predictions_100.csv")
    return _by_scan({(row["id"], row["class"]): row["dice"] or "nan" for row in rows}, ids)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _by_scan(cells: dict[tuple[str, str], str], ids: Sequence[str]) -> FloatArray:
    return np.array([[float(cells.get((name, finding), "nan")) for finding in MASKED] for name in ids])
