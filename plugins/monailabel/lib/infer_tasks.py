"""Models of the server: findings with anatomies, findings as points, evidence, and the scan itself."""

import dataclasses
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from bundle.ctfindings.anatomy import ANATOMIES
from bundle.ctfindings.inference.answers import ScoredAnswer
from bundle.ctfindings.inference.evidence import depth_profile
from bundle.ctfindings.inference.findings_record import QueryAnswer
from bundle.ctfindings.inference.output.draft_report import format_draft
from bundle.ctfindings.inference.output.evidence_volume import write_evidence
from bundle.ctfindings.inference.output.slicer_markups import write_markups
from bundle.ctfindings.inference.service import AnsweredScan
from bundle.ctfindings.reports.queries import check_queries

from .dicom_outputs import DICOM_OUTPUTS
from .scan_service import ScanService
from .usage_error import UsageError

LABEL_NAMES = {anatomy.name: anatomy.mask_id for anatomy in ANATOMIES}


class _Task(InferTask):
    """A model behind the service. ``request["image"]`` is a path; ``request["output"] == "json"`` asks for no file."""

    def __init__(self, service: ScanService, type: InferType, labels: dict[str, int], description: str) -> None:
        super().__init__(type=type, labels=labels, dimension=3, description=description)
        self.service = service

    def config(self) -> dict[str, Any]:
        return dict(self.service.versions())

    def is_valid(self) -> bool:
        return True

    def dicom(
        self, request: Mapping[str, Any], segment: str, scan: AnsweredScan, placed: Iterable[ScoredAnswer]
    ) -> str:
        """File of the DICOM output that is asked for, with the maps of the placed answers."""
        output = request["output"]
        file = _result_file(DICOM_OUTPUTS[output])
        maps = {each.answer.key: scan.encoded.evidence_map(each) for each in placed}
        with _removed_on_error(file):
            self.service.write_dicom(request["image"], file, output, segment, scan, maps)
        return file


