"""The files of one scan: ``findings.json``, ``evidence.nii.gz``, ``report.html`` and a draft report, all or none."""

import dataclasses
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.ctfindings.files.atomic_write import staging_folder
from bundle.ctfindings.inference.findings_record import FindingsRecord
from bundle.ctfindings.inference.output.draft_report import format_draft
from bundle.ctfindings.inference.output.evidence_volume import write_evidence
from bundle.ctfindings.inference.output.html_report import write_report

RECORD_FILE = "findings.json"
EVIDENCE_FILE = "evidence.nii.gz"
REPORT_FILE = "report.html"
DRAFT_FILE = "draft_report.txt"


def write_findings(
    target: Path,
    record: FindingsRecord,
    hu: Any,
    affine: Any,
    evidence_maps: Mapping[str, Any],
    token_affine: Any,
    draft: bool = False,
) -> FindingsRecord:
    """Writes the folder ``target`` with its files; returns the record as written, with channels and times.

    They are written to a folder beside it and moved when all are complete, so after an error the old files are still
    there. Otherwise old files are replaced, and evidence or a draft that this run does not write is removed.

    Args:
        record: the answers, with the ``seconds`` of the stages so far; ``write`` and ``total`` are added.
        hu, affine, token_affine: see ``write_report``.
        evidence_maps: token map ``[gx, gy, gz]`` in [0, 1] by ``answer.key``; each becomes a channel, in this order.
        draft: whether to write the draft report, and to show it in the HTML report.

    Raises:
        ValueError: if a map belongs to no answer, or a number of the record is not finite.
    """
    started = time.perf_counter()
    for key in evidence_maps:
        if key not in {answer.key for answer in record.answers}:
            raise ValueError(f"evidence map {key!r} belongs to no finding or query of the record; use answer.key")
    record = record.with_channels(list(evidence_maps))
    with staging_folder(target) as staging:
        if evidence_maps:
            maps = list(evidence_maps.values())
            write_evidence(staging / EVIDENCE_FILE, maps, token_affine, affine, record.scan.shape)
        write_report(staging / REPORT_FILE, record, hu, affine, evidence_maps, token_affine, draft)
        if draft:
            (staging / DRAFT_FILE).write_text(format_draft(record), encoding="utf-8")
        seconds = {stage: value for stage, value in record.seconds.items() if stage not in ("write", "total")}
        seconds["write"] = time.perf_counter() - started
        seconds["total"] = sum(seconds.values())
        record = dataclasses.replace(record, seconds=seconds)
        record.save(staging / RECORD_FILE)

        target.mkdir(exist_ok=True)
        for name in (EVIDENCE_FILE, DRAFT_FILE):
            if not (staging / name).exists():
                (target / name).unlink(missing_ok=True)
        for file in sorted(staging.iterdir()):
            os.replace(file, target / file.name)
    return record
