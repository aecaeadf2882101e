"""The parts of ``configs/inference.json`` around the service: request, batch, inferer and writer."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator
from monai.inferers import Inferer

from bundle.ctfindings.inference.answers import check_queries
from bundle.ctfindings.inference.findings_record import Answer, FindingAnswer
from bundle.ctfindings.inference.output.console_table import format_findings
from bundle.ctfindings.inference.output.write_files import REPORT_FILE, scan_stem, write_findings
from bundle.ctfindings.inference.service import AnsweredScan, FindingsService
from bundle.ctfindings.scan.storage import stored_from

EVIDENCE_CHOICES = ("present", "all", "none")


def scan_records(
    image: str | Sequence[str] | None,
    anatomy: str | Sequence[str | None] | None = None,
    stored: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Study records ``{"image": path, "anatomy": path, "stored": entry}`` of a request, one per scan.

    Args:
        image: path of a scan, or of several. None gives no record, so that the workflow can be built without a scan.
        anatomy: path of its anatomy mask, or one (or None) per scan.
        stored: how the scans become HU, if the files do not say so; see ``bundle.ctfindings.scan.storage.Stored``.

    Raises:
        ValueError: if masks and scans do not pair, two scans share an output folder, or ``stored`` is invalid.
    """
    stored_from(stored)
    images, masks = _paths(image), _paths(anatomy)
    if images and masks and len(masks) != len(images):
        problem = f"{len(masks)} masks were given for {len(images)} scans"
        raise ValueError(f"anatomy: {problem}; give one for each scan, or null")
    stems = [scan_stem(str(path)) for path in images]
    for index, stem in enumerate(stems):
        if stem in stems[:index]:
            problem = f"another scan is also named {stem!r} and has the same output folder"
            raise ValueError(f"{images[index]}: {problem}; run them apart")
    return [
        {"image": str(path)}
        | ({} if mask is None else {"anatomy": mask})
        | ({"stored": dict(stored)} if stored else {})
        for path, mask in zip(images, masks or [None] * len(images), strict=True)
    ]


def check_request(
    image: str | Sequence[str] | None,
    anatomy: str | Sequence[str | None] | None,
    queries: Sequence[str] | str,
    evidence: str,
    output_dir: str | Path,
    stored: Mapping[str, Any] | None = None,
    dicom_dir: str | Path | None = None,
) -> None:
    """Raises a ValueError with what is wrong in a request, before anything is loaded."""
    if not scan_records(image, anatomy, stored):
        raise ValueError("image: no scan given; add --image SCAN, a NIfTI or NRRD file, or a folder or zip of DICOM")
    check_queries(queries)
    if evidence not in EVIDENCE_CHOICES:
        raise ValueError(f"evidence: expected one of {', '.join(EVIDENCE_CHOICES)}, got {evidence!r}")
    for name, folder in (("output_dir", output_dir), ("dicom_dir", dicom_dir or output_dir)):
        existing = next(parent for parent in [Path(folder), *Path(folder).absolute().parents] if parent.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise ValueError(f"{folder}: results cannot be written there; give a writable folder as {name}")


def one_scan(batch: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Collates a batch of one study without copying it."""
    (study,) = batch
    return study


def prepare_study(study: dict[str, Any], *_: Any, **__: Any) -> tuple[MetaTensor, None, tuple, dict[str, Any]]:
    """A study for MONAI's evaluator: its image as input, all of it as an argument of the inferer."""
    return study["image"], None, (), {"study": study}


class FindingsInferer(Inferer):
    """Answers the findings and ``queries`` for one study with the service."""

    def __init__(self, service: FindingsService, queries: Sequence[str] | str = ()) -> None:
        super().__init__()
        self.service = service
        self.queries = queries

    def __call__(self, inputs: Any, network: Any, study: Mapping[str, Any]) -> AnsweredScan:  # type: ignore[override]
        return self.service.answer(study, self.queries)


class FindingsWriter:
    """Writes record, evidence and report of each scan into a folder of ``output_dir``, and prints the table.

    ``evidence``, one of ``EVIDENCE_CHOICES``, says whose maps are written; queries are included unless it is ``none``.
    ``draft_report`` says whether a draft report is written too. With ``dicom_dir``, DICOM objects of a DICOM scan are
    written into a folder of it; ``anonymous`` leaves the patient and study attributes out.
    """

    def __init__(
        self,
        output_dir: str | Path,
        evidence: str = "present",
        draft_report: bool = False,
        dicom_dir: str | Path | None = None,
        anonymous: bool = False,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.evidence = evidence
        self.draft_report = draft_report
        self.dicom_dir = Path(dicom_dir) if dicom_dir else None
        self.anonymous = anonymous

    def attach(self, engine: Engine) -> None:
        """Registers the handler."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: SupervisedEvaluator) -> None:
        self.write(engine.state.batch["scan"], engine.state.output["pred"])

    def write(self, scan: MetaTensor, answered: AnsweredScan) -> None:
        """Writes and prints the answers of one scan; ValueError if they cannot be written."""
        shown = {key: each for key, each in answered.placed.items() if self._is_shown(each.answer)}
        maps = {key: answered.encoded.evidence_map(each) for key, each in shown.items()}
        try:
            hu, grid = scan.as_tensor()[0], answered.encoded.regions.affine
            record = write_findings(self.output_dir, answered.record, hu, scan.affine, maps, grid, self.draft_report)
        except OSError as error:
            problem = f"results cannot be written there ({error.strerror or error})"
            raise ValueError(f"{self.output_dir}: {problem}; free some space, or give another output_dir") from error
        print(format_findings(record))
        print(f"Report: {self.output_dir / scan_stem(record.scan.file) / REPORT_FILE}", flush=True)
        if self.dicom_dir is not None:
            folder = self.dicom_dir / scan_stem(record.scan.file)
            print(write_dicom_of(answered, scan.meta["filename_or_obj"], folder, maps, self.anonymous), flush=True)

    def _is_shown(self, answer: Answer) -> bool:
        if self.evidence == "none":
            return False
        return self.evidence == "all" or not isinstance(answer, FindingAnswer) or bool(answer.present)


def write_dicom_of(
    answered: AnsweredScan, path: str, folder: Path, maps: Mapping[str, Any], anonymous: bool = False
) -> str:
    """Writes the DICOM objects of a scan; returns one line that says where they are, or why there are none.

    For the arguments see ``write_dicom``. ScanError if the scan cannot be read again, ValueError if they cannot be
    written.
    """
    if answered.encoded.source is None:
        reason = f"the scan is {answered.encoded.scan.format} without DICOM headers"
        if answered.encoded.scan.format == "DICOM":
            reason = "its images have no identifiers of their own (SeriesInstanceUID, SOPInstanceUID)"
        return f"DICOM: none; {reason}, so results cannot refer to a patient, study or image"
    # highdicom takes a second to import.
    from bundle.ctfindings.inference.output.dicom.write_dicom import write_dicom

    regions = answered.encoded.regions
    try:
        files = write_dicom(
            folder,
            Path(path),
            answered.record,
            answered.encoded.source,
            regions.inside,
            maps,
            regions.affine,
            anonymous,
        )
    except OSError as error:
        problem = f"DICOM results cannot be written there ({error.strerror or error})"
        raise ValueError(f"{folder}: {problem}; free some space, or give another dicom_dir") from error
    return f"DICOM: {folder} ({len(files)} objects)"


def _paths(value: str | Sequence[str | None] | None) -> list[str | None]:
    several = value if isinstance(value, list | tuple) else [] if value is None else [value]
    return [None if path is None else str(path) for path in several]
