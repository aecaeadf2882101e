"""The anatomies and the evidence as DICOM segmentations on the source images."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pydicom
from highdicom import AlgorithmIdentificationSequence
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom.uid import CTImageStorage

from bundle.ctfindings.anatomy import ANATOMIES
from bundle.ctfindings.inference.findings_record import FindingAnswer, FindingsRecord
from bundle.ctfindings.inference.output.anatomy_map import label_planes
from bundle.ctfindings.inference.output.dicom import codes
from bundle.ctfindings.inference.output.dicom.scan_answers import ScanAnswers
from bundle.ctfindings.inference.output.dicom.source_headers import derived_uid, unique
from bundle.ctfindings.inference.output.dicom.structured_report import MANUFACTURER, series_description
from bundle.ctfindings.inference.output.evidence_volume import planes_on_scan
from bundle.ctfindings.scan.coordinates import Array, as_affine, ras_to_lps, world_to_voxel

EVIDENCE_FROM = 0.5
"""A voxel belongs to the region of the evidence from this share of the peak of its map."""


def segmentations(
    answers: ScanAnswers,
    headers: Sequence[pydicom.Dataset],
    settings: str,
    series_number: int,
    wanted: Collection[str] = ("anatomies", "evidence"),
) -> dict[str, Segmentation]:
    """``anatomies`` with those that were found, and ``evidence-N`` for map N; a scan without any has none.

    Each is a series of its own, because viewers list series and OHIF opens only one segmentation of a series.

    Args:
        answers: the answers.
        headers: of the source images of the slices, by ``source_headers``.
        settings: text from which the UIDs are derived.
        series_number: of the first new series.
        wanted: what is made; the UIDs do not depend on it.
    """
    record = answers.record
    grid, scan, shape = as_affine(answers.affine), as_affine(record.scan.affine), record.scan.shape
    objects: dict[str, Segmentation] = {}
    if "anatomies" in wanted:
        floats = [np.asarray(region, np.float32) for region in answers.regions]
        labels = np.stack(list(label_planes(floats, grid, scan, shape)))
        found = [anatomy for anatomy in ANATOMIES if (labels == anatomy.mask_id).any()]
        ids = np.zeros(len(ANATOMIES) + 1, np.uint8)
        ids[[anatomy.mask_id for anatomy in found]] = np.arange(1, len(found) + 1)
        # A label map is of anatomies that exclude each other.
        segments = [
            _segment(number, anatomy.name, codes.ANATOMICAL_STRUCTURE, codes.anatomy_code(anatomy.name), record)
            for number, anatomy in enumerate(found, start=1)
        ]
        if found:
            objects["anatomies"] = _object(
                "anatomies", segments, ids[labels], answers, headers, settings, series_number
            )
    by_key = {answer.key: answer for answer in record.answers}
    for number, (key, scores) in enumerate(answers.maps.items() if "evidence" in wanted else (), start=1):
        answer = by_key[key]
        code = codes.finding_code(answer.name) if isinstance(answer, FindingAnswer) else codes.QUERY
        region = np.stack(list(evidence_planes(scores, grid, scan, shape))).astype(np.uint8)
        if region.any():
            # A backslash would part the values of an element.
            label = key.replace("\\", "/")
            segments = [_segment(1, label, codes.EVIDENCE, code, record)]
            objects[f"evidence-{number}"] = _object(
                label, segments, region, answers, headers, settings, series_number + number
            )
    return objects


def evidence_planes(scores: Any, grid: Array, scan: Array, shape: tuple[int, int, int]) -> Iterator[NDArray[np.bool_]]:
    """Planes ``[Y, X]`` of the scan's third axis: where a map ``[x, y, z]`` is above ``EVIDENCE_FROM`` of its peak."""
    values = np.asarray(scores, np.float32)
    cut = max(EVIDENCE_FROM * float(values.max()), 1e-6)
    return (plane > cut for plane in planes_on_scan(values, grid, scan, shape))


def _object(
    name: str,
    segments: Sequence[SegmentDescription],
    planes: NDArray[np.uint8],
    answers: ScanAnswers,
    headers: Sequence[pydicom.Dataset],
    settings: str,
    series_number: int,
) -> Segmentation:
    """A segmentation of planes ``[Z, Y, X]``, one for each source image."""
    record, source = answers.record, answers.source
    once = {image: index for index, image in enumerate(zip(source.sop_uids, source.frame_numbers, strict=True))}
    images = [headers[index] for index in once.values()]
    # Where images are missing, several planes have one image: its own is the one at its position.
    positions = ras_to_lps([image.ImagePositionPatient for image in images])
    own = np.rint(world_to_voxel(positions, record.scan.affine)[:, 2]).astype(int).clip(0, len(planes) - 1)
    frames: dict[str, tuple[pydicom.Dataset, int]] = {}
    for index, (_, frame) in enumerate(once):
        if frame is not None:
            header, images[index] = images[index], _as_single_image(images[index], frame)
            frames[str(images[index].SOPInstanceUID)] = header, frame
    result = Segmentation(
        images,
        planes[own],
        SegmentationTypeValues.BINARY,
        segments,
        derived_uid("segmentation series", settings, name),
        series_number,
        derived_uid("segmentation", settings, name),
        1,
        MANUFACTURER,
        record.model.bundle,
        record.model.version,
        record.model.weights_sha256[:16],
        content_description=name[:64],
        content_label="ANATOMIES" if name == "anatomies" else "EVIDENCE",
        series_description=series_description(name),
    )
    organization = derived_uid("dimensions", settings, name)
    for item in [*result.DimensionOrganizationSequence, *result.DimensionIndexSequence]:
        item.DimensionOrganizationUID = organization
    if frames:
        _refer_to_frames(result, frames)
    return result


def _as_single_image(header: pydicom.Dataset, frame: int) -> pydicom.Dataset:
    """The header of a frame with a UID of its own.

    highdicom takes frames only if they are all frames of one image, of one orientation, each at a place of its own: no
    image with a localizer or two phases, and no part of a concatenation.
    """
    single = pydicom.Dataset()
    single.update(header)
    single.add_new("SOPClassUID", "UI", CTImageStorage)
    single.add_new("SOPInstanceUID", "UI", derived_uid("frame", str(header.SOPInstanceUID), str(frame)))
    return single


def _refer_to_frames(result: Segmentation, frames: Mapping[str, tuple[pydicom.Dataset, int]]) -> None:
    """References to the UIDs of frames become references to a frame of its image."""
    for item in result.PerFrameFunctionalGroupsSequence:
        for image in item.DerivationImageSequence[0].SourceImageSequence:
            if found := frames.get(image.ReferencedSOPInstanceUID):  # Segments of one plane share the item.
                header, image.ReferencedFrameNumber = found
                image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    references = []
    for header in unique([header for header, _ in frames.values()]):
        references.append(pydicom.Dataset())
        references[-1].ReferencedSOPClassUID = header.SOPClassUID
        references[-1].ReferencedSOPInstanceUID = header.SOPInstanceUID
    result.SourceImageSequence = references
    result.ReferencedSeriesSequence[0].ReferencedInstanceSequence = references


def _segment(
    number: int, label: str, category: CodedConcept, type_: CodedConcept, record: FindingsRecord
) -> SegmentDescription:
    algorithm = AlgorithmIdentificationSequence(
        record.model.bundle,
        codes.ARTIFICIAL_INTELLIGENCE,
        record.model.version,
        parameters={"weights": record.model.weights_sha256},
    )
    return SegmentDescription(number, label[:64], category, type_, SegmentAlgorithmTypeValues.AUTOMATIC, algorithm)
