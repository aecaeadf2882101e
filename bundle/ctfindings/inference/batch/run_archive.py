"""Findings for an archive: a record for each scan, each made once however often a run is stopped, and one table of all."""

from __future__ import annotations

import csv
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from bundle.ctfindings import __version__
from bundle.ctfindings.data.datalist import load_datalist
from bundle.ctfindings.files.atomic_write import atomic_path, safe_name
from bundle.ctfindings.files.distributed_map import over_scans
from bundle.ctfindings.files.folders import walk_folder
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.inference.output.write_files import RECORD_FILE
from bundle.ctfindings.inference.service import BundlePredictor
from bundle.ctfindings.networks.checkpoint import sha256_of

SUMMARY_FILE, RUN_FILE, SCANS_FOLDER = "findings.csv", "run.json", "scans"
SCAN_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".zip")
_PARTIAL = ".partial-"


class Model(NamedTuple):
    """Who answers: the bundle's folder, its weights, and further configuration files relative to the folder."""

    bundle_root: str
    ckpt_path: str
    overlays: tuple[str, ...] = ()


class ArchiveTask(NamedTuple):
    """One scan: its study record, the folder of its result, and who answers."""

    study: Mapping[str, Any]
    target: str
    model: Model


class ArchiveReport(NamedTuple):
    """What was done.

    Attributes:
        summary: the table.
        done: scans of this run.
        kept: scans that were finished before.
        problems: why a scan has no findings, by its id.
    """

    summary: Path
    done: int
    kept: int
    problems: dict[str, str]


