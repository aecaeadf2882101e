"""Adds an anatomy mask to every scan of a datalist."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from bundle.ctfindings.anatomy import ANATOMIES
from bundle.ctfindings.data.datalist import load_studies, read_content, split_names
from bundle.ctfindings.data.study_record import PATH_KEYS
from bundle.ctfindings.files.atomic_write import safe_name, write_text
from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.files.fingerprint import file_signature
from bundle.ctfindings.files.folders import path_from
from bundle.ctfindings.files.journal import resume
from bundle.ctfindings.inference.batch.mask_sources import MaskSource, MaskTask, make_mask, mask_signature
from bundle.ctfindings.scan.load_scan import read_volume

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
    datalist cannot be used, ``output/datalist.json`` exists, an id occurs twice, a mask that stays has other ids than
    those made here, or every mask fails.
    """
    target = output / "datalist.json"
    if target.exists():
        raise ValueError(
            f"{target}: exists already; choose another --output or remove it (masks in its folder are used again)"
        )
    content, studies = read_content(datalist), load_studies(datalist)
    tasks = {}
    for study in studies:
        if replace or "anatomy" not in study:
            path = (output / "anatomy" / f"{safe_name(study['id'])}.nii.gz").resolve()
            task = MaskTask(str(Path(study["image"]).resolve()), study.get("stored"), str(path), source)
            tasks[study["id"]] = (mask_signature(task), task)
    if tasks:
        _check_ids(study["anatomy"] for study in studies if study["id"] not in tasks)
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
    records = [record for split in split_names(datalist) for record in content[split]]
    for study, record in zip(studies, records, strict=True):
        if study["id"] in tasks and study["id"] not in problems:
            study["anatomy"] = tasks[study["id"]][1].target
        record |= {key: path_from(Path(study[key]).resolve(), output) for key in PATH_KEYS if key in study}
    write_text(target, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return MaskReport(target, len(tasks) - kept - len(problems), kept, len(studies) - len(tasks), problems)


def _check_ids(kept: Iterable[str]) -> None:
    """ValueError if the first of the masks that can be read has ids of another table: one mapping has to fit all."""
    for path in kept:
        try:
            highest = int(read_volume(path).array.max())
        except ScanError:
            continue
        if highest > len(ANATOMIES):
            problem = f"has ids up to {highest}, but the masks that are made here have 1 to {len(ANATOMIES)}"
            raise ValueError(f"{path}: {problem}; convert the masks that studies have, or give --replace")
        return
