"""Reads one chest CT of any supported format into a MetaTensor in HU. Rejects files that are not a chest CT."""

from __future__ import annotations

import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import pydicom
import torch
from isal import igzip, isal_zlib
from monai.data import MetaTensor

from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.scan.coordinates import LPS_TO_RAS, voxel_spacing
from bundle.ctfindings.scan.dicom_headers import MAX_TILT_DEGREES
from bundle.ctfindings.scan.dicom_series import read_dicom
from bundle.ctfindings.scan.hu_check import to_hu
from bundle.ctfindings.scan.storage import Stored, Volume, stored_from

LOWEST_HU = -1024.0
"""Lower values become air: scanners pad outside the reconstructed circle with -2000, -3024 or, in CT-RATE, -8192."""

SPACING_MM = (0.2, 20.0)
MIN_AXIAL_EXTENT_MM = 50.0
MIN_BODY_AXIS_EXTENT_MM = 25.0
SHORT_BODY_AXIS_EXTENT_MM = 100.0
TILT_WARNING_DEGREES = 1.0

_ITK_TYPES = {
    "unsigned_char": "UC", "short": "SS", "unsigned_short": "US", "int": "SI", "unsigned_int": "UI", "float": "F"
}  # fmt: skip


def load_scan(path: str | Path, stored: Mapping[str, Any] | None = None) -> MetaTensor:
    """Read one chest CT from NIfTI, NRRD, MetaImage, a folder of DICOM or a zip of DICOM.

    ``stored`` has the rescale and geometry that the file itself lacks; see ``Stored``.

    Returns:
        HU, [1, X, Y, Z] float32, axes in storage order, affine to RAS world mm. The meta has ``filename_or_obj``,
        ``source_format``, ``warnings`` (list of str), ``spatial_shape`` and ``original_affine``.

    Raises:
        ScanError: if the file is missing, damaged, not a 3D image, or not a CT in HU.
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
    """``array`` as a tensor [1, X, Y, Z] with the geometry, format and warnings of ``volume``."""
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
    """Read any supported file as stored, without a check that it is a CT. A geometry in ``stored`` replaces the file's.

    Raises:
        ScanError: if the file is missing, damaged, of an unknown format, not 3D, without geometry or not finite.
    """
    source, stored = Path(path), stored or Stored()
    if not source.exists():
        raise ScanError(path, "no such file or folder; check the path")
    name = source.name.lower()
    if source.is_dir() or name.endswith(".zip"):
        volume = read_dicom(source, path)
    elif name.endswith((".nii", ".nii.gz")):
        volume = _read_nifti(source, path)
    elif name.endswith(".nrrd"):
        with _with_kinds(source) as readable:
            volume = _read_with_itk(readable, path, "nrrd")
    elif name.endswith((".mha", ".mhd")):
        volume = _read_with_itk(source, path, "metaimage")
    elif name.endswith(".npz"):
        volume = _read_npz(source, path, stored)
    elif pydicom.misc.is_dicom(source):
        raise ScanError(path, "is a single DICOM file; give the folder or a zip of the whole series")
    else:
        raise ScanError(path, "unknown format; give .nii, .nii.gz, .nrrd, .mha, .mhd, or a folder or .zip of DICOM")
    if volume.array.dtype.kind == "f" and not np.isfinite(volume.array.min() + volume.array.max()):
        raise ScanError(path, "contains NaN or infinite values; write it again from its source")
    affine = stored.affine_of(volume.array.shape)
    return volume if affine is None else volume._replace(affine=affine)


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
        raise _damaged(path, "NIfTI", error) from error
    return Volume(array.reshape(array.shape[:3]), np.asarray(image.affine, np.float64), "nifti", [])


def _nifti_image(source: Path) -> tuple[nib.Nifti1Image, bytes | None]:
    """The image, NIfTI 1 or 2, and the decompressed bytes of a .gz file: isal takes half the time of zlib."""
    if not source.name.lower().endswith(".gz"):
        return cast(nib.Nifti1Image, nib.load(source)), None
    content = igzip.decompress(source.read_bytes())
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        if kind.header_class.may_contain_header(content):
            return kind.from_bytes(content), content
    raise nib.filebasedimages.ImageFileError("its first bytes are not a NIfTI header")


def _nifti_voxels(image: nib.Nifti1Image, content: bytes | None) -> np.ndarray:
    """The voxels, scaled by the header's slope and intercept; without scaling they are a view of ``content``."""
    proxy = cast(nib.arrayproxy.ArrayProxy, image.dataobj)
    if content is None or (proxy.slope, proxy.inter) != (1.0, 0.0):
        return np.asanyarray(proxy)
    if len(content) < proxy.offset + int(np.prod(proxy.shape)) * proxy.dtype.itemsize:
        raise EOFError("it ends before its last voxel")
    return np.ndarray(proxy.shape, proxy.dtype, content, proxy.offset, order="F")


