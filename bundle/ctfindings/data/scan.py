"""Reading one chest CT, in whatever format it is stored, into a MetaTensor in HU; and refusing what is not one."""

from __future__ import annotations

import gzip
import re
import shutil
import tempfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import nibabel as nib
import numpy as np
import pydicom
import torch
from monai.data import MetaTensor
from pydicom.errors import InvalidDicomError
from pydicom.pixels import get_decoder

LOWEST_HU = -1024.0
"""Scanners pad outside the circle they reconstruct with -2000, -3024 or, in 28 % of CT-RATE, -8192; it means air."""

SPACING_MM = (0.2, 20.0)
MIN_AXIAL_EXTENT_MM = 50.0
MIN_BODY_AXIS_EXTENT_MM = 25.0
SHORT_BODY_AXIS_EXTENT_MM = 100.0
MAX_TILT_DEGREES = 30.0
NOTED_TILT_DEGREES = 1.0

MIN_IMAGES = 5
MAX_GAP_MM = 10.0
MAX_ZIP_BYTES = 8 * 1024**3
MAX_ZIP_FILES = 20_000

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_NRRD_SPACE_SIGNS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
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
    "SeriesDescription",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SOPInstanceUID",
]


class ScanError(ValueError):
    """A file that cannot be used. The message is one line: ``FILE: what is wrong; remedy``."""

    def __init__(self, path: str | Path, problem: str) -> None:
        super().__init__(f"{path}: " + " ".join(problem.split()))


class Volume(NamedTuple):
    """A 3D image as stored.

    Attributes:
        array: voxels, (X, Y, Z) in the order of storage, any number type, with the file's rescale applied once.
        affine: voxel indices to RAS world in mm, (4, 4) float64.
        source_format: nifti, nrrd, metaimage or dicom.
        warnings: what a reader should know, one sentence each.
    """

    array: np.ndarray
    affine: np.ndarray
    source_format: str
    warnings: list[str]


def load_scan(path: str | Path) -> MetaTensor:
    """Read one chest CT from NIfTI, NRRD, MetaImage, a folder of DICOM or a zip of DICOM.

    Returns:
        HU, [1, X, Y, Z] float32, in the axis order of storage with an affine to RAS world mm. The meta has
        ``filename_or_obj``, ``source_format``, ``warnings`` (list of str), ``spatial_shape`` and ``original_affine``.

    Raises:
        ScanError: when the file is missing, damaged, not a 3D image, or not a CT in HU.
    """
    volume = read_volume(path)
    _check_affine(path, volume)
    hu = np.asarray(volume.array, dtype=np.float32)
    _check_hu(path, hu, volume.array.dtype)
    if not hu.flags.writeable or np.shares_memory(hu, volume.array):
        hu = hu.copy(order="K")
    np.maximum(hu, LOWEST_HU, out=hu)
    return as_metatensor(hu, volume, path)


def as_metatensor(array: np.ndarray, volume: Volume, path: str | Path) -> MetaTensor:
    """[1, X, Y, Z] tensor of ``array`` with the geometry, source and warnings of ``volume``."""
    meta = {
        "filename_or_obj": str(path),
        "source_format": volume.source_format,
        "warnings": list(volume.warnings),
        "spatial_shape": np.asarray(array.shape),
        "original_affine": torch.as_tensor(volume.affine.copy()),
        "original_channel_dim": float("nan"),
        "space": "RAS",
    }
    return MetaTensor(torch.from_numpy(array)[None], affine=torch.as_tensor(volume.affine.copy()), meta=meta)


def read_volume(path: str | Path) -> Volume:
    """Read any supported file as it is stored, with geometry but without asking whether it is a CT.

    Raises:
        ScanError: when the file is missing, damaged, of an unknown format, not 3D, without geometry or not finite.
    """
    source = Path(path)
    if not source.exists():
        raise ScanError(path, "no such file or folder; check the path")
    name = source.name.lower()
    if source.is_dir():
        volume = _read_dicom_folder(source, path)
    elif name.endswith(".zip"):
        volume = _read_dicom_zip(source, path)
    elif name.endswith((".nii", ".nii.gz")):
        volume = _read_nifti(source, path)
    elif name.endswith(".nrrd"):
        volume = _read_nrrd(source, path)
    elif name.endswith((".mha", ".mhd")):
        volume = _read_metaimage(source, path)
    elif pydicom.misc.is_dicom(source):
        raise ScanError(path, "this is one DICOM file; give the folder or a zip of the whole series")
    else:
        raise ScanError(path, "unknown format; give .nii, .nii.gz, .nrrd, .mha, .mhd, or a folder or .zip of DICOM")
    if volume.array.dtype.kind == "f" and not np.isfinite(volume.array.min() + volume.array.max()):
        raise ScanError(path, "holds NaN or infinite values; write it again from its source")
    return volume


