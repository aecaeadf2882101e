"""Reads one CT series in HU from a folder or zip of DICOM: chooses the series, sorts and evenly spaces its slices."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
from pydicom.pixels import get_decoder

from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.files.folders import files_below
from bundle.ctfindings.scan.coordinates import LPS_TO_RAS
from bundle.ctfindings.scan.dicom_headers import DicomFile, image_type, is_axial, orientation, read_headers, unpacked
from bundle.ctfindings.scan.storage import Volume

MIN_IMAGES = 5
MAX_GAP_MM = 10.0

_TAGS = [
    "AcquisitionNumber", "Columns", "ImageOrientationPatient", "ImagePositionPatient", "ImageType", "InstanceNumber",
    "Modality", "NumberOfFrames", "PixelSpacing", "Rows", "SamplesPerPixel", "SeriesInstanceUID", "SeriesNumber",
    "SOPInstanceUID",
]  # fmt: skip


class _Image(NamedTuple):
    """One CT image: its file and its header without pixels."""

    file: Path
    header: pydicom.Dataset


def read_dicom(source: Path, path: str | Path) -> Volume:
    """The longest axial CT series in a folder or a zip; see ``read_dicom_files``."""
    if source.is_dir():
        return read_dicom_files(files_below(source), path)
    with unpacked([DicomFile(source)]) as files:
        return read_dicom_files(files, path)


def read_dicom_files(files: Sequence[Path], path: str | Path) -> Volume:
    """The longest axial CT series among files; those that are not DICOM are ignored.

    ``path`` names the study in errors and warnings.

    Raises:
        ScanError: if there is no such series, an image cannot be decoded, or images are missing.
    """
    series, damaged = _ct_series(files, path)
    chosen, others = _choose_series(series, path)
    along_row, along_column = orientation(chosen[0].header)
    normal = np.cross(along_row, along_column)
    chosen = sorted(chosen, key=lambda image: float(_position(image.header) @ normal))
    positions = np.stack([_position(image.header) for image in chosen])
    slices, step, gaps = _even_slices(_read_pixels(chosen, path), positions, normal, path)
    rows, columns = (float(value) for value in chosen[0].header.PixelSpacing)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([along_row * columns, along_column * rows, step], axis=1)
    affine[:3, 3] = positions[0]
    return Volume(slices.T, LPS_TO_RAS @ affine, "dicom", damaged + others + gaps)


def _ct_series(files: Sequence[Path], path: str | Path) -> tuple[list[list[_Image]], list[str]]:
    """All plain CT images by series, frame size and orientation; and a warning if some headers are damaged."""
    groups: dict[tuple[Any, ...], list[_Image]] = defaultdict(list)
    seen: set[str] = set()
    damaged: Counter[str] = Counter()
    multi_frame = False
    for file, content, damage in read_headers((each for each in files if each.suffix.lower() != ".zip"), _TAGS, _kind):
        if damage:
            damaged[damage] += 1
        if content is None:
            continue
        header, frames, group = content
        multi_frame |= frames > 1
        identity = str(header.get("SOPInstanceUID") or file.path)
        if group and identity not in seen:  # A folder may contain the same image twice.
            seen.add(identity)
            groups[group].append(_Image(file.path, header))
    damage = f"contains {damaged.total()} DICOM files with a damaged header ({', '.join(damaged)})"
    if not groups and multi_frame:
        raise ScanError(path, "contains multi-frame (enhanced) DICOM; convert it to NIfTI, e.g. with dcm2niix")
    if not groups and damaged:
        raise ScanError(path, f"{damage} and no CT images; export the series again", "no CT images")
    if not groups:
        raise ScanError(path, "contains no CT images in DICOM; give the folder or zip of one CT series", "no CT images")
    series = [phase for images in groups.values() for phase in _split_phases(images)]
    return series, [f"{path} {damage}, which are ignored"] if damaged else []


def _kind(header: pydicom.Dataset) -> tuple[pydicom.Dataset, int, tuple[Any, ...]] | None:
    """Header and frames of a CT, and series, frame size, spacing and orientation of a plain image, else empty."""
    if header.get("Modality") != "CT":
        return None
    frames = int(header.get("NumberOfFrames") or 1)
    counts = {"ImageOrientationPatient": 6, "ImagePositionPatient": 3, "PixelSpacing": 2}
    plain = all(len(header.get(tag) or ()) == count for tag, count in counts.items())
    sized = header.get("Rows") and header.get("Columns")
    if not plain or not sized or int(header.get("SamplesPerPixel") or 1) != 1:
        return header, frames, ()
    _position(header)  # Raises here, where an error counts as a damaged header.
    direction = tuple(np.round(np.concatenate(orientation(header)), 2))
    spacing = tuple(round(float(value), 4) for value in header.PixelSpacing)
    size = (int(header.Rows), int(header.Columns))
    return header, frames, (str(header.get("SeriesInstanceUID", "")), *size, spacing, direction)


def _split_phases(images: list[_Image]) -> list[list[_Image]]:
    """Split a series with several images at one position (contrast phases, gating) by acquisition."""
    places = {tuple(np.round(_position(image.header), 2)) for image in images}
    if len(places) == len(images):
        return [images]
    phases: dict[str, list[_Image]] = defaultdict(list)
    for image in images:
        phases[str(image.header.get("AcquisitionNumber"))].append(image)
    return list(phases.values())


def _choose_series(series: list[list[_Image]], path: str | Path) -> tuple[list[_Image], list[str]]:
    """The longest axial series of original images, else of derived ones; and warnings that name the others."""
    axial = [images for images in series if len(images) >= MIN_IMAGES and is_axial(images[0].header)]
    original = [images for images in axial if not image_type(images[0].header) & {"DERIVED", "SECONDARY"}]
    if not axial:
        found = ", ".join(_describe(images) for images in series)
        raise ScanError(
            path,
            f"contains no axial CT series of at least {MIN_IMAGES} images (found: {found}); give an axial chest CT",
            "no axial CT series",
        )
    chosen = max(original or axial, key=len)
    warnings = []
    others = [_describe(images) for images in series if images is not chosen]
    if others:
        warnings.append(
            f"{path} contains {len(series)} CT series; {_describe(chosen)} was read, not: {', '.join(others)}"
        )
    if not original:
        warnings.append(f"{path} contains only derived or secondary images; their processing may affect findings")
    return chosen, warnings


def _describe(images: list[_Image]) -> str:
    """Series number and image count. The series description is free text and may name the patient."""
    return f"series {images[0].header.get('SeriesNumber') or '?'} ({len(images)} images)"


def _position(header: pydicom.Dataset) -> np.ndarray:
    """Centre of the first pixel, LPS mm, (3,)."""
    return np.asarray(header.ImagePositionPatient, np.float64)


def _read_pixels(images: list[_Image], path: str | Path) -> np.ndarray:
    """HU (Z, rows, columns) float32, with the slope and intercept of each image applied once."""
    header = images[0].header
    slices = np.empty((len(images), int(header.Rows), int(header.Columns)), np.float32)
    for index, image in enumerate(images):
        try:
            dataset = pydicom.dcmread(image.file)
            if get_decoder(dataset.file_meta.TransferSyntaxUID).is_available:
                slope, intercept = (
                    float(dataset.get(tag, default)) for tag, default in (("RescaleSlope", 1), ("RescaleIntercept", 0))
                )
                np.multiply(dataset.pixel_array, np.float32(slope), out=slices[index], casting="unsafe")
                slices[index] += np.float32(intercept)
            else:
                slices[index] = _read_pixels_with_gdcm(image.file)
        except (AttributeError, EOFError, NotImplementedError, OSError, RuntimeError, ValueError) as error:
            number = image.header.get("InstanceNumber")
            raise ScanError(
                path, f"image {number} of {_describe(images)} cannot be decoded ({error}); export the series again"
            ) from error
    return slices


def _read_pixels_with_gdcm(file: Path) -> np.ndarray:
    """HU (rows, columns). For JPEG Lossless, which pydicom needs plug-ins for; GDCM applies the rescale itself."""
    import itk

    reader = itk.ImageFileReader[itk.Image[itk.F, 3]].New(FileName=str(file), ImageIO=itk.GDCMImageIO.New())
    reader.Update()
    return np.array(itk.array_view_from_image(reader.GetOutput()))[0]


def _even_slices(
    slices: np.ndarray, positions: np.ndarray, normal: np.ndarray, path: str | Path
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Interpolate slices to even distances if a few are missing or uneven.

    Takes slices (Z, rows, columns) sorted along their unit ``normal`` (3,), and the centres of their first pixels in
    LPS mm, (Z, 3). Returns the slices, the step from one to the next in LPS mm, (3,), and warnings.
    """
    depth = (positions - positions[0]) @ normal
    distances = np.diff(depth)
    typical = float(np.median(distances))
    direction = (positions[-1] - positions[0]) / depth[-1] if depth[-1] > 0 else normal
    if distances.min() < 0.01:
        raise ScanError(
            path, "two images of the series lie at the same position; export one phase or reconstruction only"
        )
    if np.abs(positions - positions[0] - depth[:, None] * direction).max() > 1.0:
        raise ScanError(path, "the images of the series do not lie on one line; export one acquisition only")
    tolerance = max(0.05 * typical, 0.05)
    if np.abs(distances - typical).max() <= tolerance:
        return slices, direction * depth[-1] / (len(depth) - 1), []
    widest = int(distances.argmax())
    if distances[widest] > max(MAX_GAP_MM, 1.5 * typical):
        around = f"between z = {positions[widest][2]:.1f} and {positions[widest + 1][2]:.1f} mm"
        raise ScanError(
            path,
            f"images are missing: a gap of {distances[widest]:.1f} mm {around}; export the whole series",
            "missing slices",
        )
    even = np.arange(int(np.floor(depth[-1] / typical + 1e-3)) + 1) * typical
    place = np.interp(even, depth, np.arange(len(depth)))
    below = np.minimum(place.astype(int), len(depth) - 2)
    weight = (place - below).astype(np.float32)[:, None, None]
    filled = slices[below]
    filled += weight * (slices[below + 1] - filled)
    spread = f"slices lie {distances.min():.1f} to {distances.max():.1f} mm apart"
    warning = f"{path}: {spread}; missing ones were interpolated at {typical:.1f} mm"
    return filled, direction * typical, [warning]
