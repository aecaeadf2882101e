"""Writes the DICOM results of one scan: ``report.dcm``, ``anatomies.dcm`` and one file for each map of the evidence."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.ctfindings.inference.findings_record import FindingsRecord
from bundle.ctfindings.inference.output.dicom.segmentation import segmentations
from bundle.ctfindings.inference.output.dicom.source_headers import set_date, source_headers
from bundle.ctfindings.inference.output.dicom.structured_report import structured_report
from bundle.ctfindings.scan.storage import SourceImages

REPORT_SERIES, SEGMENTATION_SERIES = 9100, 9101
"""Numbers of the new series; those of a scanner are lower."""


def settings_text(record: FindingsRecord, source: SourceImages, maps: Mapping[str, Any], anonymous: bool) -> str:
    """What the UIDs depend on: scan, weights, version, verdicts, queries, written maps and whether it is anonymous."""
    verdicts = [[answer.name, answer.result] for answer in record.findings]
    queries = [query.text for query in record.queries]
    model = record.model
    parts = [*source, model.weights_sha256, model.version, model.network, verdicts, queries, list(maps), anonymous]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def write_dicom(
    folder: Path,
    path: Path,
    record: FindingsRecord,
    source: SourceImages,
    regions: Any,
    maps: Mapping[str, Any],
    map_affine: Any,
    anonymous: bool = False,
) -> list[Path]:
    """Writes the objects into ``folder`` when all are complete, over those of an earlier run; returns their files.

    The same scan, weights and settings give the same UIDs and dates, so a PACS keeps one copy.

    Args:
        folder: of this scan.
        path: the DICOM folder, file or zip that was read.
        record: the answers.
        source: the images of the slices.
        regions, maps, map_affine: see ``segmentations``.
        anonymous: leaves patient and study attributes out.

    Raises:
        ScanError: if the images of the series are no longer there.
    """
    headers = source_headers(path, source, record.scan.spacing_mm[2], anonymous)
    settings = settings_text(record, source, maps, anonymous)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
    try:
        report = structured_report(record, headers, settings, REPORT_SERIES)
        set_date(report, headers[0])
        report.save_as(staging / "report.dcm", enforce_file_format=True)
        objects = segmentations(record, headers, regions, maps, map_affine, settings, SEGMENTATION_SERIES)
        for number, segmentation in enumerate(objects):
            name = "anatomies" if segmentation.ContentLabel == "ANATOMIES" else f"evidence-{number}"
            set_date(segmentation, headers[0])
            segmentation.save_as(staging / f"{name}.dcm", enforce_file_format=True)
        folder.mkdir(exist_ok=True)
        for old in folder.glob("evidence-*.dcm"):
            old.unlink()
        return [file.replace(folder / file.name) for file in sorted(staging.iterdir())]
    finally:
        shutil.rmtree(staging)