# --- files that hold one image -------------------------------------------------------------------------------------


def _read_nifti(source: Path, path: str | Path) -> Volume:
    try:
        image = cast(nib.Nifti1Image, nib.load(source))
        _check_three_axes(path, image.shape)
        if int(image.header["sform_code"]) == 0 and int(image.header["qform_code"]) == 0:
            raise ScanError(path, "has no affine (sform_code and qform_code are 0); convert it from DICOM again, e.g. with dcm2niix")
        array = np.asanyarray(image.dataobj)
    except ScanError:
        raise
    except (EOFError, zlib.error, gzip.BadGzipFile, OSError, ValueError, nib.filebasedimages.ImageFileError) as error:
        raise ScanError(path, f"cannot be read as NIfTI, it is truncated or damaged ({error}); copy or download it again") from error
    return Volume(_three_axes(array), np.asarray(image.affine, np.float64), "nifti", [])


def _read_nrrd(source: Path, path: str | Path) -> Volume:
    import nrrd

    try:
        array, header = nrrd.read(str(source), index_order="F")
    except (nrrd.NRRDError, EOFError, zlib.error, OSError, ValueError) as error:
        raise ScanError(path, f"cannot be read as NRRD, it is truncated or damaged ({error}); copy or download it again") from error
    _check_three_axes(path, array.shape)
    space = _nrrd_space(str(header.get("space", "")))
    if space is None or header.get("space directions") is None or header.get("space origin") is None:
        raise ScanError(path, "has no affine (space, space directions and space origin are needed); convert it from DICOM again")
    directions = np.asarray(header["space directions"], np.float64)
    affine = np.eye(4)
    affine[:3, :3] = space @ directions[np.isfinite(directions).all(axis=1)].T
    affine[:3, 3] = space @ np.asarray(header["space origin"], np.float64)
    return Volume(_three_axes(array), affine, "nrrd", [])


def _nrrd_space(space: str) -> np.ndarray | None:
    """Matrix (3, 3) from an NRRD space such as ``left-posterior-superior`` or ``LPS`` to RAS; None when it is not anatomical."""
    letters = [word[0].upper() for word in space.split("-")] if "-" in space else list(space.upper())
    if len(letters) != 3 or any(letter not in _NRRD_SPACE_SIGNS for letter in letters):
        return None
    matrix = np.zeros((3, 3))
    for column, letter in enumerate(letters):
        row, sign = _NRRD_SPACE_SIGNS[letter]
        matrix[row, column] = sign
    return matrix if np.linalg.det(matrix) != 0 else None


def _read_metaimage(source: Path, path: str | Path) -> Volume:
    import itk

    try:
        image = itk.imread(str(source))
    except RuntimeError as error:
        raise ScanError(path, "cannot be read as MetaImage, it is truncated or damaged; copy it again with its .raw file") from error
    array = np.array(itk.array_view_from_image(image)).T
    _check_three_axes(path, array.shape)
    lps = np.eye(image.GetImageDimension() + 1)
    lps[:-1, :-1] = itk.array_from_matrix(image.GetDirection()) * np.asarray(image.GetSpacing())
    lps[:-1, -1] = np.asarray(image.GetOrigin())
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = lps[:3, :3], lps[:3, -1]
    return Volume(_three_axes(array), LPS_TO_RAS @ affine, "metaimage", [])


def _check_three_axes(path: str | Path, shape: Sequence[int]) -> None:
    """Accept (X, Y, Z) and (X, Y, Z, 1); refuse images, colour volumes and time series."""
    if len(shape) < 3 or len(shape) > 4 or (len(shape) == 4 and shape[3] != 1) or min(shape[:3]) < 2:
        raise ScanError(path, f"is an image of shape {tuple(int(n) for n in shape)}; one 3D scan is expected")


def _three_axes(array: np.ndarray) -> np.ndarray:
    """(X, Y, Z) of an array that passed :func:`_check_three_axes`."""
    return array[..., 0] if array.ndim == 4 else array


# --- DICOM ---------------------------------------------------------------------------------------------------------


class _Image(NamedTuple):
    """One DICOM image: its file and its header without pixels."""

    file: Path
    header: pydicom.Dataset


