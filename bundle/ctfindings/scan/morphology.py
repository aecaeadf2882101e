"""Morphology of masks by shifted copies and connected parts, which is faster than by distances and propagation."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
Array = NDArray[np.float64]

IN_SLICE = np.pad(ndimage.generate_binary_structure(2, 1)[..., None], [(0, 0), (0, 0), (1, 1)])
"""Neighbours within an axial slice, (3, 3, 3)."""


def grown_by_box(mask: Mask, reach: Sequence[int]) -> Mask:
    """Voxels at most ``reach`` voxels along each axis from the mask, (X, Y, Z)."""
    for axis, furthest in enumerate(reach):
        grown = mask.copy()
        for step in range(1, furthest + 1):
            for shift in (step, -step):
                to, of = [slice(None)] * 3, [slice(None)] * 3
                to[axis], of[axis] = _shifted(mask.shape[axis], shift)
                grown[tuple(to)] |= mask[tuple(of)]
        mask = grown
    return mask


def shrunk_by_box(mask: Mask, reach: Sequence[int]) -> Mask:
    """Voxels farther than ``reach`` voxels from what is not in the mask, (X, Y, Z); beyond the grid, all is in it."""
    return ~grown_by_box(~mask, reach)


def grown_by_ball(mask: Mask, radius_mm: float, voxel: Array) -> Mask:
    """Voxels at most a radius in mm from the mask, (X, Y, Z), between centres of voxels of ``voxel`` mm."""
    reach = np.floor(radius_mm / voxel).astype(int)
    steps = [np.arange(-size, size + 1) * step for size, step in zip(reach.tolist(), voxel.tolist(), strict=True)]
    ball = np.sqrt(sum(axis**2 for axis in np.meshgrid(*steps, indexing="ij", sparse=True))) <= radius_mm
    # The ball is a bundle of runs along the last axis.
    furthest = ball.sum(axis=2) // 2
    grown = np.zeros_like(mask)
    for run in np.unique(furthest[ball.any(axis=2)]).tolist():
        along = grown_by_box(mask, (0, 0, run))
        for shift in (np.argwhere(ball.any(axis=2) & (furthest == run)) - reach[:2]).tolist():
            places = [_shifted(size, step) for size, step in zip(mask.shape[:2], shift, strict=True)]
            grown[tuple(to for to, _ in places)] |= along[tuple(of for _, of in places)]
    return grown


def closed_by_ball(mask: Mask, radius_mm: float, voxel: Array) -> Mask:
    """Closing with a ball, (X, Y, Z). Where the mask reaches the border, voxels outside the grid count as set."""
    pad = np.ceil(radius_mm / voxel).astype(int) + 1
    padded = np.pad(mask, [(width, width) for width in pad], mode="edge")
    shrunk = ~grown_by_ball(~grown_by_ball(padded, radius_mm, voxel), radius_mm, voxel)
    inside = tuple(slice(width, width + size) for width, size in zip(pad, mask.shape, strict=True))
    return shrunk[inside] | mask


def filled_slices(mask: Mask) -> Mask:
    """The mask with what it encloses in each axial slice, (X, Y, Z)."""
    return filled(mask, IN_SLICE)


def filled(mask: Mask, neighbours: Mask | None = None) -> Mask:
    """The mask with what it encloses, (X, Y, Z); ``neighbours`` as in ``enclosed_parts``."""
    holes, enclosed = enclosed_parts(mask, neighbours)
    return mask | enclosed[holes]


def enclosed_parts(mask: Mask, neighbours: Mask | None = None) -> tuple[NDArray[np.int32], Mask]:
    """The connected parts of what is not in the mask, and which of them do not reach the border.

    Args:
        mask: (X, Y, Z).
        neighbours: ``IN_SLICE``, or None for those across a face.

    Returns:
        Labels (X, Y, Z), 0 in the mask, and whether the mask encloses each part, (parts + 1,).
    """
    parts, count = ndimage.label(~mask, neighbours)
    enclosed = np.ones(count + 1, bool)
    for axis in range(3 if neighbours is None else 2):
        for end in (0, -1):
            enclosed[np.take(parts, end, axis)] = False
    enclosed[0] = False
    return parts, enclosed


def _shifted(size: int, step: int) -> tuple[slice, slice]:
    """Target and source of an axis whose values move by some voxels."""
    step = min(max(step, -size), size)
    return slice(max(step, 0), size + min(step, 0)), slice(max(-step, 0), size - max(step, 0))