def scans_of(source: Path, splits: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    """Study records by id: those of a datalist, or one for each scan below a folder, named by its path.

    Args:
        source: a datalist, or a folder with scans in files, in zips, and in folders of DICOM.
        splits: of the datalist; all of them by default.

    Raises:
        ValueError: when the datalist cannot be used, an id stands twice, or there is no scan.
    """
    if source.is_dir():
        found = _scans_below(source)
    else:
        names = splits or tuple(name for name, value in _content(source).items() if isinstance(value, list))
        found = {}
        for study in (study for name in names for study in load_datalist(source, name)):
            if study["id"] in found:
                raise ValueError(f"{source}: the id {study['id']!r} stands twice; give each study its own id")
            found[study["id"]] = {key: study[key] for key in ("image", "anatomy", "stored") if key in study}
    if not found:
        raise ValueError(f"{source}: holds no scan; give a datalist, or a folder with NIfTI, NRRD, MetaImage or DICOM")
    return found


def _content(datalist: Path) -> Mapping[str, Any]:
    """The JSON of a datalist; nothing of one that cannot be read, whose reader says why."""
    try:
        content = json.loads(datalist.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"training": []}
    return content if isinstance(content, Mapping) else {"training": []}


def _scans_below(folder: Path) -> dict[str, dict[str, Any]]:
    """A folder without files of scans, but with others, is taken for one series of DICOM."""
    found: dict[str, dict[str, Any]] = {}
    for place, subfolders, files in walk_folder(folder):
        scans = [name for name in files if name.lower().endswith(SCAN_SUFFIXES)]
        for name in scans:
            found[(place / name).relative_to(folder).as_posix()] = {"image": str(place / name)}
        if files and not scans and place != folder:
            found[place.relative_to(folder).as_posix()] = {"image": str(place)}
            subfolders.clear()
    return found


def run_archive(
    studies: Mapping[str, Mapping[str, Any]], output: Path, model: Model, workers: int = 1, scheduler: str | None = None
) -> ArchiveReport:
    """Writes ``output/scans/<id>/findings.json`` for every scan that has none, and ``output/findings.csv`` of all.

    A scan whose worker is killed is given to another. A folder appears under its name complete, and only once: of two
    workers that finish the same scan, the second leaves what is there. Scans that failed are tried again by the next
    run.

    Args:
        studies: ``image``, and ``anatomy`` and ``stored`` where known, by id.
        output: results of the same weights and version are added to; others are refused.
        workers, scheduler: see ``over_scans``.

    Raises:
        ValueError: when the output is of other weights, or the bundle cannot be used.
    """
    _claim_output(output, model)
    tasks = {
        key: ArchiveTask(study, str((output / SCANS_FOLDER / safe_name(key)).resolve()), model)
        for key, study in studies.items()
    }
    kept = {key for key, task in tasks.items() if (Path(task.target) / RECORD_FILE).is_file()}
    problems: dict[str, str] = {}
    outcomes = over_scans(
        answer_scan, {key: task for key, task in tasks.items() if key not in kept}, workers, scheduler
    )
    for outcome in tqdm(outcomes, desc="scans", total=len(tasks), initial=len(kept), unit="", disable=None):
        if outcome.problem:
            problems[outcome.key] = outcome.problem
    # Nobody works any more: what is left was begun by workers that were killed.
    for left in (output / SCANS_FOLDER).glob(f"{_PARTIAL}*"):
        shutil.rmtree(left, ignore_errors=True)
    summary = _write_summary(output / SUMMARY_FILE, tasks, problems)
    return ArchiveReport(summary, len(tasks) - len(kept) - len(problems), len(kept), problems)


def answer_scan(task: ArchiveTask) -> str:
    """``done`` when the findings of the scan were written, ``kept`` when they were there.

    Raises:
        ScanError: when the scan cannot be used.
    """
    target = Path(task.target)
    if (target / RECORD_FILE).is_file():
        return "kept"
    study = task.study
    encoded = _predictor(task.model).encode(study["image"], stored=study.get("stored"), anatomy=study.get("anatomy"))
    target.parent.mkdir(parents=True, exist_ok=True)
    # Not by ``tempfile``, whose folders only their owner may read: results are for whom the user's umask lets in.
    staging = target.parent / f"{_PARTIAL}{uuid.uuid4().hex}"
    staging.mkdir()
    encoded.record.save(staging / RECORD_FILE)
    return "done" if publish_once(staging, target) else "kept"


def publish_once(staging: Path, target: Path) -> bool:
    """Renames a finished folder to its place, unless another is there, which stays; the folder is gone in both cases."""
    try:
        os.rename(staging, target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(staging)
        return False
    return True


@lru_cache(maxsize=1)
def _predictor(model: Model) -> BundlePredictor:
    """One for each process, however many scans it gets."""
    return BundlePredictor(model.bundle_root, model.ckpt_path, model.overlays)


def _claim_output(output: Path, model: Model) -> None:
    """Writes who answers into a new output folder, and refuses one in which others did."""
    if not Path(model.ckpt_path).is_file():
        raise ValueError(f"{model.ckpt_path}: there are no such weights; check --ckpt_path")
    run = {"version": __version__, "weights_sha256": sha256_of(model.ckpt_path), "overlays": list(model.overlays)}
    path = output / RUN_FILE
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before != run:
            raise ValueError(
                f"{path}: the results here are of other weights, version or overlays; choose another --output"
            )
        return
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")


def _write_summary(path: Path, tasks: Mapping[str, ArchiveTask], problems: Mapping[str, str]) -> Path:
    """One row for each scan: id, status, reason of a failure, number of warnings, and the probability of each finding
    with its verdict.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        verdicts = [f"{name} present" for name in FINDING_NAMES]
        writer.writerow(["id", "status", "reason", "warnings", *FINDING_NAMES, *verdicts])
        for key, task in tasks.items():
            if key in problems:
                writer.writerow([key, "failed", problems[key], "", *[""] * (2 * len(FINDING_NAMES))])
                continue
            record = json.loads((Path(task.target) / RECORD_FILE).read_text(encoding="utf-8"))
            answers = {answer["name"]: answer for answer in record["findings"]}
            known = [answers.get(name) for name in FINDING_NAMES]
            probabilities = ["" if answer is None else f"{answer['probability']:.4f}" for answer in known]
            present = ["" if answer is None else int(answer["present"]) for answer in known]
            writer.writerow([key, "done", "", len(record["warnings"]), *probabilities, *present])
    return path
