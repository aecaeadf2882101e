"""The findings as a DICOM structured report: TID 1500, one measurement group for each finding and query.

A viewer shows the items in their order, often without more layout than that. So what limits the report comes first,
then the present findings, and only they and queries have a place.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pydicom
from highdicom import sr
from highdicom.sr.value_types import TextContentItem
from pydicom.sr.codedict import codes as DCM_CODES

from bundle.ctfindings.inference.findings_record import Answer, Evidence, FindingAnswer, FindingsRecord, QueryAnswer
from bundle.ctfindings.inference.output.dicom import codes
from bundle.ctfindings.inference.output.dicom.source_headers import derived_uid, unique

MANUFACTURER = "CT Findings"


def series_description(content: str) -> str:
    """Name of a series in the list of a viewer, of at most 64 characters."""
    return f"CT Findings: {content[:34]} (research only)"


def structured_report(
    record: FindingsRecord, headers: Sequence[pydicom.Dataset], settings: str, series_number: int
) -> sr.Comprehensive3DSR:
    """The report of one scan.

    The disclaimer, the notice and the warnings are comments of the report, before the findings, of which the present
    ones come first. Why a finding was not assessed, and what a query's score is worth, is a comment of its group.
    Region and image of the evidence of a present finding or query are a text of its group. Measurements refer to the
    image or frame that has the peak of the evidence.

    Args:
        record: the answers.
        headers: of the source images, by ``source_headers``.
        settings: text from which the UIDs are derived.
        series_number: of the new series.
    """
    images = {str(header.SOPInstanceUID): header for header in unique(headers)}
    algorithm = sr.AlgorithmIdentification(
        record.model.bundle,
        record.model.version,
        [f"weights SHA-256 {record.model.weights_sha256}", f"network {record.model.network}"],
        family=codes.ARTIFICIAL_INTELLIGENCE,
    )
    observer = sr.DeviceObserverIdentifyingAttributes(
        derived_uid("device", record.model.weights_sha256),
        name=record.model.bundle,
        manufacturer_name=MANUFACTURER,
        model_name=record.model.network,
        serial_number=record.model.weights_sha256[:16],
    )
    answers: list[Answer] = [*record.ordered(), *record.queries]
    report = sr.MeasurementReport(
        sr.ObservationContext(sr.ObserverContext(DCM_CODES.DCM.Device, observer)),
        codes.CT_OF_CHEST,
        [_group(answer, images, algorithm, settings) for answer in answers],
        title=DCM_CODES.DCM.ImagingMeasurementReport,
    )
    report[0].ContinuityOfContent = "SEPARATE"
    content = report[0].ContentSequence
    groups = next(index for index, item in enumerate(content) if item.name == DCM_CODES.DCM.ImagingMeasurements)
    for text in reversed([record.disclaimer, *([record.notice] if record.notice else []), *record.warnings]):
        content.insert(groups, _text(codes.COMMENT, text))
    return sr.Comprehensive3DSR(
        list(images.values()),
        report[0],
        derived_uid("report series", settings),
        series_number,
        derived_uid("report", settings),
        1,
        MANUFACTURER,
        is_complete=True,
        series_description=series_description("report"),
    )


def _group(
    answer: Answer, images: Mapping[str, pydicom.Dataset], algorithm: sr.AlgorithmIdentification, settings: str
) -> sr.MeasurementsAndQualitativeEvaluations:
    source = None if answer.not_assessed else _image(answer.evidence, images)
    group = sr.MeasurementsAndQualitativeEvaluations(
        sr.TrackingIdentifier(derived_uid("tracking", settings, answer.key), answer.key),
        finding_type=codes.finding_code(answer.name) if isinstance(answer, FindingAnswer) else codes.QUERY,
        algorithm_id=algorithm,
        finding_sites=_sites(answer),
        measurements=_measurements(answer, source),
        qualitative_evaluations=[sr.QualitativeEvaluation(codes.PRESENCE, codes.RESULTS[answer.result])]
        if answer.result in codes.RESULTS
        else None,
    )
    group[0].ContinuityOfContent = "SEPARATE"  # Items with their names, not a text of their values.
    group[0].ContentSequence.extend(_texts(answer))
    return group


def _sites(answer: Answer) -> list[sr.FindingSite] | None:
    """The anatomy. Only the lung is paired, and only a focal finding that is present has a side."""
    if isinstance(answer, QueryAnswer) and not answer.meaningful:
        return None
    place = answer.evidence
    side = None
    if isinstance(answer, FindingAnswer) and answer.present and answer.anatomy == "lung" and place:
        side = codes.SIDES.get(place.side or "") if place.extent == "focal" else None
    return [sr.FindingSite(codes.anatomy_code(answer.anatomy), laterality=side)]


def _measurements(answer: Answer, source: list[sr.SourceImageForMeasurement] | None) -> list[sr.Measurement] | None:
    """The numbers of an answer; none if it was not assessed, because they would be read as a result."""

    def number(name: sr.CodedConcept, value: float, source: list[sr.SourceImageForMeasurement] | None = None) -> Any:
        return sr.Measurement(name, round(value, 4), codes.NO_UNIT, referenced_images=source)

    if answer.not_assessed:
        return None
    if isinstance(answer, QueryAnswer):
        return [number(codes.SCORE, answer.score, source)]
    threshold = [number(codes.THRESHOLD, answer.threshold)] if answer.threshold <= 1 else []  # It is 2 if not fitted.
    return [number(codes.PROBABILITY, answer.probability, source), *threshold]


def _texts(answer: Answer) -> list[TextContentItem]:
    if answer.not_assessed:
        return [_text(codes.COMMENT, f"Not assessed: {answer.not_assessed}")]
    texts = []
    if answer.evidence and answer.result != "not present":
        where = filter(None, [answer.evidence.place, answer.evidence.image_name])
        texts.append(_text(codes.PLACE, ", ".join(where)))
    if isinstance(answer, QueryAnswer):
        texts += [_text(codes.COMMENT, text) for text in (answer.meaning, *answer.hints) if text]
    return texts


def _image(
    evidence: Evidence | None, images: Mapping[str, pydicom.Dataset]
) -> list[sr.SourceImageForMeasurement] | None:
    if evidence is None or evidence.sop_instance_uid is None:
        return None
    header = images[evidence.sop_instance_uid]
    frames = None if evidence.frame_number is None else [evidence.frame_number]
    return [sr.SourceImageForMeasurement(header.SOPClassUID, header.SOPInstanceUID, frames)]


def _text(concept: sr.CodedConcept, text: str) -> TextContentItem:
    return TextContentItem(concept, text, sr.RelationshipTypeValues.CONTAINS)