def _read_dicom_zip(source: Path, path: str | Path) -> Volume:
    """Unpack under names of our own, so that no name inside the archive can point out of the temporary folder."""
    with tempfile.TemporaryDirectory(prefix="ctfindings_") as folder:
        try:
            with zipfile.ZipFile(source) as archive:
                members = [member for member in archive.infolist() if not member.is_dir() and "__MACOSX" not in member.filename]
                if len(members) > MAX_ZIP_FILES or sum(member.file_size for member in members) > MAX_ZIP_BYTES:
                    raise ScanError(path, f"unpacks to more than {MAX_ZIP_BYTES >> 30} GiB or {MAX_ZIP_FILES} files; zip one series only")
                for number, member in enumerate(members):
                    with archive.open(member) as packed, open(Path(folder) / f"{number:06d}", "wb") as unpacked:
                        shutil.copyfileobj(packed, unpacked, 1 << 20)
        except (zipfile.BadZipFile, EOFError, zlib.error) as error:
            raise ScanError(path, f"is a damaged zip ({error}); copy or download it again") from error
        except (RuntimeError, NotImplementedError) as error:
            raise ScanError(path, "is encrypted or packed in a way that cannot be read; unpack it and give the folder") from error
        return _read_dicom_folder(Path(folder), path)


def _read_dicom_folder(folder: Path, path: str | Path) -> Volume:
    """The longest axial CT series below ``folder``."""
    series = _ct_series(folder, path)
    chosen, warnings = _choose_series(series, path)
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


def _ct_series(folder: Path, path: str | Path) -> list[list[_Image]]:
    """Headers of all plain CT images below ``folder``, by series, frame size and orientation."""
    groups: dict[tuple[Any, ...], list[_Image]] = defaultdict(list)
    seen: set[str] = set()
    multi_frame = False
    for file in sorted(item for item in folder.rglob("*") if item.is_file()):
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_HEADER_TAGS)
        except (InvalidDicomError, EOFError, OSError):
            continue  # A folder of DICOM holds notes, masks and DICOMDIR as well.
        multi_frame |= header.get("Modality") == "CT" and int(header.get("NumberOfFrames") or 1) > 1
        counts = {"ImageOrientationPatient": 6, "ImagePositionPatient": 3, "PixelSpacing": 2}
        plain = all(len(header.get(tag) or ()) == count for tag, count in counts.items()) and header.get("Rows") and header.get("Columns")
        if header.get("Modality") != "CT" or not plain or int(header.get("SamplesPerPixel") or 1) != 1:
            continue
        identity = str(header.get("SOPInstanceUID") or file)
        if identity in seen:  # The same image copied twice.
            continue
        seen.add(identity)
        direction = tuple(np.round(np.concatenate(_orientation(header)), 2))
        spacing = tuple(round(float(value), 4) for value in header.PixelSpacing)
        groups[(str(header.get("SeriesInstanceUID", "")), header.Rows, header.Columns, spacing, direction)].append(_Image(file, header))
    if not groups and multi_frame:
        raise ScanError(path, "holds multi-frame (enhanced) DICOM; convert it to NIfTI, e.g. with dcm2niix")
    if not groups:
        raise ScanError(path, "holds no CT images in DICOM; give the folder or zip of one CT series")
    series: list[list[_Image]] = []
    for images in groups.values():
        series += _split_phases(images)
    return series


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
    axial = [images for images in long_enough if _is_axial(images[0].header) and "LOCALIZER" not in _image_type(images[0].header)]
    original = [images for images in axial if not _image_type(images[0].header) & {"DERIVED", "SECONDARY"}]
    if not axial:
        found = ", ".join(_describe(images) for images in series)
        raise ScanError(path, f"holds no axial CT series of at least {MIN_IMAGES} images (found: {found}); give an axial chest CT")
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
    """Series number, description and image count; nothing that identifies a patient."""
    header = images[0].header
    description = re.sub(r"\s+", " ", str(header.get("SeriesDescription") or "")).strip()[:64]
    return f"series {header.get('SeriesNumber') or '?'}{f' {description!r}' if description else ''} ({len(images)} images)"


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
                slope, intercept = (float(dataset.get(tag, default)) for tag, default in (("RescaleSlope", 1), ("RescaleIntercept", 0)))
                np.multiply(dataset.pixel_array, np.float32(slope), out=slices[index], casting="unsafe")
                slices[index] += np.float32(intercept)
            else:
                slices[index] = _read_pixels_with_gdcm(image.file)
        except (AttributeError, EOFError, NotImplementedError, OSError, RuntimeError, ValueError) as error:
            number = image.header.get("InstanceNumber")
            raise ScanError(path, f"image {number} of {_describe(images)} cannot be decoded ({error}); export the series again") from error
    return slices


