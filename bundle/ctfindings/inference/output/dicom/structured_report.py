"""The findings as a DICOM structured report: TID 1500, one measurement group for each finding and query."""

from collections.abc import Mapping, Sequence

import pydicom
from highdicom import sr
from highdicom.sr.value_types import TextContentItem
from pydicom.sr.codedict import codes as DCM_CODES

from bundle.ctfindings.inference.findings_record import Answer, Evidence, FindingAnswer, FindingsRecord
from bundle.ctfindings.inference.output.dicom import codes
from bundle.ctfindings.inference.output.dicom.source_headers import derived_uid, unique

MANUFACTURER = "CT Findings"


def series_description(content: str) -> str:
    """Name of a series in the list of a viewer, of at most 64 characters."""
    return f"CT Findings: {content[:34]} (research only)"


def structured_report(
    record: FindingsRecord, headers: Sequence[pydicom.Dataset], settings: str, series_number: int
) -> sr.Comprehensive3DSR:
    """The report of one scan; ``headers`` are by ``source_headers``, the UIDs derived from the text ``settings``.

    The notice, the warnings and the disclaimer are comments of the report; why a finding was not assessed is a comment
    of its group. The region of the evidence is a text of the group. Measurements refer to the image or frame that has
    the peak of the evidence.
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
    report = sr.MeasurementReport(
        sr.ObservationContext(sr.ObserverContext(DCM_CODES.DCM.Device, observer)),
        codes.CT_OF_CHEST,
        [_group(answer, images, algorithm, settings) for answer in record.answers],
        title=DCM_CODES.DCM.ImagingMeasurementReport,
    )
    for text in [record.disclaimer, *([record.notice] if record.notice else []), *record.warnings]:
        report[0].ContentSequence.append(_text(codes.COMMENT, text))
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
    # Only the lung is paired, and only a focal finding that was assessed has a side.
    sided = isinstance(answer, FindingAnswer) and answer.present is not None and answer.anatomy == "lung"
    focal = answer.evidence if sided and answer.evidence and answer.evidence.extent == "focal" else None
    side = codes.SIDES.get(focal.side or "") if focal else None
    source = None if answer.not_assessed else _image(answer.evidence, images)
    values = (
        [(codes.PROBABILITY, answer.probability), (codes.THRESHOLD, answer.threshold)]
        if isinstance(answer, FindingAnswer)
        else [(codes.SCORE, answer.score)]
    )
    group = sr.MeasurementsAndQualitativeEvaluations(
        sr.TrackingIdentifier(derived_uid("tracking", settings, answer.key), answer.key),
        finding_type=codes.finding_code(answer.name) if isinstance(answer, FindingAnswer) else codes.QUERY,
        algorithm_id=algorithm,
        finding_sites=[sr.FindingSite(codes.anatomy_code(answer.anatomy), laterality=side)],
        measurements=[
            sr.Measurement(name, round(value, 6), codes.NO_UNIT, referenced_images=source) for name, value in values
        ],
        qualitative_evaluations=[sr.QualitativeEvaluation(codes.PRESENCE, codes.RESULTS[answer.result])]
        if answer.result in codes.RESULTS
        else None,
    )
    if answer.not_assessed:
        group[0].ContentSequence.append(_text(codes.COMMENT, f"Not assessed: {answer.not_assessed}"))
    elif answer.evidence and answer.evidence.region:
        group[0].ContentSequence.append(_text(codes.PLACE, answer.evidence.region))
    return group


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
