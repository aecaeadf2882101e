"""The DICOM results of one scan: ``report``, ``anatomies``, one ``evidence-N`` for each map, and ``capture``."""

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Collection
from contextlib import nullcontext
from pathlib import Path

import pydicom

from bundle.ctfindings.files.atomic_write import staging_folder
from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.files.folders import files_below
from bundle.ctfindings.inference.output.dicom.scan_answers import DICOM_REFUSED, ScanAnswers
from bundle.ctfindings.inference.output.dicom.secondary_capture import secondary_capture
from bundle.ctfindings.inference.output.dicom.segmentation import segmentations
from bundle.ctfindings.inference.output.dicom.source_headers import set_date, source_headers
from bundle.ctfindings.inference.output.dicom.structured_report import structured_report
from bundle.ctfindings.scan.dicom_headers import DicomFile, unpacked

KINDS = ("report", "anatomies", "evidence", "capture")
REPORT_SERIES, CAPTURE_SERIES, SEGMENTATION_SERIES = 9100, 9101, 9102
"""Numbers of the new series; those of a scanner are lower. Segmentations count on."""


def settings_text(answers: ScanAnswers, anonymous: bool) -> str:
    """What the UIDs depend on: scan, weights, version, verdicts, queries, written maps and whether it is anonymous."""
    record, source, maps = answers.record, answers.source, answers.maps
    verdicts = [[answer.name, answer.result] for answer in record.findings]
    queries = [query.text for query in record.queries]
    model = record.model
    parts = [*source, model.weights_sha256, model.version, model.network, verdicts, queries, list(maps), anonymous]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def dicom_objects(
    path: Path, answers: ScanAnswers, anonymous: bool = False, wanted: Collection[str] = KINDS
) -> dict[str, pydicom.Dataset]:
    """The objects of one scan by the stem of their file: ``report``, ``anatomies``, ``evidence-N`` and ``capture``.

    The same scan, weights and settings give the same UIDs and dates, so a PACS keeps one copy.

    Args:
        path: the DICOM folder, file or zip that was read.
        answers: the answers about it.
        anonymous: leaves patient and study attributes out.
        wanted: some of ``KINDS``.

    Raises:
        ScanError: if the images of the series are no longer there, or a value of their headers cannot be in a result.
    """
    settings = settings_text(answers, anonymous)
    # The reader of a folder skips zips in it.
    files = [file for file in files_below(path) if file.suffix.lower() != ".zip"] if path.is_dir() else [path]
    zipped = path.is_file() and path.suffix.lower() == ".zip"
    with unpacked(map(DicomFile, files)) if zipped else nullcontext(files) as images, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The string")  # highdicom prints a patient's name that has one part.
        headers = source_headers(path, images, answers.source, answers.record.scan.spacing_mm[2], anonymous)
        objects: dict[str, pydicom.Dataset] = {}
        record = answers.record
        if anonymous:  # A warning names the file or folder, which may be named after the patient.
            named = [warning.replace(record.scan.file, "the scan") for warning in record.warnings]
            record = dataclasses.replace(record, warnings=named)
        try:
            if "report" in wanted:
                objects["report"] = structured_report(record, headers, settings, REPORT_SERIES)
            if "anatomies" in wanted or "evidence" in wanted:
                objects |= segmentations(answers, headers, settings, SEGMENTATION_SERIES, wanted)
            if "capture" in wanted:
                objects["capture"] = secondary_capture(answers, headers, settings, CAPTURE_SERIES)
        except ScanError:
            raise
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            # highdicom raises these for a value of the headers, which its message may quote.
            problem = f"its headers have a value that no DICOM result can have ({type(error).__name__})"
            raise ScanError(path, f"{problem}; correct it, or write no DICOM for this scan", DICOM_REFUSED) from error
        for each in objects.values():
            set_date(each, headers[0])
    return objects


def write_dicom(folder: Path, path: Path, answers: ScanAnswers, anonymous: bool = False) -> list[Path]:
    """Writes the objects into ``folder`` when all are complete, over those of an earlier run; returns their files.

    For the other arguments and errors see ``dicom_objects``.
    """
    objects = dicom_objects(path, answers, anonymous)
    with staging_folder(folder) as staging:
        for name, each in objects.items():
            each.save_as(staging / f"{name}.dcm", enforce_file_format=True)
        folder.mkdir(exist_ok=True)
        for old in [*folder.glob("evidence-*.dcm"), *(folder / f"{kind}.dcm" for kind in KINDS)]:
            old.unlink(missing_ok=True)
        return [file.replace(folder / file.name) for file in sorted(staging.iterdir())]
