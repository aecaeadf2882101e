"""Segments the body without the table, on a coarse upright grid that the lung mask uses as well."""

from collections.abc import Callable, Sequence
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bundle.ctfindings.scan.coordinates import voxel_spacing
from bundle.ctfindings.scan.morphology import Array, Mask, filled_slices, grown_by_box, shrunk_by_box

BODY_HU = -300.0
OPENING_MM = 6.0
"""A table, a blanket or a cable is thinner than this, or separate from the body."""
WORKING_MM = 2.0
"""Smaller voxels are averaged up to this size: finer than the walls that matter, and fast."""


def body_region(hu: NDArray[Any], voxel_mm: Sequence[float] | Array, threshold_hu: float = BODY_HU) -> Mask:
    """The largest region (X, Y, Z) above a threshold in HU, after opening; empty if no voxel is above it."""
    reach = np.maximum(1, np.round(OPENING_MM / 2 / np.asarray(voxel_mm))).astype(int).tolist()
    solid = hu > threshold_hu
    # Voxels outside the scan count as solid, or a body that is cut by the border would be eroded there.
    eroded = shrunk_by_box(solid, reach)
    parts, count = ndimage.label(eroded if eroded.any() else solid)
    if count == 0:
        return np.zeros(hu.shape, bool)
    largest = parts == 1 + np.bincount(parts.ravel())[1:].argmax()
    return grown_by_box(largest, reach)


def body_mask(hu: NDArray[Any], affine: Array) -> Mask:
    """The body without the table, (X, Y, Z), with everything it encloses.

    Takes HU (X, Y, Z), axes in any order, and the affine (4, 4) to RAS world mm.
    """
    return segment_coarsely(_filled_body, hu, affine)


def _filled_body(hu: NDArray[np.float32], voxel: Array) -> Mask:
    return filled_slices(body_region(hu, voxel))


def segment_coarsely(segment: Callable[[NDArray[np.float32], Array], Mask], hu: NDArray[Any], affine: Array) -> Mask:
    """The mask, (X, Y, Z), that ``segment`` gives for the pooled upright scan and its voxel size in mm."""
    upright, spacing = to_upright(hu, affine)
    small, factors = pooled(upright, spacing, WORKING_MM)
    found = _enlarged(segment(small, spacing * factors), factors, upright.shape)
    to_scan = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.io_orientation(affine)
    )
    return np.ascontiguousarray(nib.orientations.apply_orientation(found, to_scan))


def to_upright(hu: NDArray[Any], affine: Array) -> tuple[NDArray[Any], Array]:
    """The scan with axes to right, front and head, and its voxel size in mm (3,)."""
    to_ras = nib.orientations.io_orientation(affine)
    spacing = np.asarray(voxel_spacing(affine))[np.argsort(to_ras[:, 0])]
    return nib.orientations.apply_orientation(hu, to_ras), spacing


def pooled(hu: NDArray[Any], spacing: Array, working_mm: float) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Means of blocks of voxels up to ``working_mm``, and the block size (3,). The last voxel pads the last blocks."""
    factors = np.maximum(1, np.floor(working_mm / spacing + 1e-3)).astype(np.int64)
    means = hu
    # The axis with the longest stride first: its sums run along memory.
    for axis in np.argsort(hu.strides)[::-1].tolist():
        if factors[axis] > 1:
            means = _pooled_axis(means, axis, int(factors[axis]))
    return means.astype(np.float32, copy=False), factors


def _pooled_axis(values: NDArray[Any], axis: int, factor: int) -> NDArray[np.float32]:
    def means(part: NDArray[Any]) -> NDArray[np.float32]:
        blocks = part.reshape(*part.shape[:axis], -1, factor, *part.shape[axis + 1 :])
        return blocks.mean(axis=axis + 1, dtype=np.float32)

    whole, rest = np.split(values, [values.shape[axis] // factor * factor], axis)
    if not rest.shape[axis]:
        return means(whole)
    missing = [(0, factor - rest.shape[axis] if other == axis else 0) for other in range(values.ndim)]
    return np.concatenate([means(whole), means(np.pad(rest, missing, mode="edge"))], axis)


def _enlarged(mask: Mask, factors: NDArray[np.int64], shape: tuple[int, ...]) -> Mask:
    """A mask of the pooled grid on the full grid, with its border between the centres of the pooled voxels."""
    if (factors == 1).all():
        return mask
    offset = (1 / factors - 1) / 2
    values = ndimage.affine_transform(
        mask.astype(np.float32), 1 / factors, offset, shape, order=1, mode="nearest", output=np.float32
    )
    return values > 0.5
