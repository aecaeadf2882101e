"""Reading one CT series from a folder or a zip of DICOM: which series, in which order, evenly spaced, in HU."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
from pydicom.pixels import get_decoder

from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.files.folders import files_below
from bundle.ctfindings.scan.dicom_header import DamagedHeader, read_header
from bundle.ctfindings.scan.volume import LPS_TO_RAS, Volume

MAX_TILT_DEGREES = 30.0
"""Of a gantry; images tilted more are not axial."""

MIN_IMAGES = 5
MAX_GAP_MM = 10.0
MAX_ZIP_BYTES = 8 * 1024**3
MAX_ZIP_FILES = 20_000

_HEADER_TAGS = [
    "AcquisitionNumber",
    "Columns",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "ImageType",
    "InstanceNumber",
    "Modality",
    "NumberOfFrames",
    "PixelSpacing",
    "Rows",
    "SamplesPerPixel",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SOPInstanceUID",
]


class _Image(NamedTuple):
    """One DICOM image: its file and its header without pixels."""

    file: Path
    header: pydicom.Dataset


class _Kind(NamedTuple):
    """What the header of a DICOM file says it is.

    Attributes:
        header: without pixels.
        multi_frame: whether it is CT with several images.
        group: series, frame size, spacing and orientation of a plain CT image; None when it is none.
    """

    header: pydicom.Dataset
    multi_frame: bool
    group: tuple[Any, ...] | None


def read_dicom_zip(source: Path, path: str | Path) -> Volume:
    """Unpack under names of our own, so that no name inside the archive can point out of the temporary folder."""
    with tempfile.TemporaryDirectory(prefix="ctfindings_") as folder:
        try:
            with zipfile.ZipFile(source) as archive:
                members = [
                    member for member in archive.infolist() if not member.is_dir() and "__MACOSX" not in member.filename
                ]
                if len(members) > MAX_ZIP_FILES or sum(member.file_size for member in members) > MAX_ZIP_BYTES:
                    raise ScanError(
                        path,
                        f"unpacks to more than {MAX_ZIP_BYTES >> 30} GiB or {MAX_ZIP_FILES} files; zip one series only",
                    )
                for number, member in enumerate(members):
                    with archive.open(member) as packed, open(Path(folder) / f"{number:06d}", "wb") as unpacked:
                        shutil.copyfileobj(packed, unpacked, 1 << 20)
        except (zipfile.BadZipFile, EOFError, zlib.error) as error:
            raise ScanError(path, f"is a damaged zip ({error}); copy or download it again") from error
        except (RuntimeError, NotImplementedError) as error:
            raise ScanError(
                path, "is encrypted or packed in a way that cannot be read; unpack it and give the folder"
            ) from error
        return read_dicom_folder(Path(folder), path)


def read_dicom_folder(folder: Path, path: str | Path) -> Volume:
    """The longest axial CT series below ``folder``."""
    return read_dicom_files(files_below(folder), path)


def read_dicom_files(files: Sequence[Path], path: str | Path) -> Volume:
    """The longest axial CT series among files.

    Args:
        files: DICOM and others, which are passed over.
        path: what errors and warnings call the study.

    Raises:
        ScanError: when there is no such series, an image cannot be decoded, or images are missing.
    """
    series, damaged = _ct_series(files, path)
    chosen, others = _choose_series(series, path)
    warnings = damaged + others
    normal = np.cross(*_orientation(chosen[0].header))
    chosen = sorted(chosen, key=lambda image: float(_position(image.header) @ normal))
    positions = np.stack([_position(image.header) for image in chosen])
    slices = _read_pixels(chosen, path)
    slices, step, gaps = _even_slices(slices, positions, normal, path)
    header = chosen[0].header
    rows, columns = (float(value) for value in header.PixelSpacing)
    along_row, along_column = _orientation(header)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([along_row * columns, along_column * rows, step], axis=1)
    affine[:3, 3] = positions[0]
    return Volume(slices.T, LPS_TO_RAS @ affine, "dicom", warnings + gaps)


def _ct_series(files: Sequence[Path], path: str | Path) -> tuple[list[list[_Image]], list[str]]:
    """Headers of all plain CT images among files, by series, frame size and orientation; and a warning where some are
    damaged.
    """
    groups: dict[tuple[Any, ...], list[_Image]] = defaultdict(list)
    seen: set[str] = set()
    damaged: Counter[str] = Counter()
    multi_frame = False
    for file in files:
        try:
            kind = read_header(file, _HEADER_TAGS, _kind)
        except DamagedHeader as error:
            damaged[str(error)] += 1
            continue
        if kind is None:
            continue  # A folder of DICOM holds notes, masks and DICOMDIR as well.
        multi_frame |= kind.multi_frame
        if kind.group is None:
            continue
        identity = str(kind.header.get("SOPInstanceUID") or file)
        if identity in seen:  # The same image copied twice.
            continue
        seen.add(identity)
        groups[kind.group].append(_Image(file, kind.header))
    if not groups and multi_frame:
        raise ScanError(path, "holds multi-frame (enhanced) DICOM; convert it to NIfTI, e.g. with dcm2niix")
    damage = f"holds {damaged.total()} DICOM files with a damaged header ({', '.join(damaged)})"
    if not groups and damaged:
        raise ScanError(path, f"{damage} and no CT images; export the series again", "no CT images")
    if not groups:
        raise ScanError(path, "holds no CT images in DICOM; give the folder or zip of one CT series", "no CT images")
    series: list[list[_Image]] = []
    for images in groups.values():
        series += _split_phases(images)
    return series, [f"{path} {damage}, which are not used"] if damaged else []


def _kind(header: pydicom.Dataset) -> _Kind:
    is_ct = header.get("Modality") == "CT"
    multi_frame = is_ct and int(header.get("NumberOfFrames") or 1) > 1
    counts = {"ImageOrientationPatient": 6, "ImagePositionPatient": 3, "PixelSpacing": 2}
    plain = (
        all(len(header.get(tag) or ()) == count for tag, count in counts.items())
        and header.get("Rows")
        and header.get("Columns")
    )
    if not is_ct or not plain or int(header.get("SamplesPerPixel") or 1) != 1:
        return _Kind(header, multi_frame, None)
    _position(header)  # Asked here, where a header that is damaged may fail.
    direction = tuple(np.round(np.concatenate(_orientation(header)), 2))
    spacing = tuple(round(float(value), 4) for value in header.PixelSpacing)
    size = (int(header.Rows), int(header.Columns))
    return _Kind(header, multi_frame, (str(header.get("SeriesInstanceUID", "")), *size, spacing, direction))


def _split_phases(images: list[_Image]) -> list[list[_Image]]:
    """Split a series that images the same places more than once (contrast phases, gating) by acquisition."""
    places = {tuple(np.round(_position(image.header), 2)) for image in images}
    if len(places) == len(images):
        return [images]
    phases: dict[str, list[_Image]] = defaultdict(list)
    for image in images:
        phases[str(image.header.get("AcquisitionNumber"))].append(image)
    return list(phases.values())


def _choose_series(series: list[list[_Image]], path: str | Path) -> tuple[list[_Image], list[str]]:
    """The longest axial series of original images, else of derived ones; with a warning that names the rest."""
    long_enough = [images for images in series if len(images) >= MIN_IMAGES]
    axial = [
        images
        for images in long_enough
        if _is_axial(images[0].header) and "LOCALIZER" not in _image_type(images[0].header)
    ]
    original = [images for images in axial if not _image_type(images[0].header) & {"DERIVED", "SECONDARY"}]
    if not axial:
        found = ", ".join(_describe(images) for images in series)
        raise ScanError(
            path,
            f"holds no axial CT series of at least {MIN_IMAGES} images (found: {found}); give an axial chest CT",
            "no axial CT series",
        )
    chosen = max(original or axial, key=len)
    warnings = []
    others = [_describe(images) for images in series if images is not chosen]
    if others:
        warnings.append(f"{path} holds {len(series)} CT series; {_describe(chosen)} was read, not: {', '.join(others)}")
    if not original:
        warnings.append(f"{path} holds only derived or secondary images; findings may be affected by the processing")
    return chosen, warnings


def _image_type(header: pydicom.Dataset) -> set[str]:
    value = header.get("ImageType") or []
    return {str(part).upper() for part in ([value] if isinstance(value, str) else value)}


def _is_axial(header: pydicom.Dataset) -> bool:
    """Within the tilt of a gantry of the plane that the body axis is normal to."""
    return abs(np.cross(*_orientation(header))[2]) >= np.cos(np.radians(MAX_TILT_DEGREES))


def _describe(images: list[_Image]) -> str:
    """Series number and image count. People type descriptions, and may put the name of a patient into one."""
    return f"series {images[0].header.get('SeriesNumber') or '?'} ({len(images)} images)"


def _orientation(header: pydicom.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors, LPS, along a row and along a column of the image."""
    cosines = np.asarray(header.ImageOrientationPatient, np.float64)
    return cosines[:3], cosines[3:]


