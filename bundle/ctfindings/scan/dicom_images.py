"""The CT images in a set of DICOM files, by series; every other image is counted with the reason it is passed over."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom

from bundle.ctfindings.scan.dicom_headers import orientation, read_headers

SPACING_TOLERANCE = 1e-3
"""Relative difference of pixel spacing within a series; header jitter is below 1e-4."""

COSINE_TOLERANCE = 5e-3
"""Difference of a direction cosine within a series, 0.3 degrees."""

_TAGS = [
    "AcquisitionNumber", "Columns", "ImageOrientationPatient", "ImagePositionPatient", "ImageType", "InstanceNumber",
    "Modality", "NumberOfFrames", "PixelSpacing", "Rows", "SamplesPerPixel", "SeriesInstanceUID", "SeriesNumber",
    "SOPInstanceUID",
]  # fmt: skip
_COUNTS = {"ImageOrientationPatient": 6, "ImagePositionPatient": 3, "PixelSpacing": 2}


class Image(NamedTuple):
    """One CT image: its file and its header without pixels."""

    file: Path
    header: pydicom.Dataset


class Listing(NamedTuple):
    """The images among files.

    Attributes:
        series: images of equal size, spacing and orientation of each series.
        passed_over: number of images by the reason that they are in no series.
        damaged: number of files with a damaged header by the kind of error.
        frames: frames of the largest multi-frame image, 0 without one.
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
    for file, content, damage in read_headers((each for each in files if each.suffix.lower() != ".zip"), _TAGS, _kind):
        if damage:
            damaged[damage] += 1
        if content is None:
            continue
        header, frames, reason = content
        most_frames = max(most_frames, frames if frames > 1 else 0)
        # Some anonymizers give all images one UID.
        identity = (str(header.get("SOPInstanceUID") or file.path), tuple(header.get("ImagePositionPatient") or ()))
        if not reason and identity in seen:
            reason = "copies"
        if reason:
            passed_over[reason] += 1
            continue
        seen.add(identity)
        series = groups[str(header.get("SeriesInstanceUID", "")), int(header.Rows), int(header.Columns)]
        alike = next((images for images in series if _is_alike(images[0].header, header)), None)
        if alike is None:
            alike = []
            series.append(alike)
        alike.append(Image(file.path, header))
    return Listing([images for series in groups.values() for images in series], passed_over, damaged, most_frames)


def _kind(header: pydicom.Dataset) -> tuple[pydicom.Dataset, int, str] | None:
    """Header and frames of an image, and why it is passed over, empty for a plain CT image; None without an image."""
    if not header.get("Rows") or not header.get("Columns"):
        return None
    # A value that is not a number raises here, where it counts as a damaged header.
    frames, _, _ = (int(value) for value in (header.get("NumberOfFrames") or 1, header.Rows, header.Columns))
    if header.get("Modality") != "CT":
        return header, 0, "not CT"
    if frames > 1:
        return header, frames, "multi-frame (enhanced)"
    if int(header.get("SamplesPerPixel") or 1) != 1:
        return header, frames, "colour"
    if any(len(header.get(tag) or ()) != count for tag, count in _COUNTS.items()):
        return header, frames, "without position, orientation or pixel spacing"
    place, (row, column) = position(header), orientation(header)
    spacing = [float(value) for value in header.PixelSpacing]
    lengths = [np.linalg.norm(row), np.linalg.norm(column), np.linalg.norm(np.cross(row, column))]
    if not np.isfinite(place).all() or not np.allclose(lengths, 1, atol=0.01) or not min(spacing) > 0:
        return header, frames, "with an impossible position, orientation or pixel spacing"
    return header, frames, ""


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
    return f"series {images[0].header.get('SeriesNumber') or '?'} ({len(images)} images)"
