"""Reading one chest CT, in whatever format it is stored, into a MetaTensor in HU; and refusing what is not one."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import pydicom
import torch
from isal import igzip, isal_zlib
from monai.data import MetaTensor

from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.scan.dicom_series import MAX_TILT_DEGREES, read_dicom_folder, read_dicom_zip
from bundle.ctfindings.scan.hu_check import to_hu
from bundle.ctfindings.scan.storage import Stored, stored_from
from bundle.ctfindings.scan.volume import LPS_TO_RAS, Volume

LOWEST_HU = -1024.0
"""Scanners pad outside the circle they reconstruct with -2000, -3024 or, in 28 % of CT-RATE, -8192; it means air."""

SPACING_MM = (0.2, 20.0)
MIN_AXIAL_EXTENT_MM = 50.0
MIN_BODY_AXIS_EXTENT_MM = 25.0
SHORT_BODY_AXIS_EXTENT_MM = 100.0
NOTED_TILT_DEGREES = 1.0

_NRRD_SPACE_SIGNS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}


def load_scan(path: str | Path, stored: Mapping[str, Any] | None = None) -> MetaTensor:
    """Read one chest CT from NIfTI, NRRD, MetaImage, a folder of DICOM or a zip of DICOM.

    Args:
        stored: the entry ``stored`` of a study record (``Stored``), for files that are not in HU or lack their true
            geometry.

    Returns:
        HU, [1, X, Y, Z] float32, in the axis order of storage with an affine to RAS world mm. The meta has
        ``filename_or_obj``, ``source_format``, ``warnings`` (list of str), ``spatial_shape`` and ``original_affine``.

    Raises:
        ScanError: when the file is missing, damaged, not a 3D image, or not a CT in HU.
    """
    try:
        known = stored_from(stored)
    except ValueError as error:
        raise ScanError(path, str(error)) from error
    volume = read_volume(path, known)
    _check_affine(path, volume)
    hu = to_hu(path, volume, known)
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


def read_volume(path: str | Path, stored: Stored | None = None) -> Volume:
    """Read any supported file as it is stored, with geometry but without asking whether it is a CT.

    Args:
        stored: its geometry, where given, takes the place of the file's. Slope and intercept are left to ``to_hu``.

    Raises:
        ScanError: when the file is missing, damaged, of an unknown format, not 3D, without geometry or not finite.
    """
    source, stored = Path(path), stored or Stored()
    if not source.exists():
        raise ScanError(path, "no such file or folder; check the path")
    name = source.name.lower()
    if source.is_dir():
        volume = read_dicom_folder(source, path)
    elif name.endswith(".zip"):
        volume = read_dicom_zip(source, path)
    elif name.endswith((".nii", ".nii.gz")):
        volume = _read_nifti(source, path)
    elif name.endswith(".nrrd"):
        volume = _read_nrrd(source, path)
    elif name.endswith((".mha", ".mhd")):
        volume = _read_metaimage(source, path)
    elif name.endswith(".npz"):
        volume = _read_npz(source, path, stored)
    elif pydicom.misc.is_dicom(source):
        raise ScanError(path, "this is one DICOM file; give the folder or a zip of the whole series")
    else:
        raise ScanError(path, "unknown format; give .nii, .nii.gz, .nrrd, .mha, .mhd, or a folder or .zip of DICOM")
    if volume.array.dtype.kind == "f" and not np.isfinite(volume.array.min() + volume.array.max()):
        raise ScanError(path, "holds NaN or infinite values; write it again from its source")
    affine = stored.affine_of(volume.array.shape)
    return volume if affine is None else volume._replace(affine=affine)


# --- files that hold one image -------------------------------------------------------------------------------------


def _read_nifti(source: Path, path: str | Path) -> Volume:
    try:
        image, content = _nifti_image(source)
        _check_three_axes(path, image.shape)
        if int(image.header["sform_code"]) == 0 and int(image.header["qform_code"]) == 0:
            raise ScanError(
                path, "has no affine (sform_code and qform_code are 0); convert it from DICOM again, e.g. with dcm2niix"
            )
        array = _nifti_voxels(image, content)
    except ScanError:
        raise
    except (EOFError, isal_zlib.error, OSError, ValueError, nib.filebasedimages.ImageFileError) as error:  # type: ignore[misc]
        raise ScanError(
            path, f"cannot be read as NIfTI, it is truncated or damaged ({error}); copy or download it again"
        ) from error
    return Volume(_three_axes(array), np.asarray(image.affine, np.float64), "nifti", [])


def _nifti_image(source: Path) -> tuple[nib.Nifti1Image, bytes | None]:
    """An image of NIfTI 1 or 2, and the bytes of the file where it was compressed: isal decodes it in half the time of
    zlib.
    """
    if not source.name.lower().endswith(".gz"):
        return cast(nib.Nifti1Image, nib.load(source)), None
    content = igzip.decompress(source.read_bytes())
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        if kind.header_class.may_contain_header(content):
            return kind.from_bytes(content), content
    raise nib.filebasedimages.ImageFileError("its first bytes are no header of NIfTI")


def _nifti_voxels(image: nib.Nifti1Image, content: bytes | None) -> np.ndarray:
    """The voxels, scaled as the header says; those that need no scaling are a view of the decoded bytes."""
    proxy = cast(nib.arrayproxy.ArrayProxy, image.dataobj)
    if content is None or (proxy.slope, proxy.inter) != (1.0, 0.0):
        return np.asanyarray(proxy)
    if len(content) < proxy.offset + int(np.prod(proxy.shape)) * proxy.dtype.itemsize:
        raise EOFError("it ends before its last voxel")
    return np.ndarray(proxy.shape, proxy.dtype, content, proxy.offset, order="F")


def _read_nrrd(source: Path, path: str | Path) -> Volume:
    import nrrd

    try:
        array, header = nrrd.read(str(source), index_order="F")
    except (nrrd.NRRDError, EOFError, zlib.error, OSError, ValueError) as error:
        raise ScanError(
            path, f"cannot be read as NRRD, it is truncated or damaged ({error}); copy or download it again"
        ) from error
    _check_three_axes(path, array.shape)
    space = _nrrd_space(str(header.get("space", "")))
    if space is None or header.get("space directions") is None or header.get("space origin") is None:
        raise ScanError(
            path, "has no affine (space, space directions and space origin are needed); convert it from DICOM again"
        )
    directions = np.asarray(header["space directions"], np.float64)
    affine = np.eye(4)
    affine[:3, :3] = space @ directions[np.isfinite(directions).all(axis=1)].T
    affine[:3, 3] = space @ np.asarray(header["space origin"], np.float64)
    return Volume(_three_axes(array), affine, "nrrd", [])


def _nrrd_space(space: str) -> np.ndarray | None:
    """Matrix (3, 3) from an NRRD space such as ``left-posterior-superior`` or ``LPS`` to RAS; None when it is not
    anatomical.
    """
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
        raise ScanError(
            path, "cannot be read as MetaImage, it is truncated or damaged; copy it again with its .raw file"
        ) from error
    array = np.array(itk.array_view_from_image(image)).T
    _check_three_axes(path, array.shape)
    lps = np.eye(image.GetImageDimension() + 1)
    lps[:-1, :-1] = itk.array_from_matrix(image.GetDirection()) * np.asarray(image.GetSpacing())
    lps[:-1, -1] = np.asarray(image.GetOrigin())
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = lps[:3, :3], lps[:3, -1]
    return Volume(_three_axes(array), LPS_TO_RAS @ affine, "metaimage", [])


def _read_npz(source: Path, path: str | Path, stored: Stored) -> Volume:
    """The array ``ct`` of an archive of NumPy, as Rad-ChestCT has it. It has no geometry: the record must."""
    try:
        with np.load(source, allow_pickle=False) as archive:
            if "ct" not in archive:
                raise ScanError(
                    path, f"has no array 'ct' (it has {', '.join(archive.files) or 'none'}); give a Rad-ChestCT scan"
                )
            array = archive["ct"]
    except ScanError:
        raise
    except (EOFError, OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ScanError(
            path, f"cannot be read as .npz, it is truncated or damaged ({error}); copy or download it again"
        ) from error
    _check_three_axes(path, array.shape)
    array = _three_axes(array)
    affine = stored.affine_of(array.shape)
    if affine is None:
        raise ScanError(
            path,
            "a .npz has no geometry; prepare it with scripts/prepare_rad_chestct.py, or convert it to NIfTI",
            "no geometry",
        )
    return Volume(array, affine, "npz", [])


def _check_three_axes(path: str | Path, shape: Sequence[int]) -> None:
    """Accept (X, Y, Z) and (X, Y, Z, 1); refuse images, colour volumes and time series."""
    if len(shape) < 3 or len(shape) > 4 or (len(shape) == 4 and shape[3] != 1) or min(shape[:3]) < 2:
        raise ScanError(path, f"is an image of shape {tuple(int(n) for n in shape)}; one 3D scan is expected")


def _three_axes(array: np.ndarray) -> np.ndarray:
    """(X, Y, Z) of an array that passed :func:`_check_three_axes`."""
    return array[..., 0] if array.ndim == 4 else array


# --- is its geometry that of a chest CT? ---------------------------------------------------------------------------


def _check_affine(path: str | Path, volume: Volume) -> None:
    """Refuse geometry that no CT has; note a tilted gantry, which resampling through the affine corrects, and one that
    says nothing.

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
        raise ScanError(
            path, f"its spacing is {shown} mm; {low} to {high:g} mm is expected. Convert it from DICOM again"
        )
    cosines = np.abs(np.triu((axes / spacing).T @ (axes / spacing), 1)).max()
    tilt = float(np.degrees(np.arcsin(min(cosines, 1.0))))
    if tilt > MAX_TILT_DEGREES:
        raise ScanError(path, f"its affine is sheared by {tilt:.0f} degrees or singular; convert it from DICOM again")
    if tilt > NOTED_TILT_DEGREES:
        volume.warnings.append(
            f"{path}: the slices are tilted by {tilt:.1f} degrees (gantry tilt); this is corrected by resampling"
        )
    if np.array_equal(np.abs(volume.affine), np.eye(4)):
        volume.warnings.append(
            f"{path}: has the geometry of a file that has none (1 mm, no position), so that sides, ends and sizes may be wrong; "
            "give its affine as stored, or convert it from DICOM again"
        )
    extents = spacing * volume.array.shape
    body_axis = int(np.abs(axes[2] / spacing).argmax())
    shown = " x ".join(f"{value:.0f}" for value in extents)
    if np.delete(extents, body_axis).min() < MIN_AXIAL_EXTENT_MM or extents[body_axis] < MIN_BODY_AXIS_EXTENT_MM:
        raise ScanError(path, f"spans only {shown} mm; a scan of the chest is expected")
    if extents[body_axis] < SHORT_BODY_AXIS_EXTENT_MM:
        volume.warnings.append(
            f"{path}: covers only {extents[body_axis]:.0f} mm along the body; findings elsewhere cannot be seen"
        )
