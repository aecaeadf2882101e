"""Downstream tasks of the comparison: those for which the parts of PLACE are meant."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.harness.runs import Run, claim_run, split_digests
from experiments.harness.task_results import MASKED, run_task

TASKS: dict[str, dict[str, Any]] = {
    "retrieval": {},
    "detection": {"findings": list(MASKED), "pictures": 1},
    "segmentation": {"classes": list(MASKED), "fractions": [100], "decoder_epochs": 8, "pictures": 1},
}
"""Tasks with their config keys. The decoder of the segmentation is small and has the seed of the run."""


def run_tasks(run: Run, datalist: Path, seed: int, resamples: int, tasks: Sequence[str] = tuple(TASKS)) -> Path:
    """Runs each task on the last epoch of a run, unless that is done; returns the folder of the tasks.

    Args:
        run: The run.
        datalist: Its scans, or fewer: the segmentation decoder learns from the training split.
        seed: Seed of the decoder.
        resamples: Bootstrap resamples of each task's own page.
        tasks: Those to run.

    Raises:
        ValueError: A task failed, or the folder has results of other scans or tasks.
    """
    claim_run(run.folder / "tasks", {"datalist": split_digests(datalist), "tasks": TASKS})
    given = {"datalist": str(datalist), "ckpt_path": str(run.checkpoint), "resamples": resamples}
    for task in tasks:
        seeds = {"subset_seeds": [seed]} if task == "segmentation" else {}
        run_task(task, run.configs, {**run.keys, **TASKS[task], **given, **seeds}, run.folder / "tasks")
    return run.folder / "tasks"
