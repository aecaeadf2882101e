"""Findings of an archive: a record of every scan, made once over any number of runs, and one table of all scans."""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from bundle.ctfindings import __version__
from bundle.ctfindings.data.datalist import load_studies
from bundle.ctfindings.files.atomic_write import safe_name, write_text
from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.files.fingerprint import input_signature
from bundle.ctfindings.files.folders import check_outside, check_writable
from bundle.ctfindings.files.journal import resume
from bundle.ctfindings.inference.batch.scan_list import list_scans
from bundle.ctfindings.inference.bundle_workflow import why_no_dicom, write_dicom_of
from bundle.ctfindings.inference.output.dicom.scan_answers import DICOM_REFUSED
from bundle.ctfindings.inference.output.summary_table import SUMMARY_FILE, write_summary
from bundle.ctfindings.inference.output.write_files import RECORD_FILE
from bundle.ctfindings.inference.service import FindingsService, load_service
from bundle.ctfindings.networks.checkpoint import sha256_of

RUN_FILE, JOURNAL_FILE, SCANS_FOLDER = "run.json", "journal.jsonl", "scans"


class Model(NamedTuple):
    """Bundle folder, checkpoint, and overlay configs relative to the folder."""

    bundle_root: str
    ckpt_path: str
    overlays: tuple[str, ...] = ()


class ArchiveTask(NamedTuple):
    """One scan: its study record, the path of its findings record, the model, and the folder of its DICOM objects."""

    study: Mapping[str, Any]
    target: Path
    model: Model
    dicom: Path | None = None
    anonymous: bool = False


class ArchiveReport(NamedTuple):
    """Result of a run."""

    summary: Path  # the table
    done: int  # scans processed in this run
    kept: int  # scans finished by earlier runs
    problems: dict[str, str]  # reason of each failed scan, by id
    without_dicom: dict[str, str]  # why a scan has no DICOM objects, by id, if they were asked for


def scans_of(source: Path, splits: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    """Study records by id, from the splits of a datalist (all by default) or from the scans below a folder.

    The folder may hold scan files, zips and folders of DICOM, whose paths become the ids. ``folder`` of a record is
    where its results are, see ``list_scans``; a study of a datalist also has its ``patient``. ValueError if there is no
    such file or folder, the datalist cannot be used, an id occurs twice, or there is no scan.
    """
    if not source.exists():
        raise ValueError(f"{source}: no such file or folder; check the path")
    found: dict[str, dict[str, Any]] = {}
    if source.is_dir():
        found = {each.name: {"image": str(each.path), "folder": str(each.folder)} for each in list_scans([source])}
    else:
        for study in load_studies(source, splits):
            record: dict[str, Any] = {
                key: study[key] for key in ("image", "anatomy", "stored", "patient") if key in study
            }
            found[study["id"]] = {**record, "folder": safe_name(study["id"])}
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
    """Writes the findings record of every new or changed scan, and ``output/findings.csv`` of all scans.

    The next run tries failed scans again. A study has ``image`` and ``folder``, and optionally ``anatomy`` and
    ``stored``; its record is ``output/scans/FOLDER/findings.json``. For the workers see ``parallel_map``. With
    ``dicom_dir``, the DICOM objects of a DICOM scan are in ``dicom_dir/FOLDER/``, and ``anonymous`` leaves patient and
    study attributes out; a scan that was finished otherwise is done again. ValueError if the output holds results of
    other weights, versions or overlays, the bundle cannot be used, or ``dicom_dir`` lies in a scan.
    """
    if dicom_dir is not None:
        check_writable(dicom_dir, "--dicom_dir")
        check_outside(dicom_dir, "--dicom_dir", [study["image"] for study in studies.values()])
    claim_output(output, model)
    tasks = {}
    for key, study in studies.items():
        target = (output / SCANS_FOLDER / study["folder"] / RECORD_FILE).resolve()
        dicom = (dicom_dir / study["folder"]).resolve() if dicom_dir else None
        settings = {"stored": study.get("stored"), "dicom": str(dicom), "anonymous": anonymous}
        signature = input_signature([study["image"], study.get("anatomy")], settings if dicom else study.get("stored"))
        tasks[key] = (signature, ArchiveTask(study, target, model, dicom, anonymous))
    problems: dict[str, str] = {}
    without_dicom: dict[str, str] = {}
    kept = 0
    for outcome in resume(
        write_findings,
        tasks,
        output / JOURNAL_FILE,
        workers,
        scheduler,
        holds=lambda key, _: tasks[key][1].target.is_file(),
        progress="scans",
    ):
        kept += outcome.kept
        if outcome.problem:
            problems[outcome.key] = outcome.problem
        elif outcome.result:
            without_dicom[outcome.key] = outcome.result
    summary = write_summary(output / SUMMARY_FILE, {key: task.target for key, (_, task) in tasks.items()}, problems)
    return ArchiveReport(summary, len(tasks) - kept - len(problems), kept, problems, without_dicom)


def write_findings(task: ArchiveTask) -> str | None:
    """Writes the findings record and the DICOM objects of one scan; ScanError if it cannot be used.

    Returns why there are no DICOM objects, if they were asked for.
    """
    answered = _service(task.model).answer_file(**task.study)
    without_dicom = why_no_dicom(answered.encoded) if task.dicom else None
    if task.dicom and not without_dicom:
        maps = {each.answer.key: answered.encoded.evidence_map(each) for each in answered.present}
        try:
            write_dicom_of(answered, str(task.study["image"]), task.dicom, maps, task.anonymous)
        except ScanError as error:
            if error.code != DICOM_REFUSED:
                raise
            without_dicom = f"a value of the headers is not allowed in DICOM results [{error.code}]"
    answered.record.save(task.target)
    return without_dicom


@lru_cache(maxsize=1)
def _service(model: Model) -> FindingsService:
    """One per process, however many scans it gets."""
    return load_service(model.bundle_root, model.ckpt_path, model.overlays, text=False)


def claim_output(output: Path, model: Model) -> str:
    """Records a model that can be loaded in a new output folder; returns the SHA-256 of its weights.

    ValueError if the checkpoint or the bundle cannot be used, or the folder has results of another model.
    """
    if not Path(model.ckpt_path).is_file():
        raise ValueError(f"{model.ckpt_path}: no such checkpoint; check --ckpt_path")
    weights = sha256_of(model.ckpt_path)
    run = {"version": __version__, "weights_sha256": weights, "overlays": list(model.overlays)}
    path = output / RUN_FILE
    if not path.is_file():
        _service(model)
        write_text(path, json.dumps(run, indent=1) + "\n")
    elif json.loads(path.read_text(encoding="utf-8")) != run:
        problem = "the results here are of other weights, version or overlays"
        raise ValueError(f"{path}: {problem}; choose another --output")
    return weights
