"""The files of one scan: ``findings.json``, ``evidence.nii.gz`` and ``report.html``, all of them or none."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.ctfindings.inference.evidence import write_evidence
from bundle.ctfindings.inference.findings_record import FindingsRecord
from bundle.ctfindings.inference.output.html_report import write_report

RECORD_FILE = "findings.json"
EVIDENCE_FILE = "evidence.nii.gz"
REPORT_FILE = "report.html"

_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".zip", ".dcm", ".mha", ".mhd")


def scan_stem(scan: str | Path) -> str:
    """Name of a scan's folder: its file name without the format's suffix."""
    name = Path(scan).name
    for suffix in _SUFFIXES:
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
            break
    # A name of dots alone would be a path.
    return name if name.strip(". ") else "scan"


def write_findings(
    output_dir: str | Path,
    record: FindingsRecord,
    hu: Any,
    affine: Any,
    evidence_maps: Mapping[str, Any],
    token_affine: Any,
) -> FindingsRecord:
    """Writes ``output_dir/<scan stem>/`` with the three files.

    They are made in a folder beside it and moved when all are complete, so an error leaves what was there before. Files
    of an earlier run are replaced; an ``evidence.nii.gz`` that this run does not write is removed.

    Args:
        output_dir: made when missing.
        record: the answers; its ``seconds`` hold the stages so far, ``write`` and ``total`` are added here.
        hu: the scan ``[X, Y, Z]`` in HU on its own grid.
        affine: ``(4, 4)``, voxel index to RAS mm.
        evidence_maps: token map ``[gx, gy, gz]`` in [0, 1] by ``answer.key``; each becomes a channel, in this order.
        token_affine: ``(4, 4)``, token index to RAS mm.

    Returns:
        The record as written, with channels and times.

    Raises:
        ValueError: when a map belongs to no answer, or the record holds a number that is not finite.
    """
    started = time.perf_counter()
    keys = {answer.key for answer in record.answers}
    strangers = [key for key in evidence_maps if key not in keys]
    if strangers:
        raise ValueError(f"evidence map {strangers[0]!r} belongs to no finding or query of the record; use answer.key")

    record = record.with_channels(list(evidence_maps))
    output = Path(output_dir)
    output.mkdir(parents=True, exist_ok=True)
    target = output / scan_stem(record.scan.file)
    staging = Path(tempfile.mkdtemp(prefix=".partial-", dir=output))
    try:
        if evidence_maps:
            write_evidence(
                staging / EVIDENCE_FILE, list(evidence_maps.values()), token_affine, affine, record.scan.shape
            )
        write_report(staging / REPORT_FILE, record, hu, affine, evidence_maps, token_affine)
        seconds = {stage: value for stage, value in record.seconds.items() if stage not in ("write", "total")}
        seconds["write"] = time.perf_counter() - started
        seconds["total"] = sum(seconds.values())
        record = dataclasses.replace(record, seconds=seconds)
        record.save(staging / RECORD_FILE)

        target.mkdir(exist_ok=True)
        if not evidence_maps:
            (target / EVIDENCE_FILE).unlink(missing_ok=True)
        for file in sorted(staging.iterdir()):
            os.replace(file, target / file.name)
    finally:
        shutil.rmtree(staging)
    return record
