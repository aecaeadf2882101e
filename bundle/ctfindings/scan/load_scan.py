"""Reads one chest CT of any supported format into a MetaTensor in HU. Rejects files that are not a chest CT."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import torch
from monai.data import MetaTensor

from bundle.ctfindings.files.errors import ScanError, coded, library_errors
from bundle.ctfindings.scan.coordinates import voxel_spacing
from bundle.ctfindings.scan.dicom_headers import MAX_TILT_DEGREES
from bundle.ctfindings.scan.dicom_series import read_dicom
from bundle.ctfindings.scan.file_format import MAX_PACKING, file_format
from bundle.ctfindings.scan.hu_check import LOWEST_HU, UNSEEN_WHEN_CLIPPED, clipped_at, to_hu
from bundle.ctfindings.scan.itk_reader import read_metaimage, read_nrrd
from bundle.ctfindings.scan.nifti_reader import read_nifti
from bundle.ctfindings.scan.storage import Stored, Volume, check_shape, check_size, stored_from

SPACING_MM = (0.2, 20.0)
MIN_AXIAL_EXTENT_MM = 50.0
MIN_BODY_AXIS_EXTENT_MM = 25.0
SHORT_BODY_AXIS_EXTENT_MM = 100.0
TILT_WARNING_DEGREES = 1.0

_READERS: dict[str, Callable[[Path, str | Path], Volume]] = {
    "dicom": read_dicom, "nifti": read_nifti, "nrrd": read_nrrd, "metaimage": read_metaimage
}  # fmt: skip


def load_scan(path: str | Path, stored: Mapping[str, Any] | None = None) -> MetaTensor:
    """Read one chest CT from NIfTI, NRRD, MetaImage, a folder of DICOM or a zip of DICOM.

    ``stored`` has the rescale and geometry that the file itself lacks; see ``Stored``.

    Returns:
        HU, [1, X, Y, Z] float32, axes in storage order, affine to RAS world mm. The meta has ``filename_or_obj``,
        ``source_format``, ``warnings`` (list of str), ``not_assessed`` (names of the findings that the stored values
        cannot show), ``source_images`` (``SourceImages`` of a DICOM series in its own geometry, otherwise None),
        ``spatial_shape`` and ``original_affine``.

    Raises:
        ScanError: if the file is missing, damaged, not a 3D image, or not a CT in HU.
    """
    try:
        known = stored_from(stored)
    except ValueError as error:
        raise ScanError(path, str(error), "bad-stored") from error
    volume = read_volume(path, known)
    _check_affine(path, volume)
    hu = to_hu(path, volume, known)
    if not hu.flags.writeable or np.shares_memory(hu, volume.array):
        hu = hu.copy(order="K")
    np.maximum(hu, LOWEST_HU, out=hu)
    unseen: list[str] = []
    if (bound := clipped_at(hu)) is not None:
        unseen = list(UNSEEN_WHEN_CLIPPED)
        problem = f"its values were clipped at {bound:g} HU, so denser tissue cannot be seen; not assessed: "
        problem += f"{', '.join(unseen)}. Export the CT without a window"
        volume.warnings.append(coded(path, problem, "clipped-values"))
    scan = as_metatensor(hu, volume, path)
    scan.meta["not_assessed"] = unseen
    scan.meta["source_images"] = volume.source_images
    return scan


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

    The content of a file decides how it is read, not its name. ScanError if the file is missing, damaged, of an unknown
    format, not 3D, without geometry or not finite.
    """
    source, stored = Path(path), stored or Stored()
    if not os.path.exists(source):
        raise ScanError(path, "no such file or folder; check the path", "no-such-file")
    format = "dicom" if source.is_dir() else file_format(source, path)
    volume = _read_npz(source, path, stored) if format == "npz" else _READERS[format](source, path)
    if volume.array.dtype.kind == "f" and not np.isfinite(volume.array.min() + volume.array.max()):
        raise ScanError(path, "contains NaN or infinite values; write it again from its source", "not-finite")
    affine = stored.affine_of(volume.array.shape)
    # Slices of another geometry do not lie where the images of the file say.
    return volume if affine is None else volume._replace(affine=affine, source_images=None)