@contextmanager
def _with_kinds(source: Path) -> Iterator[Path]:
    """An NRRD that ITK reads: for shape (X, Y, Z, 1) without ``kinds``, a copy that names its last axis a list."""
    with source.open("rb") as file:
        header = file.read(1 << 16).split(b"\n\n")[0]
    if b"\nkinds:" in header or not re.search(rb"^sizes:(\s+\d+){3}\s+1\s*$", header, re.MULTILINE):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="ctfindings_") as folder:
        copy = Path(folder) / "copy.nrrd"
        copy.write_bytes(source.read_bytes().replace(b"\n\n", b"\nkinds: domain domain domain list\n\n", 1))
        yield copy


def _read_with_itk(source: Path, path: str | Path, source_format: str) -> Volume:
    import itk

    try:
        image_io = itk.ImageIOFactory.CreateImageIO(str(source), itk.CommonEnums.IOFileMode_ReadMode)
        image_io.SetFileName(str(source))
        image_io.ReadImageInformation()
        shape = [image_io.GetDimensions(axis) for axis in range(image_io.GetNumberOfDimensions())]
        channels = image_io.GetNumberOfComponents()
        _check_three_axes(path, shape if channels == 1 else (channels, *shape))
        if source_format == "nrrd" and not _has_nrrd_geometry(source, image_io.GetMetaDataDictionary()):
            raise ScanError(
                path, "has no affine (space, space directions and space origin are needed); convert it from DICOM again"
            )
        # ITK is not built for images of 8-bit signed or 64-bit integers; float64 holds their values.
        component = image_io.GetComponentTypeAsString(image_io.GetComponentType())
        image_type = itk.Image[getattr(itk, _ITK_TYPES.get(component, "D")), 3]
        reader = itk.ImageFileReader[image_type].New(FileName=str(source), ImageIO=image_io)
        reader.Update()
    except (AttributeError, RuntimeError) as error:  # AttributeError: ITK recognizes no format.
        raise ScanError(
            path,
            f"cannot be read as {source_format}: it is truncated, damaged or packed with bzip2; copy or download it "
            "again (a .mhd with its .raw file), or save it with gzip",
        ) from error
    image = reader.GetOutput()
    affine = np.eye(4)
    affine[:3, :3] = itk.array_from_matrix(image.GetDirection()) * np.asarray(image.GetSpacing())
    affine[:3, 3] = np.asarray(image.GetOrigin())
    return Volume(itk.array_from_image(image).T, LPS_TO_RAS @ affine, source_format, [])


def _has_nrrd_geometry(source: Path, meta: Any) -> bool:
    """Whether an NRRD has an anatomical space, directions and origin. ITK converts to LPS and fills in defaults."""
    with source.open("rb") as file:
        header = file.read(1 << 16).split(b"\n\n")[0]
    told = b"\nspace directions:" in header and b"\nspace origin:" in header
    return told and meta.HasKey("NRRD_space") and meta["NRRD_space"] == "left-posterior-superior"


