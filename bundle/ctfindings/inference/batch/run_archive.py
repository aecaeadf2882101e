"""Findings of an archive: a record of every scan, made once over any number of runs, and one table of all scans."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from bundle.ctfindings import __version__
from bundle.ctfindings.data.datalist import load_datalist, split_names
from bundle.ctfindings.files.atomic_write import atomic_path, safe_name
from bundle.ctfindings.files.fingerprint import input_signature
from bundle.ctfindings.files.journal import resume
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.inference.bundle_workflow import write_dicom_of
from bundle.ctfindings.inference.output.write_files import RECORD_FILE
from bundle.ctfindings.inference.service import FindingsService, load_service
from bundle.ctfindings.networks.checkpoint import sha256_of
from bundle.ctfindings.scan.scan_listing import scans_below

SUMMARY_FILE, RUN_FILE, JOURNAL_FILE, SCANS_FOLDER = "findings.csv", "run.json", "journal.jsonl", "scans"


class Model(NamedTuple):
    """Bundle folder, checkpoint, and overlay configs relative to the folder."""

    bundle_root: str
    ckpt_path: str
    overlays: tuple[str, ...] = ()


class ArchiveTask(NamedTuple):
    """One scan: its study record, the path of its findings record, the model, and the folder of its DICOM objects."""

    study: Mapping[str, Any]
    target: str
    model: Model
    dicom: str | None = None
    anonymous: bool = False


class ArchiveReport(NamedTuple):
    """Result of a run."""

    summary: Path  # the table
    done: int  # scans processed in this run
    kept: int  # scans finished by earlier runs
    problems: dict[str, str]  # reason of each failed scan, by id


def scans_of(source: Path, splits: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    """Study records by id, from the splits of a datalist (all by default) or from the scans below a folder.

    The folder may hold scan files, zips and folders of DICOM, whose paths become the ids. ValueError if the datalist
    cannot be used, an id occurs twice, or there is no scan.
    """
    if source.is_dir():
        found = {key: {"image": str(path)} for key, path in scans_below(source).items()}
    else:
        found = {}
        for study in (study for name in splits or split_names(source) for study in load_datalist(source, name)):
            if study["id"] in found:
                raise ValueError(f"{source}: id {study['id']!r} occurs twice; give each study its own id")
            found[study["id"]] = {key: study[key] for key in ("image", "anatomy", "stored") if key in study}
    if not found:
        raise ValueError(f"{source}: holds no scan; give a datalist, or a folder with NIfTI, NRRD, MetaImage or DICOM")
    return found


def run_archive(
    studies: Mapping[str, Mapping[str, Any]],
    output: Path,
    model: Model,
    workers: int = 1,
    scheduler: str | None = None,
    dicom_dir: Path | None = None,
    anonymous: bool = False,
) -> ArchiveReport:
    """Writes ``output/scans/ID/findings.json`` of every new or changed scan, and ``output/findings.csv`` of all scans.

    The next run tries failed scans again. A study has ``image``, and optionally ``anatomy`` and ``stored``. For the
    workers see ``parallel_map``. With ``dicom_dir``, the DICOM objects of a DICOM scan are in ``dicom_dir/ID/``, and
    ``anonymous`` leaves patient and study attributes out; a scan that was finished otherwise is done again.

    Raises:
        ValueError: if the output holds results of other weights, versions or overlays, or the bundle cannot be used.
    """
    _claim_output(output, model)
    tasks = {}
    for key, study in studies.items():
        target = (output / SCANS_FOLDER / safe_name(key) / RECORD_FILE).resolve()
        dicom = str((dicom_dir / safe_name(key)).resolve()) if dicom_dir else None
        settings = {"stored": study.get("stored"), "dicom": dicom, "anonymous": anonymous}
        signature = input_signature([study["image"], study.get("anatomy")], settings if dicom else study.get("stored"))
        tasks[key] = (signature, ArchiveTask(study, str(target), model, dicom, anonymous))
    problems: dict[str, str] = {}
    kept = 0
    for outcome in resume(
        write_findings,
        tasks,
        output / JOURNAL_FILE,
        workers,
        scheduler,
        holds=lambda key, _: Path(tasks[key][1].target).is_file(),
        progress="scans",
    ):
        kept += outcome.kept
        if outcome.problem:
            problems[outcome.key] = outcome.problem
    summary = write_summary(output / SUMMARY_FILE, {key: task.target for key, (_, task) in tasks.items()}, problems)
    return ArchiveReport(summary, len(tasks) - kept - len(problems), kept, problems)


def write_findings(task: ArchiveTask) -> None:
    """Writes the findings record and the DICOM objects of one scan; ScanError if it cannot be used."""
    answered = _service(task.model).answer_file(**task.study)
    if task.dicom and answered.encoded.source is not None:
        present = [each for each in answered.placed.values() if getattr(each.answer, "present", False)]
        maps = {each.answer.key: answered.encoded.evidence_map(each) for each in present}
        write_dicom_of(answered, str(task.study["image"]), Path(task.dicom), maps, task.anonymous)
    answered.record.save(Path(task.target))


@lru_cache(maxsize=1)
def _service(model: Model) -> FindingsService:
    """One per process, however many scans it gets."""
    return load_service(model.bundle_root, model.ckpt_path, model.overlays, text=False)


def _claim_output(output: Path, model: Model) -> None:
    """Records the model in a new output folder; rejects a folder with results of another model."""
    if not Path(model.ckpt_path).is_file():
        raise ValueError(f"{model.ckpt_path}: no such checkpoint; check --ckpt_path")
    run = {"version": __version__, "weights_sha256": sha256_of(model.ckpt_path), "overlays": list(model.overlays)}
    path = output / RUN_FILE
    if path.is_file():
        if json.loads(path.read_text(encoding="utf-8")) != run:
            problem = "the results here are of other weights, version or overlays"
            raise ValueError(f"{path}: {problem}; choose another --output")
        return
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")


def write_summary(path: Path, records: Mapping[str, str], problems: Mapping[str, str]) -> Path:
    """One row per scan: id, status, reason, number of warnings, probability and verdict of each finding."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        verdicts = [f"{name} present" for name in FINDING_NAMES]
        writer = csv.DictWriter(file, ["id", "status", "reason", "warnings", *FINDING_NAMES, *verdicts], "")
        writer.writeheader()
        for key, target in records.items():
            if key in problems:
                writer.writerow({"id": key, "status": "failed", "reason": problems[key]})
                continue
            record = json.loads(Path(target).read_text(encoding="utf-8"))
            row: dict[str, Any] = {"id": key, "status": "done", "warnings": len(record["warnings"])}
            for answer in record["findings"]:
                row[answer["name"]] = f"{answer['probability']:.4f}"
                row[f"{answer['name']} present"] = "" if answer["present"] is None else int(answer["present"])
            writer.writerow(row)
    return path