def _read_npz(source: Path, path: str | Path, stored: Stored) -> Volume:
    """The array ``ct`` of a NumPy archive of Rad-ChestCT. The geometry comes from ``stored``."""
    problem = "cannot be read as .npz: it is truncated or damaged ({error}); copy or download it again"
    with library_errors(path, problem, "damaged-file"), np.load(source, allow_pickle=False) as archive:
        found = archive.files
        if has_ct := "ct.npy" in archive.zip.namelist():
            _check_npz_size(archive.zip, path)
        # By its full name: an archive may also hold a member "ct", which was not checked.
        array = archive["ct.npy"] if has_ct else None
    if array is None:
        shown = ", ".join(found) or "none"
        raise ScanError(path, f"expected an array 'ct', found {shown}; give a Rad-ChestCT scan", "npz-without-ct")
    array = array.reshape(check_shape(path, array.shape))
    if array.dtype.kind not in "iuf":
        raise ScanError(
            path, f"expected an array of numbers, found {array.dtype}; export the CT in HU", "colour-or-complex"
        )
    affine = stored.affine_of(array.shape)
    if affine is None:
        raise ScanError(
            path,
            "a .npz has no geometry; prepare it with scripts/prepare_rad_chestct.py, or convert it to NIfTI",
            "no-affine",
        )
    return Volume(array, affine, "npz", [])


def _check_npz_size(archive: ZipFile, path: str | Path) -> None:
    """Reject an array that the archive cannot hold, before memory is reserved for it."""
    with archive.open("ct.npy") as member:
        version = np.lib.format.read_magic(member)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(member)
        start = member.tell()
    packed = archive.getinfo("ct.npy")
    held = min(packed.file_size, packed.compress_size * MAX_PACKING)
    check_size(path, shape, dtype.itemsize, start, 0, held)


def _check_affine(path: str | Path, volume: Volume) -> None:
    """Reject a geometry that no CT has; warn of gantry tilt, of missing geometry and of short coverage."""
    if not np.isfinite(volume.affine).all():
        raise ScanError(
            path, "its affine contains NaN or infinite values; convert it from DICOM again", "impossible-affine"
        )
    axes = volume.affine[:3, :3]
    spacing = np.asarray(voxel_spacing(volume.affine))
    low, high = SPACING_MM
    if spacing.min() < low or spacing.max() > high:
        shown = " x ".join(f"{value:.3g}" for value in spacing)
        remedy = next(
            (
                f"it seems to be in {unit}: write it in mm, multiplied by {factor:g}"
                for unit, factor in (("metres", 1000), ("centimetres", 10), ("micrometres", 0.001))
                if low <= spacing.min() * factor and spacing.max() * factor <= high
            ),
            "convert it from DICOM again",
        )
        problem = f"expected a spacing of {low} to {high:g} mm, found {shown} mm; {remedy}"
        raise ScanError(path, problem, "impossible-spacing")
    cosines = np.abs(np.triu((axes / spacing).T @ (axes / spacing), 1)).max()
    tilt = float(np.degrees(np.arcsin(min(cosines, 1.0))))
    if tilt > MAX_TILT_DEGREES:
        problem = f"its affine is sheared by {tilt:.0f} degrees or singular; convert it from DICOM again"
        raise ScanError(path, problem, "impossible-affine")
    if tilt > TILT_WARNING_DEGREES:
        problem = f"the slices are tilted by {tilt:.1f} degrees (gantry tilt); resampling corrects this"
        volume.warnings.append(coded(path, problem, "gantry-tilt"))
    if np.array_equal(np.abs(volume.affine), np.eye(4)):
        problem = "has no geometry of its own (1 mm voxels, no position), so left and right, top and bottom and all "
        problem += "sizes may be wrong; give its affine as stored, or convert it from DICOM again"
        volume.warnings.append(coded(path, problem, "no-own-geometry"))
    extents = spacing * volume.array.shape
    body_axis = int(np.abs(axes[2] / spacing).argmax())
    if np.delete(extents, body_axis).min() < MIN_AXIAL_EXTENT_MM or extents[body_axis] < MIN_BODY_AXIS_EXTENT_MM:
        shown = " x ".join(f"{value:.0f}" for value in extents)
        problem = f"expected a scan of the chest, found one that spans only {shown} mm; give the whole scan"
        raise ScanError(path, problem, "not-a-chest")
    if extents[body_axis] < SHORT_BODY_AXIS_EXTENT_MM:
        problem = f"covers only {extents[body_axis]:.0f} mm along the body; findings elsewhere cannot be seen"
        volume.warnings.append(coded(path, problem, "short-cover"))
