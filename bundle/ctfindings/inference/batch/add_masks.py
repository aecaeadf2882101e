"""Adds an anatomy mask to every scan of a datalist."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from bundle.ctfindings.data.datalist import load_studies, split_names
from bundle.ctfindings.data.study_record import PATH_KEYS
from bundle.ctfindings.files.atomic_write import safe_name, write_text
from bundle.ctfindings.files.fingerprint import file_signature
from bundle.ctfindings.files.folders import path_from
from bundle.ctfindings.files.journal import resume
from bundle.ctfindings.inference.batch.mask_sources import MaskSource, MaskTask, make_mask, mask_signature

JOURNAL_FILE = "journal.jsonl"


class MaskReport(NamedTuple):
    """Result of a run."""

    datalist: Path  # the new datalist
    made: int  # masks made in this run
    kept: int  # masks made by earlier runs, of the same scans and from the same source
    given: int  # studies that keep the mask they have
    problems: dict[str, str]  # why a study has no mask, by id


def mask_datalist(
    datalist: Path,
    output: Path,
    source: MaskSource,
    replace: bool = False,
    workers: int = 1,
    scheduler: str | None = None,
) -> MaskReport:
    """Writes the masks to ``output/anatomy`` and ``output/datalist.json``, whose paths are relative to ``output``.

    A stopped run resumes. If the mask of a scan cannot be made, the study stays in the datalist without a mask. Studies
    that have a mask get a new one only with ``replace``. For the workers see ``parallel_map``. ValueError if the
    datalist cannot be used, ``output/datalist.json`` exists, an id occurs twice, or every mask fails.
    """
    target = output / "datalist.json"
    if target.exists():
        raise ValueError(
            f"{target}: exists already; choose another --output or remove it (masks in its folder are used again)"
        )
    content, records = _records(datalist)
    tasks = {}
    for record in records:
        if replace or not record.get("anatomy"):
            path = (output / "anatomy" / f"{safe_name(record['id'])}.nii.gz").resolve()
            task = MaskTask(record["image"], record.get("stored"), str(path), source)
            tasks[record["id"]] = (mask_signature(task), task)
    problems: dict[str, str] = {}
    kept = 0
    for outcome in resume(
        make_mask,
        tasks,
        output / JOURNAL_FILE,
        workers,
        scheduler,
        holds=lambda key, size: file_signature(tasks[key][1].target).bytes == size,
        progress="masks",
    ):
        kept += outcome.kept
        if outcome.problem:
            problems[outcome.key] = outcome.problem
    if tasks and len(problems) == len(tasks):
        raise ValueError(f"{datalist}: no mask could be made; the first: {next(iter(problems.values()))}")
    for record in records:
        if record["id"] in tasks and record["id"] not in problems:
            record["anatomy"] = tasks[record["id"]][1].target
        for key in PATH_KEYS:
            if record.get(key):
                record[key] = path_from(record[key], output)
    write_text(target, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return MaskReport(target, len(tasks) - kept - len(problems), kept, len(records) - len(tasks), problems)


def _records(datalist: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The content of a datalist, and its records with absolute paths, which are parts of the content."""
    load_studies(datalist)
    content = json.loads(datalist.read_text(encoding="utf-8"))
    records: list[dict[str, Any]] = [record for split in split_names(datalist) for record in content[split]]
    for record in records:
        for key in PATH_KEYS:
            if record.get(key):
                record[key] = str((datalist.parent / record[key]).resolve())
    return content, records