def _read_npz(source: Path, path: str | Path, stored: Stored) -> Volume:
    """The array ``ct`` of a NumPy archive of Rad-ChestCT. The geometry comes from ``stored``."""
    try:
        with np.load(source, allow_pickle=False) as archive:
            found = archive.files
            array = archive["ct"] if "ct" in found else None
    except (EOFError, OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(path, ".npz", error) from error
    if array is None:
        shown = ", ".join(found) or "none"
        raise ScanError(path, f"expected an array 'ct', found {shown}; give a Rad-ChestCT scan")
    _check_three_axes(path, array.shape)
    array = array.reshape(array.shape[:3])
    affine = stored.affine_of(array.shape)
    if affine is None:
        raise ScanError(
            path,
            "a .npz has no geometry; prepare it with scripts/prepare_rad_chestct.py, or convert it to NIfTI",
            "no geometry",
        )
    return Volume(array, affine, "npz", [])


def _damaged(path: str | Path, file_format: str, error: BaseException) -> ScanError:
    return ScanError(
        path, f"cannot be read as {file_format}: it is truncated or damaged ({error}); copy or download it again"
    )


def _check_three_axes(path: str | Path, shape: Sequence[int]) -> None:
    """Accept (X, Y, Z) and (X, Y, Z, 1); reject single slices, colour volumes and time series."""
    if len(shape) < 3 or len(shape) > 4 or (len(shape) == 4 and shape[3] != 1) or min(shape[:3]) < 2:
        raise ScanError(path, f"expected one 3D scan, found an image of shape {tuple(int(n) for n in shape)}")


def _check_affine(path: str | Path, volume: Volume) -> None:
    """Reject a geometry that no CT has; warn of gantry tilt, of missing geometry and of short coverage."""
    axes = volume.affine[:3, :3]
    spacing = np.asarray(voxel_spacing(volume.affine))
    low, high = SPACING_MM
    if not np.isfinite(volume.affine).all():
        raise ScanError(path, "its affine contains NaN or infinite values; convert it from DICOM again")
    if spacing.min() < low or spacing.max() > high:
        shown = " x ".join(f"{value:.3g}" for value in spacing)
        raise ScanError(
            path, f"expected a spacing of {low} to {high:g} mm, found {shown} mm; convert it from DICOM again"
        )
    cosines = np.abs(np.triu((axes / spacing).T @ (axes / spacing), 1)).max()
    tilt = float(np.degrees(np.arcsin(min(cosines, 1.0))))
    if tilt > MAX_TILT_DEGREES:
        raise ScanError(path, f"its affine is sheared by {tilt:.0f} degrees or singular; convert it from DICOM again")
    if tilt > TILT_WARNING_DEGREES:
        volume.warnings.append(
            f"{path}: the slices are tilted by {tilt:.1f} degrees (gantry tilt); resampling corrects this"
        )
    if np.array_equal(np.abs(volume.affine), np.eye(4)):
        volume.warnings.append(
            f"{path}: has no geometry of its own (1 mm voxels, no position), so left and right, top and bottom and all "
            "sizes may be wrong; give its affine as stored, or convert it from DICOM again"
        )
    extents = spacing * volume.array.shape
    body_axis = int(np.abs(axes[2] / spacing).argmax())
    if np.delete(extents, body_axis).min() < MIN_AXIAL_EXTENT_MM or extents[body_axis] < MIN_BODY_AXIS_EXTENT_MM:
        shown = " x ".join(f"{value:.0f}" for value in extents)
        raise ScanError(
            path, f"expected a scan of the chest, found one that spans only {shown} mm; give the whole scan"
        )
    if extents[body_axis] < SHORT_BODY_AXIS_EXTENT_MM:
        volume.warnings.append(
            f"{path}: covers only {extents[body_axis]:.0f} mm along the body; findings elsewhere cannot be seen"
        )
