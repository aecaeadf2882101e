"""A scan as stored in a file, and the rescale and geometry that a table gives because the file lacks them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np

from bundle.ctfindings.files.errors import ScanError

MAX_VOXELS = 2**30
"""A CT of 1024 x 1024 x 1024 voxels; in HU it takes 4 GiB."""


class SourceImages(NamedTuple):
    """The DICOM images of a scan: one for each slice of its third axis, the nearest one if slices were interpolated.

    A slice of an Enhanced CT is a frame of its image, counted from 1; other images have no frame number.
    """

    series_uid: str
    sop_uids: tuple[str, ...]
    instance_numbers: tuple[int | None, ...]
    frame_numbers: tuple[int | None, ...]


class Volume(NamedTuple):
    """A 3D image as stored: voxels (X, Y, Z) in storage order, any number type, with the file's own rescale applied.

    The affine, (4, 4) float64, maps voxel indices to RAS world mm. The format is nifti, nrrd, metaimage, npz or dicom.
    Only a DICOM series has source images.
    """

    array: np.ndarray
    affine: np.ndarray
    source_format: str
    warnings: list[str]
    source_images: SourceImages | None = None


class Stored(NamedTuple):
    """The entry ``stored`` of a study in a datalist. All values are optional.

    Attributes:
        slope, intercept: HU = slope x stored value + intercept; ``load_scan`` applies this once.
        affine: voxel index to RAS world mm, (4, 4), instead of the file's; None keeps the file's.
        axes: directions of the array axes, such as ``IPL``, for files without geometry; the scan is centred at 0.
        spacing_mm: voxel size along these axes.
    """

    slope: float = 1.0
    intercept: float = 0.0
    affine: tuple[tuple[float, ...], ...] | None = None
    axes: str | None = None
    spacing_mm: tuple[float, ...] | None = None

    @property
    def rescales(self) -> bool:
        """Whether the stored values need a rescale to HU."""
        return (self.slope, self.intercept) != (1.0, 0.0)

    def affine_of(self, shape: Sequence[int]) -> np.ndarray | None:
        """Voxel index to RAS world mm, (4, 4) float64, for an array of this shape; None without a geometry."""
        if self.affine is not None:
            return np.asarray(self.affine, np.float64)
        if self.axes is None or self.spacing_mm is None:
            return None
        affine = np.eye(4)
        affine[:3, :3] = 0
        for axis, (world, sign) in enumerate(nib.orientations.axcodes2ornt(tuple(self.axes))):
            affine[int(world), axis] = sign * self.spacing_mm[axis]
        affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(shape, np.float64) - 1) / 2)
        return affine

    def record(self) -> dict[str, Any]:
        """The entry of a datalist: the values that differ from the default."""
        return {name: value for name, value in self._asdict().items() if value != self._field_defaults[name]}


def stored_from(entry: Mapping[str, Any] | None) -> Stored:
    """Parse the entry ``stored`` of a study.

    ValueError if it is not a mapping, has an unknown key, or a value is invalid.
    """
    values = entry or {}
    if not isinstance(values, Mapping):
        raise ValueError(f"stored: expected a mapping such as {{'intercept': -8192}}, got {entry!r}")
    if unknown := sorted(set(values) - set(Stored._fields)):
        raise ValueError(f"stored: unknown key {unknown[0]!r}; choose from {', '.join(Stored._fields)}")
    try:
        slope, intercept = float(values.get("slope", 1)), float(values.get("intercept", 0))
        affine = None if values.get("affine") is None else np.asarray(values["affine"], np.float64)
        spacing = None if values.get("spacing_mm") is None else np.asarray(values["spacing_mm"], np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"stored: expected numbers ({error}); correct it") from error
    axes = values.get("axes")
    if not np.isfinite([slope, intercept]).all() or slope <= 0:
        raise ValueError(f"stored: expected a positive slope and an intercept, got {slope:g} and {intercept:g}")
    if affine is not None and (affine.shape != (4, 4) or not np.isfinite(affine).all()):
        raise ValueError("stored: expected a 4 x 4 affine of finite numbers; correct it")
    if (axes is None) != (spacing is None) or (axes is not None and not _are_axes(axes)):
        raise ValueError(f"stored: expected axes such as 'IPL' together with spacing_mm, got axes {axes!r}")
    if spacing is not None and (spacing.shape != (3,) or not (spacing > 0).all()):
        raise ValueError("stored: expected three positive numbers in spacing_mm; correct it")
    rows = None if affine is None else tuple(tuple(row) for row in affine.tolist())
    return Stored(slope, intercept, rows, axes, None if spacing is None else tuple(spacing.tolist()))


def _are_axes(axes: Any) -> bool:
    """Whether these are three letters, one of each pair R/L, A/P and S/I."""
    pair = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
    return isinstance(axes, str) and sorted(pair.get(letter, 3) for letter in axes) == [0, 1, 2]


def check_shape(path: str | Path, shape: Sequence[int]) -> tuple[int, ...]:
    """Three axes, without further axes of length 1. ScanError for a single slice, a colour volume or a time series."""
    sizes = tuple(int(size) for size in shape)
    if len(sizes) < 3 or any(size != 1 for size in sizes[3:]) or min(sizes[:3]) < 2:
        raise ScanError(path, f"expected one 3D scan, found an image of shape {sizes}; give one 3D scan", "not-3d")
    return sizes[:3]


def check_size(path: str | Path, shape: Sequence[int], itemsize: int, start: float, first: int, held: int) -> None:
    """Reject a header that the file cannot fulfil, before memory is reserved for its voxels.

    Args:
        itemsize: bytes of a voxel.
        start, first: byte at which the header lets the voxels start, and the first byte behind the header.
        held: most bytes that the file can hold, unpacked.
    """
    sizes = " x ".join(map(str, shape))
    voxels = float(np.prod(np.asarray(shape, np.float64)))
    if not (start >= first and float(start).is_integer()):
        problem = f"its header lets the voxels start at byte {start:g}, expected {first} or more"
        raise ScanError(path, f"{problem}; convert it from DICOM again", "header-contradicts-file")
    if start + voxels * itemsize > held:
        problem = f"its header says {sizes} voxels of {itemsize} bytes, more than the file holds: it is truncated or"
        raise ScanError(path, f"{problem} damaged; copy or download it again", "damaged-file")
    if voxels > MAX_VOXELS:
        problem = f"has {sizes} voxels; at most {MAX_VOXELS:,} are allowed. Crop or resample it"
        raise ScanError(path, problem, "too-large")