def _position(header: pydicom.Dataset) -> np.ndarray:
    """Centre of the first pixel, LPS mm, (3,)."""
    return np.asarray(header.ImagePositionPatient, np.float64)


def _read_pixels(images: list[_Image], path: str | Path) -> np.ndarray:
    """HU of the images, (Z, rows, columns) float32; each image's own slope and intercept applied once."""
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
    """HU, (rows, columns). For JPEG Lossless, which pydicom decodes only with plug-ins; GDCM applies the rescale
    itself.
    """
    import itk

    reader = itk.ImageFileReader[itk.Image[itk.F, 3]].New(FileName=str(file), ImageIO=itk.GDCMImageIO.New())
    reader.Update()
    return np.array(itk.array_view_from_image(reader.GetOutput()))[0]


def _even_slices(
    slices: np.ndarray, positions: np.ndarray, normal: np.ndarray, path: str | Path
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Put slices on even distances, where a few are missing or uneven.

    Args:
        slices: HU, (Z, rows, columns), sorted along ``normal``.
        positions: centres of the first pixels, LPS mm, (Z, 3).
        normal: unit normal of the slices.

    Returns:
        The slices; the step from one to the next in LPS mm, (3,); warnings.

    Raises:
        ScanError: when two images lie at one place, or the gap is too wide to be filled.
    """
    depth = (positions - positions[0]) @ normal
    distances = np.diff(depth)
    typical = float(np.median(distances))
    direction = (positions[-1] - positions[0]) / depth[-1] if depth[-1] > 0 else normal
    if distances.min() < 0.01:
        raise ScanError(path, "two images of the series lie at the same place; export one phase or reconstruction only")
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
    warning = f"{path}: slices lie {distances.min():.1f} to {distances.max():.1f} mm apart; missing ones were interpolated at {typical:.1f} mm"
    return filled, direction * typical, [warning]
