"""From a datalist to the same datalist with an anatomy mask for every scan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from bundle.ctfindings.data.datalist import PATH_KEYS, load_datalist
from bundle.ctfindings.files.atomic_write import atomic_path, safe_name
from bundle.ctfindings.files.distributed_map import over_scans
from bundle.ctfindings.files.folders import path_from
from bundle.ctfindings.inference.batch.mask_sources import MaskSource, MaskTask, make_mask


class MaskReport(NamedTuple):
    """What was done.

    Attributes:
        datalist: the new one.
        made: masks of this run.
        kept: masks of an earlier run of the same scans from the same source.
        given: studies that brought a mask, which they keep.
        problems: why a study has no mask, by its id.
    """

    datalist: Path
    made: int
    kept: int
    given: int
    problems: dict[str, str]


def mask_datalist(
    datalist: Path,
    output: Path,
    source: MaskSource,
    replace: bool = False,
    workers: int = 1,
    scheduler: str | None = None,
) -> MaskReport:
    """Makes the masks and writes ``output/datalist.json``, whose paths are relative to ``output``; masks are in
    ``output/anatomy``.

    A run that was stopped goes on where it was. A scan whose mask cannot be made stays in the datalist, without a mask.

    Args:
        datalist: read only.
        replace: whether studies that have a mask get another; otherwise it is kept.
        workers: processes.
        scheduler: of Dask, see ``over_scans``.

    Raises:
        ValueError: when the datalist cannot be used, ``output/datalist.json`` exists, an id stands twice, or no mask
            could be made.
    """
    target = output / "datalist.json"
    if target.exists():
        raise ValueError(
            f"{target}: exists already; choose another --output or remove it (masks in its folder are used again)"
        )
    content, records = _records(datalist)
    tasks = {
        record["id"]: MaskTask(
            record["image"], record.get("stored"), str((output / mask_file(record["id"])).resolve()), source
        )
        for record in records
        if replace or not record.get("anatomy")
    }
    problems: dict[str, str] = {}
    counts = {"made": 0, "kept": 0}
    outcomes = over_scans(make_mask, tasks, workers, scheduler)
    for outcome in tqdm(outcomes, desc="masks", total=len(tasks), unit="", disable=None):
        if outcome.problem:
            problems[outcome.key] = outcome.problem
        else:
            counts[outcome.result] += 1
    if tasks and len(problems) == len(tasks):
        raise ValueError(f"{datalist}: no mask could be made; the first: {next(iter(problems.values()))}")
    for record in records:
        if record["id"] in tasks and record["id"] not in problems:
            record["anatomy"] = tasks[record["id"]].target
        for key in PATH_KEYS:
            if record.get(key):
                record[key] = path_from(record[key], output)
    with atomic_path(target) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return MaskReport(target, counts["made"], counts["kept"], len(records) - len(tasks), problems)


def mask_file(study: str) -> str:
    """Path of a study's mask below the output folder, for ids of any characters."""
    return f"anatomy/{safe_name(study)}.nii.gz"


def _records(datalist: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The content of a datalist, and all its records with absolute paths; changes to them are changes to the content."""
    load_datalist(datalist, _first_split(datalist))
    content = json.loads(datalist.read_text(encoding="utf-8"))
    splits = [name for name, value in content.items() if _is_split(value)]
    records: list[dict[str, Any]] = []
    for split in splits:
        load_datalist(datalist, split)
        records += content[split]
    ids = [record["id"] for record in records]
    double = sorted({study for study in ids if ids.count(study) > 1}) if len(set(ids)) < len(ids) else []
    if double:
        raise ValueError(
            f"{datalist}: {len(double)} ids stand twice, the first is {double[0]!r}; give each study its own id"
        )
    for record in records:
        for key in PATH_KEYS:
            if record.get(key):
                record[key] = str((datalist.parent / record[key]).resolve())
    return content, records


def _first_split(datalist: Path) -> str:
    """A split whose reading refuses a file that is no datalist, with the reason."""
    try:
        content = json.loads(datalist.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "training"
    names = [name for name, value in content.items() if _is_split(value)] if isinstance(content, Mapping) else []
    return names[0] if names else "training"


def _is_split(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(record, Mapping) and "image" in record for record in value)
