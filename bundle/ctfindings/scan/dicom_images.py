"""The CT images in a set of DICOM files, by series; every other image is counted with the reason it is passed over."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom

from bundle.ctfindings.scan.dicom_frames import ENHANCED_CT, FRAME_TAGS, frame_headers
from bundle.ctfindings.scan.dicom_headers import image_type, orientation, read_headers

SPACING_TOLERANCE = 1e-3
"""Relative difference of pixel spacing within a series; header jitter is below 1e-4."""

COSINE_TOLERANCE = 5e-3
"""Difference of a direction cosine within a series, 0.3 degrees."""

_TAGS = [
    "AcquisitionNumber", "Columns", "ImageOrientationPatient", "ImagePositionPatient", "ImageType", "InstanceNumber",
    "Modality", "NumberOfFrames", "PixelSpacing", "Rows", "SamplesPerPixel", "SeriesInstanceUID", "SeriesNumber",
    "SOPClassUID", "SOPInstanceUID", *FRAME_TAGS,
]  # fmt: skip
OTHER_MULTI_FRAME = "multi-frame of another kind than Enhanced CT"
_COUNTS = {"ImageOrientationPatient": 6, "ImagePositionPatient": 3, "PixelSpacing": 2}


class Image(NamedTuple):
    """One CT image, or a frame of an Enhanced CT: its file, header without pixels, and number of the frame, from 1."""

    file: Path
    header: pydicom.Dataset
    frame: int | None = None


class Listing(NamedTuple):
    """The images among files.

    Attributes:
        series: images of equal size, spacing and orientation of each series; of frames also of equal type.
        passed_over: number of images by the reason that they are in no series.
        damaged: number of files that cannot be opened or have a damaged header, by the kind of error.
        frames: frames of the largest multi-frame image that is no Enhanced CT, 0 without one.
    """

    series: list[list[Image]]
    passed_over: Counter[str]
    damaged: Counter[str]
    frames: int


def list_images(files: Sequence[Path]) -> Listing:
    """Read the headers of files; those that are not DICOM, or DICOM without an image, are ignored."""
    groups: dict[tuple[Any, ...], list[list[Image]]] = defaultdict(list)
    seen: set[tuple[Any, ...]] = set()
    passed_over: Counter[str] = Counter()
    damaged: Counter[str] = Counter()
    most_frames = 0
    loose = (each for each in files if each.suffix.lower() != ".zip")
    for file, content, damage in read_headers(loose, _TAGS, _candidates):
        if damage:
            damaged[damage] += 1
        for header, frame, reason in content or ():
            if reason == OTHER_MULTI_FRAME:
                most_frames = max(most_frames, int(header.NumberOfFrames))
            uid = str(header.get("SeriesInstanceUID", ""))
            # Some anonymizers give all images one UID, or the same UIDs to the images of each series.
            name = str(header.get("SOPInstanceUID") or file.path)
            identity = (uid, name, frame, tuple(header.get("ImagePositionPatient") or ()))
            if not reason and identity in seen:
                reason = "copies"
            if reason:
                passed_over[reason] += 1
                continue
            seen.add(identity)
            kind = frozenset(image_type(header)) if frame else None
            series = groups[uid, int(header.Rows), int(header.Columns), kind]
            alike = next((images for images in series if _is_alike(images[0].header, header)), None)
            if alike is None:
                alike = []
                series.append(alike)
            alike.append(Image(file.path, header, frame))
    return Listing([images for series in groups.values() for images in series], passed_over, damaged, most_frames)


def _candidates(header: pydicom.Dataset) -> list[tuple[pydicom.Dataset, int | None, str]] | None:
    """The image of a file, or each of its frames, with the reason it is passed over, empty if it is not; None without
    an image.
    """
    if not header.get("Rows") or not header.get("Columns"):
        return None
    # A value that is not a number raises here, where it counts as a damaged header.
    frames, _, _ = (int(value) for value in (header.get("NumberOfFrames") or 1, header.Rows, header.Columns))
    if header.get("Modality") != "CT":
        return [(header, None, "not CT")]
    if header.get("SOPClassUID") in ENHANCED_CT:
        return [(each, number, _problem(each)) for number, each in enumerate(frame_headers(header), start=1)]
    grey = int(header.get("SamplesPerPixel") or 1) == 1  # A colour movie is no scan that could be exported otherwise.
    return [(header, None, OTHER_MULTI_FRAME if frames > 1 and grey else _problem(header))]


def _problem(header: pydicom.Dataset) -> str:
    """Why an image cannot be a slice; empty if it can."""
    if int(header.get("SamplesPerPixel") or 1) != 1:
        return "colour"
    if any(len(header.get(tag) or ()) != count for tag, count in _COUNTS.items()):
        return "without position, orientation or pixel spacing"
    place, (row, column) = position(header), orientation(header)
    spacing = [float(value) for value in header.PixelSpacing]
    lengths = [np.linalg.norm(row), np.linalg.norm(column), np.linalg.norm(np.cross(row, column))]
    if not np.isfinite(place).all() or not np.allclose(lengths, 1, atol=0.01) or not min(spacing) > 0:
        return "with an impossible position, orientation or pixel spacing"
    return ""


def _is_alike(first: pydicom.Dataset, second: pydicom.Dataset) -> bool:
    """Whether two images of a series have the same spacing and orientation."""
    return np.allclose(
        np.asarray(first.PixelSpacing, float), np.asarray(second.PixelSpacing, float), rtol=SPACING_TOLERANCE, atol=0
    ) and np.allclose(
        np.asarray(first.ImageOrientationPatient, float),
        np.asarray(second.ImageOrientationPatient, float),
        rtol=0,
        atol=COSINE_TOLERANCE,
    )


def position(header: pydicom.Dataset) -> np.ndarray:
    """Centre of the first pixel, LPS mm, (3,)."""
    return np.asarray(header.ImagePositionPatient, np.float64)


def depths(images: Sequence[Image]) -> np.ndarray:
    """Positions of images along the normal of the first one, mm, (N,)."""
    normal = np.cross(*orientation(images[0].header))
    return np.array([float(position(image.header) @ normal) for image in images])


def describe(images: Sequence[Image]) -> str:
    """Series number and image count. The series description is free text and may name the patient."""
    unit = "images" if images[0].frame is None else "frames"
    number = images[0].header.get("SeriesNumber")
    return f"series {'without a number' if number in (None, '') else number} ({len(images)} {unit})"