class FindingsTask(_Task):
    """The anatomies as a label map, the whole findings record, and its draft report as text."""

    def __init__(self, service: ScanService) -> None:
        super().__init__(
            service, InferType.SEGMENTATION, LABEL_NAMES, "Findings of a chest CT with the anatomies. Research only."
        )

    def __call__(self, request: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        scan = self.service.answered(request["image"])
        file = None
        if request.get("output") in DICOM_OUTPUTS:
            file = self.dicom(request, "anatomies", scan, scan.present)
        elif request.get("output") != "json":
            file = _result_file(".nii.gz")
            with _removed_on_error(file):
                scan.write_anatomy(file)
        record, draft = scan.record.to_dict(), format_draft(scan.record)
        return file, {"record": record, "draft_report": draft, "label_names": LABEL_NAMES}


class FindingsPointsTask(_Task):
    """A point for each present finding, as a Slicer markups file."""

    def __init__(self, service: ScanService) -> None:
        super().__init__(
            service, InferType.SEGMENTATION, {}, "Present findings of a chest CT as labelled points. Research only."
        )

    def __call__(self, request: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        scan = self.service.answered(request["image"])
        if (output := request.get("output")) in DICOM_OUTPUTS:
            raise UsageError(400, f"output={output}: ask the model 'findings' or 'evidence', which answer in DICOM")
        present = {answer.name: answer.probability for answer in scan.record.ordered() if answer.present}
        file = None
        if request.get("output") != "json":
            file = _result_file(".mrk.json")
            with _removed_on_error(file):
                write_markups(file, scan.record)
        return file, {"findings": present, "disclaimer": scan.record.disclaimer}


class EvidenceTask(_Task):
    """Where a finding, or a question in free text, is seen."""

    def __init__(self, service: ScanService) -> None:
        super().__init__(
            service, InferType.OTHERS, {}, "Heat map of a finding or of a question in free text. Research only."
        )

    def config(self) -> dict[str, Any]:
        return {**super().config(), "query": "", "finding": list(self.service.findings.findings)}

    def __call__(self, request: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        ask = self._question(request)
        scan = self.service.answered(request["image"])
        started = time.perf_counter()
        placed = ask(scan)
        params = _evidence_params(scan, placed)
        seconds = time.perf_counter() - started
        file = None
        if request.get("output") in DICOM_OUTPUTS:
            queries = [placed.answer] if isinstance(placed.answer, QueryAnswer) else []
            asked = dataclasses.replace(scan, record=dataclasses.replace(scan.record, queries=queries))
            file = self.dicom(request, "evidence", asked, [placed])
        elif request.get("output") != "json":
            file = _result_file(".nii.gz")
            with _removed_on_error(file):
                write_evidence(file, [scan.encoded.evidence_map(placed)], *scan.encoded.grids)
        return file, {**params, "seconds": seconds}

    def _question(self, request: Mapping[str, Any]) -> Callable[[AnsweredScan], ScoredAnswer]:
        """The question of a request, refused before the scan is read. Free text wins: a list of choices always names a
        finding.
        """
        query, finding = request.get("query"), request.get("finding")
        findings = self.service.findings
        for name, value in (("query", query), ("finding", finding)):
            if value is not None and not isinstance(value, str | list):
                raise UsageError(400, f"{name}: expected a text, got {str(value)[:40]!r}")
        if isinstance(query, str) and query.strip():
            text = query
            try:
                check_queries(text)
            except ValueError as error:
                raise UsageError(400, str(error)) from error
            return lambda scan: findings.ask(scan, text)
        if isinstance(finding, str) and finding.strip():
            if finding not in findings.findings:
                raise UsageError(400, f"finding {finding[:100]!r} is unknown; known are {', '.join(findings.findings)}")
            return lambda scan: scan.placed[finding]
        raise UsageError(
            400,
            'params: no finding and no query; give one, such as {"query": "fluid around the left lung"}',
        )


class ScanTask(_Task):
    """The scan as the bundle reads it, for clients that have no reader of their own. Nothing is encoded."""

    def __init__(self, service: ScanService) -> None:
        super().__init__(service, InferType.OTHERS, {}, "The scan in HU, as the other models see it.")

    def __call__(self, request: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        if request.get("output") == "json" or request.get("output") in DICOM_OUTPUTS:
            raise UsageError(400, "the model 'scan' answers with a NIfTI file only; ask for output=image or all")
        file = _result_file(".nii.gz")
        with _removed_on_error(file):
            self.service.write_scan(request["image"], file)
        return file, {"disclaimer": "Research only. Not a diagnosis."}


_OF_THE_ANSWER = (
    "anatomy",
    "anatomy_found",
    "threshold",
    "present",
    "not_assessed",
    "nearest_findings",
    "asked",
    "percentile",
    "meaning",
    "hints",
)
"""Entries of an answer in the record that its answer over HTTP repeats; null where the record has none."""


def _evidence_params(scan: AnsweredScan, placed: ScoredAnswer) -> dict[str, Any]:
    """The answer in plain, finite values; without evidence, its place is None."""
    answer, place = placed.answer, placed.answer.evidence
    told, shared = scan.record.to_dict(), dataclasses.asdict(answer)
    depth = [] if place is None else depth_profile(scan.encoded.evidence_map(placed), scan.encoded.regions.affine)
    return {
        "text": answer.text if isinstance(answer, QueryAnswer) else answer.name,
        "probability": None if isinstance(answer, QueryAnswer) else answer.probability,
        "score": placed.score,
        "depth": [{"z_mm": level.z_mm, "score": level.score} for level in depth],
        "z_mm": None if place is None else place.z_mm,
        "peak_mm": None if place is None else list(place.peak_mm),
        "peak_score": None if place is None else place.peak_score,
        "slice_index": None if place is None else place.slice_index,
        "slice_axis": None if place is None else place.slice_axis,
        "image": None if place is None else place.image,
        "side": None if place is None else place.side,
        "region": None if place is None else place.region,
        "extent": None if place is None else place.extent,
        "share": None if place is None else place.share,
        "sop_instance_uid": None if place is None else place.sop_instance_uid,
        "instance_number": None if place is None else place.instance_number,
        "frame_number": None if place is None else place.frame_number,
        **{key: shared.get(key) for key in _OF_THE_ANSWER},
        **{key: told[key] for key in ("notice", "warnings", "disclaimer")},
        "box_mm": None if place is None or place.box_mm is None else [list(corner) for corner in place.box_mm],
    }


def _result_file(suffix: str) -> str:
    """A name that nobody else has; who answers the request removes the file."""
    handle, file = tempfile.mkstemp(prefix="ctfindings_", suffix=suffix)
    os.close(handle)
    return file


@contextmanager
def _removed_on_error(file: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.unlink(file)
        raise
