"""The headers of the source images, which say to which patient and study the results belong."""

import uuid
from collections.abc import Sequence
from pathlib import Path

import pydicom
from pydicom.uid import CTImageStorage
from pydicom.valuerep import DA, TM

from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.scan.dicom_frames import ENHANCED_CT, FRAME_TAGS, frame_headers
from bundle.ctfindings.scan.dicom_headers import read_headers
from bundle.ctfindings.scan.storage import SourceImages

_PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge", "PatientSize", "PatientWeight")
_STUDY = ("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyDescription")
_IMAGE = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "Modality",
    "InstanceNumber", "Rows", "Columns", "PixelSpacing", "SliceThickness", "ImagePositionPatient",
    "ImageOrientationPatient", "NumberOfFrames", *FRAME_TAGS,
)  # fmt: skip


NO_DATE = "19000101"

_ESCAPE = "\x1b$)A"
"""Begins Chinese characters of ISO 2022 IR 58; pydicom leaves it in the text that it decodes."""


def derived_uid(*parts: str) -> str:
    """The same UID for the same texts: below 2.25, from a version 5 UUID."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '|'.join(parts)).int}"


def source_headers(
    path: Path, files: Sequence[Path], images: SourceImages, thickness_mm: float, anonymous: bool = False
) -> list[pydicom.Dataset]:
    """Headers of the images of the slices, in their order, with patient and study attributes and without pixels.

    A frame of an Enhanced CT has a header as a single image has. ``filename`` of a header is the path of its image.

    Args:
        path: the folder, file or zip that was read, for messages.
        files: the files in it.
        images: the images of the slices.
        thickness_mm: slice thickness of an image that does not say its own.
        anonymous: whether patient and study attributes are empty, and the study gets another UID.

    Raises:
        ScanError: if an image is no longer there.
    """
    wanted = set(zip(images.sop_uids, images.frame_numbers, strict=True))
    found: dict[tuple[str, int | None], pydicom.Dataset] = {}
    tags = [*_IMAGE, *_PATIENT, *_STUDY, "SpecificCharacterSet"]
    for file, headers, _ in read_headers(files, tags, _by_frame):
        for frame, header in (headers or {}).items():
            image = (str(header.get("SOPInstanceUID", "")), frame)
            # Some anonymizers give the same UIDs to the images of each series; of copies, the reader takes the first.
            of_series = str(header.get("SeriesInstanceUID", "")) == images.series_uid
            if of_series and image in wanted and image not in found:
                header.filename = str(file.path)
                found[image] = header
    if missing := wanted - found.keys():
        problem = f"{len(missing)} of its images are gone or changed since they were read; run it again"
        raise ScanError(path, problem, "images-changed")
    for header in found.values():
        _complete(header, thickness_mm, anonymous)
    return [found[image] for image in zip(images.sop_uids, images.frame_numbers, strict=True)]


def _by_frame(header: pydicom.Dataset) -> dict[int | None, pydicom.Dataset]:
    if header.get("SOPClassUID") in ENHANCED_CT:
        return dict(enumerate(frame_headers(header), start=1))
    return {None: header}


def _complete(header: pydicom.Dataset, thickness_mm: float, anonymous: bool) -> None:
    """Adds what every result needs, and removes what an anonymous one may not have or DICOM does not allow."""
    series = str(header.SeriesInstanceUID)
    for name in (*_PATIENT[:4], *_STUDY[:5]):
        if anonymous or name not in header:
            setattr(header, name, None)
    if anonymous:
        for name in (*_PATIENT[4:], _STUDY[5]):
            if name in header:
                delattr(header, name)
    if header.PatientSex not in ("M", "F", "O"):
        header.PatientSex = None
    for name, kind in (("PatientBirthDate", DA), ("StudyDate", DA), ("StudyTime", TM)):
        try:
            kind(str(header.get(name) or ""))
        except ValueError:
            setattr(header, name, None)
    if anonymous or not header.get("StudyInstanceUID"):
        header.StudyInstanceUID = derived_uid("study", series)
    for name, value in (
        ("SOPClassUID", CTImageStorage),
        ("FrameOfReferenceUID", derived_uid("frame of reference", series)),
        ("SliceThickness", round(thickness_mm, 4)),
    ):
        if not header.get(name):
            setattr(header, name, value)
    for name in (*_PATIENT, *_STUDY):
        if _ESCAPE in (text := str(header.get(name) or "")):
            setattr(header, name, text.replace(_ESCAPE, ""))
    # The texts are decoded. highdicom refuses some common character sets, and results may have other characters.
    header.SpecificCharacterSet = "ISO_IR 192"


def set_date(result: pydicom.Dataset, source: pydicom.Dataset) -> None:
    """Dates a result like the study of its source; ``NO_DATE`` if that has no date, as in an anonymous result.

    The day of the run is not a property of the patient's study, and would make two runs differ.
    """
    date, time = str(source.get("StudyDate") or NO_DATE), str(source.get("StudyTime") or "000000")
    names = [(f"{kind}Date", f"{kind}Time") for kind in ("Content", "InstanceCreation", "Series")]
    for pair in [*names, ("DateOfSecondaryCapture", "TimeOfSecondaryCapture")]:
        for name, value in zip(pair, (date, time), strict=True):
            if name in result:
                setattr(result, name, value)
    for equipment in result.get("ContributingEquipmentSequence", []):
        equipment.ContributionDateTime = f"{date}{time}"


def unique(headers: Sequence[pydicom.Dataset]) -> list[pydicom.Dataset]:
    """Each image once, in order; slices that were interpolated may share one."""
    return list({str(header.SOPInstanceUID): header for header in headers}.values())
