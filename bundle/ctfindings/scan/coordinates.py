"""Conversions between voxels and world mm, and between RAS and LPS, in float64.

World coordinates are RAS in mm (x increases to the patient's right, y to anterior, z to superior). DICOM and Slicer
markups use LPS, which differs by the sign of x and y.
"""

from functools import lru_cache
from itertools import product
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

LPS_TO_RAS: Array = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Affine from LPS to RAS world mm, and its own inverse."""


def as_affine(affine: Any) -> Array:
    """A ``(4, 4)`` affine, voxel index to world mm, as float64; a ValueError if it is not finite and invertible."""
    matrix = np.asarray(affine, dtype=np.float64)
    if matrix.shape != (4, 4):
        raise ValueError(f"expected an affine of shape (4, 4), got {matrix.shape}")
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-12:
        raise ValueError(f"expected a finite, invertible affine, got {matrix.tolist()}")
    return matrix


def ras_to_lps(points: ArrayLike) -> Array:
    """World points ``[..., 3]`` in mm, RAS to LPS."""
    return np.asarray(points, dtype=np.float64) * LPS_TO_RAS.diagonal()[:3]


def voxel_to_world(voxels: ArrayLike, affine: Any) -> Array:
    """Voxel coordinates ``[..., 3]`` (voxel centres are integers) to world mm ``[..., 3]``."""
    matrix = as_affine(affine)
    return np.asarray(voxels, dtype=np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


def world_to_voxel(points: ArrayLike, affine: Any) -> Array:
    """World mm ``[..., 3]`` to fractional voxel coordinates ``[..., 3]``."""
    return voxel_to_world(points, np.linalg.inv(as_affine(affine)))


def voxel_spacing(affine: Any) -> tuple[float, float, float]:
    """Spacing in mm of the three voxel axes: the length of the columns of the affine, which may be singular."""
    x, y, z = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    return float(x), float(y), float(z)


def orientation_code(affine: Any) -> str:
    """The directions in which the three voxel axes increase, as ``"RAS"`` or ``"LPS"``."""
    return "".join(nib.orientations.aff2axcodes(as_affine(affine)))


def axial_axis(affine: Any) -> int:
    """The voxel axis closest to superior-inferior; its slices are axial."""
    return _axial_axis(as_affine(affine).tobytes())


@lru_cache(maxsize=8)
def _axial_axis(affine: bytes) -> int:
    return int(np.argmax(nib.orientations.io_orientation(np.frombuffer(affine).reshape(4, 4))[:, 0] == 2))


def axial_axis_ascends(affine: Any) -> bool:
    """Whether the slice index along the axial axis grows towards superior."""
    matrix = as_affine(affine)
    return bool(matrix[2, axial_axis(matrix)] > 0)


def box_corners(lower: ArrayLike, upper: ArrayLike) -> Array:
    """The eight corners ``[8, 3]`` of an axis-aligned box given by two opposite corners."""
    return np.array(list(product(*np.stack([lower, upper], axis=1))), dtype=np.float64)


def bounds_mm(affine: Any, lower: ArrayLike, upper: ArrayLike) -> tuple[Array, Array]:
    """World bounding box in mm (min, max) of the voxels ``lower..upper`` inclusive, outer faces included."""
    corners = voxel_to_world(box_corners(np.asarray(lower, float) - 0.5, np.asarray(upper, float) + 0.5), affine)
    return corners.min(axis=0), corners.max(axis=0)