def _read_pixels_with_gdcm(file: Path) -> np.ndarray:
    """HU, (rows, columns). For JPEG Lossless, which pydicom decodes only with plug-ins; GDCM applies the rescale itself."""
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
        raise ScanError(path, f"images are missing: a gap of {distances[widest]:.1f} mm {around}; export the whole series")
    even = np.arange(int(np.floor(depth[-1] / typical + 1e-3)) + 1) * typical
    place = np.interp(even, depth, np.arange(len(depth)))
    below = np.minimum(place.astype(int), len(depth) - 2)
    weight = (place - below).astype(np.float32)[:, None, None]
    filled = slices[below]
    filled += weight * (slices[below + 1] - filled)
    warning = (
        f"{path}: slices lie {distances.min():.1f} to {distances.max():.1f} mm apart; missing ones were interpolated at {typical:.1f} mm"
    )
    return filled, direction * typical, [warning]


# --- is it a chest CT in HU? ---------------------------------------------------------------------------------------


def _check_affine(path: str | Path, volume: Volume) -> None:
    """Refuse geometry that no CT has; note a tilted gantry, which resampling through the affine corrects.

    Raises:
        ScanError: when the affine is not finite or singular, or spacing, angles or extents are absurd.
    """
    axes = volume.affine[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    low, high = SPACING_MM
    if not np.isfinite(volume.affine).all():
        raise ScanError(path, "its affine holds NaN or infinite values; convert it from DICOM again")
    if spacing.min() < low or spacing.max() > high:
        shown = " x ".join(f"{value:.3g}" for value in spacing)
        raise ScanError(path, f"its spacing is {shown} mm; {low} to {high:g} mm is expected. Convert it from DICOM again")
    cosines = np.abs(np.triu((axes / spacing).T @ (axes / spacing), 1)).max()
    tilt = float(np.degrees(np.arcsin(min(cosines, 1.0))))
    if tilt > MAX_TILT_DEGREES:
        raise ScanError(path, f"its affine is sheared by {tilt:.0f} degrees or singular; convert it from DICOM again")
    if tilt > NOTED_TILT_DEGREES:
        volume.warnings.append(f"{path}: the slices are tilted by {tilt:.1f} degrees (gantry tilt); this is corrected by resampling")
    extents = spacing * volume.array.shape
    body_axis = int(np.abs(axes[2] / spacing).argmax())
    shown = " x ".join(f"{value:.0f}" for value in extents)
    if np.delete(extents, body_axis).min() < MIN_AXIAL_EXTENT_MM or extents[body_axis] < MIN_BODY_AXIS_EXTENT_MM:
        raise ScanError(path, f"spans only {shown} mm; a scan of the chest is expected")
    if extents[body_axis] < SHORT_BODY_AXIS_EXTENT_MM:
        volume.warnings.append(f"{path}: covers only {extents[body_axis]:.0f} mm along the body; findings elsewhere cannot be seen")


def _check_hu(path: str | Path, values: np.ndarray, stored: np.dtype) -> None:
    """Refuse volumes whose values cannot be HU of a chest.

    A chest holds air (lungs, and mostly the room) near -1000 HU and soft tissue between fat (-100) and enhanced blood (+300).
    Without air the values are windowed or not rescaled; without tissue they were rescaled twice. The lowest value says nothing:
    padding outside the reconstructed circle is -8192 in correct scans.

    Args:
        values: (X, Y, Z) float32, finite.
        stored: number type in the file.

    Raises:
        ScanError: with the likely mistake.
    """
    low, high = float(values.min()), float(values.max())
    if low == high:
        raise ScanError(path, f"all voxels are {low:g}; a CT is expected")
    expected = f"intensities span {low:g}..{high:g}; a CT in HU is expected (air near -1000)."
    if stored == np.uint8 or (low >= 0 and high <= 255):
        raise ScanError(path, f"{expected} Was an 8-bit export loaded?")
    sample = values[tuple(slice(None, None, max(1, size // 128)) for size in values.shape)]
    air, tissue, beyond = ((sample < -500).mean(), ((sample > -200) & (sample < 300)).mean(), (sample > 4000).mean())
    if air < 0.005:
        raise ScanError(path, f"{expected} Is it a label map, a windowed image, or were slope and intercept left out?")
    if tissue < 0.03:
        raise ScanError(path, f"{expected} {100 * tissue:.1f} % of the voxels are soft tissue (-200..300): was HU rescaled twice?")
    if beyond > 0.02:
        raise ScanError(path, f"{expected} {100 * beyond:.0f} % of the voxels are above 4000: was signed padding read as unsigned?")
