"""The lungs of a chest CT by threshold and shape, without a network: for scans that nobody has segmented.

Every number here is a property of bodies or of CT in HU, mm or ml, so that it holds for other voxel sizes and other
scanners. The result has the air, the vessels and what lies within the lung; it has not the trachea and main bronchi,
gas of the bowel, air around the body, nor pleural fluid. Consolidation is found where lung surrounds it or where a gap
in the outline of the lung shows it, not where it fills a lobe down to the chest wall: see docs/masks.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bundle.ctfindings.scan.airways import central_airways

Mask = NDArray[np.bool_]

LUNG_HU = -400.0
"""Half way between inflated lung (-850) and tissue (50): where partial volume puts the border."""
BODY_HU = -300.0
GAS_HU = -950.0
"""The middle of free gas, in the bowel or around the body, is below; that of lung, even emphysematous, is not
throughout.
"""
GAS_MARGIN_HU = 30.0
GAS_SHARE = 0.6
"""Share of a region's inner voxels below ``GAS_HU`` from which on it is gas."""
INNER_MM = 3.0
"""Depth at which partial volume with a wall no longer counts."""
POCKET_MM = 10.0
"""Over this width gas of the stomach is even, while lung has vessels."""
POCKET_ML = 10.0
WALL_SHARE = 0.4
"""Share of tissue within ``POCKET_MM`` of a pocket; around a bulla there is less."""
WORKING_MM = 2.0
"""Smaller voxels are averaged up to this: it is finer than the walls that matter, and quick."""
COARSE_MM = 8.0
"""Coarse enough to take no time, fine enough for the volume of the lungs."""
SMOOTHING_MM = 1.0
"""Standard deviation of the filter against noise."""
MIN_LUNG_ML = 30.0
"""Regions that are smaller are pockets of gas or corners of the lung that closing takes in anyway."""
LARGE_SHARE = 0.1
"""Of the largest region, from which on a further one is lung wherever it lies; a smaller one must lie between the
outlines of the large.
"""
CLOSING_MM = 8.0
"""Radius of vessels at the hilum and of nodules at the pleura that belong to the lung."""
HOLE_MM2 = 300.0
"""Larger holes of an axial slice may be the dome of the diaphragm."""
SIDE_SHARE = 0.15
"""Least share of both lungs that one has: a collapsed one is small."""
SPLIT_MM = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0)
"""Depths at which left and right lung are looked for apart, where they touch."""


def lung_mask(hu: NDArray[Any], affine: NDArray[np.float64]) -> Mask:
    """The lungs.

    Args:
        hu: the scan (X, Y, Z) in HU, in any order of its axes.
        affine: (4, 4), voxel index to RAS world mm.

    Returns:
        (X, Y, Z), true in the lungs; nowhere, where the scan shows none.
    """
    upright, spacing, from_ras = _upright(hu, affine)
    small, factors = _pooled(upright, spacing)
    found = _enlarged(_lungs(small, spacing * factors), factors, upright.shape)
    return np.ascontiguousarray(nib.orientations.apply_orientation(found, from_ras))


def body_mask(hu: NDArray[Any], affine: NDArray[np.float64]) -> Mask:
    """The body without the table, (X, Y, Z), with all that it encloses; see ``lung_mask`` for the arguments."""
    upright, spacing, from_ras = _upright(hu, affine)
    small, factors = _pooled(upright, spacing)
    found = _body(small, spacing * factors)
    for level in range(found.shape[2]):
        found[:, :, level] = ndimage.binary_fill_holes(found[:, :, level])
    found = _enlarged(found, factors, upright.shape)
    return np.ascontiguousarray(nib.orientations.apply_orientation(found, from_ras))


def lung_litres(hu: NDArray[Any], affine: NDArray[np.float64], working_mm: float = COARSE_MM) -> float:
    """Volume of the lungs in litres, from a coarse grid: tells a whole chest from another region, in a fraction of the
    mask's time.

    Args:
        hu: as for ``lung_mask``.
        affine: as for ``lung_mask``.
        working_mm: voxels are pooled to about this size.
    """
    upright, spacing, _ = _upright(hu, affine)
    small, factors = _pooled(upright, spacing, working_mm)
    voxel = spacing * factors
    return float(np.count_nonzero(_lungs(small, voxel)) * voxel.prod() / 1e6)


def _upright(
    hu: NDArray[Any], affine: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64]]:
    """The scan with axes to right, front and head, its voxel size in mm, and the way back."""
    to_ras = nib.orientations.io_orientation(affine)
    from_ras = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), to_ras)
    spacing = np.linalg.norm(np.asarray(affine, np.float64)[:3, :3], axis=0)[np.argsort(to_ras[:, 0])]
    return nib.orientations.apply_orientation(hu, to_ras), spacing, from_ras


def _lungs(hu: NDArray[np.float32], voxel: NDArray[np.float64]) -> Mask:
    """The lungs on the working grid, axes to right, front and head; ``voxel`` in mm."""
    smooth = ndimage.gaussian_filter(hu, np.minimum(SMOOTHING_MM / voxel, 1.0))
    air = smooth < LUNG_HU
    air &= ~_air_around_the_body(air, smooth, voxel)
    result = np.zeros_like(air)
    box = _box(air, voxel)
    air, smooth, lungs = air[box], smooth[box], result[box]
    airways = central_airways(smooth, air, voxel)
    air &= ~airways
    gas_hu = _gas_of(airways, smooth)
    air &= ~_gas_below(air, smooth, gas_hu, voxel)
    for side in _sides(_lung_regions(air, smooth, voxel), voxel):
        near = _box(side, voxel)
        lungs[near] |= _filled(side[near], voxel)
    lungs &= ~airways
    return result


def _box(mask: Mask, voxel: NDArray[np.float64]) -> tuple[slice, ...]:
    """The part of the grid around a mask, with room for closing; all of it for an empty mask."""
    found = ndimage.find_objects(mask.view(np.uint8))
    margin = np.ceil(2 * CLOSING_MM / voxel).astype(int)
    return (
        tuple(
            slice(max(part.start - int(room), 0), part.stop + int(room))
            for part, room in zip(found[0], margin, strict=True)
        )
        if found
        else (slice(None),) * 3
    )


def _air_around_the_body(air: Mask, hu: NDArray[np.float32], voxel: NDArray[np.float64]) -> Mask:
    """Air that reaches the side of an axial slice, and is not a lung that the field of view cuts.

    Slices are looked at one by one, since at the neck and through the bowel the air inside meets that outside. A lung
    that is cut has tissue of the body on two sides at least; a strip of air before or behind the body has it on one.
    """
    body = _body(hu, voxel)
    on_sides = np.zeros(air.shape, np.uint8)
    for axis in (0, 1):
        on_sides += np.logical_or.accumulate(body, axis=axis)
        on_sides += np.flip(np.logical_or.accumulate(np.flip(body, axis), axis=axis), axis)
    outside = np.zeros_like(air)
    levels = range(air.shape[2])
    for level in levels:
        parts, touching = _parts_at_the_side(air[:, :, level])
        if len(touching):
            medians = np.asarray(ndimage.median(hu[:, :, level], parts, touching))
            enclosed = np.asarray(ndimage.mean(on_sides[:, :, level] >= 2, parts, touching))
            outside[:, :, level] = np.isin(parts, touching[(medians < GAS_HU) | (enclosed < 0.5)])
    # What lies over or under air outside is outside as well.
    for level, neighbour in [*pairwise(levels), *pairwise(reversed(levels))]:
        parts, touching = _parts_at_the_side(air[:, :, neighbour] & ~outside[:, :, neighbour])
        if len(touching):
            shared = np.asarray(ndimage.mean(outside[:, :, level], parts, touching))
            outside[:, :, neighbour] |= np.isin(parts, touching[shared > 0.5])
    return outside


def _parts_at_the_side(air: Mask) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Connected parts of one slice, numbered from 1, and the numbers of those that reach its edge."""
    parts, _ = ndimage.label(air)
    return parts, np.setdiff1d(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]), 0)


def _body(hu: NDArray[np.float32], voxel: NDArray[np.float64]) -> Mask:
    """The largest region of tissue once thin things, such as a table, are taken off."""
    block = 2 * np.maximum(1, np.round(3.0 / voxel)).astype(int) + 1
    solid = (hu > BODY_HU).view(np.uint8)
    parts, count = ndimage.label(ndimage.minimum_filter(solid, block, mode="nearest"))
    if count == 0:
        return solid.astype(bool)
    largest = (parts == 1 + np.bincount(parts.ravel())[1:].argmax()).view(np.uint8)
    return ndimage.maximum_filter(largest, block).astype(bool)


def _gas_of(airways: Mask, hu: NDArray[np.float32]) -> float:
    """HU below which this scan has free gas: what its trachea shows and a margin, since scatter lifts gas inside the
    body.
    """
    if not airways.any():
        return GAS_HU
    return float(np.clip(np.median(hu[airways]) + GAS_MARGIN_HU, GAS_HU, GAS_HU + GAS_MARGIN_HU))


def _gas_below(air: Mask, hu: NDArray[np.float32], gas_hu: float, voxel: NDArray[np.float64]) -> Mask:
    """Gas of stomach and bowel, also where a thin diaphragm does not part it from the lung.

    Such gas is even over 10 mm, has tissue around it and lies in the lower half of the air of the scan; a bulla has
    lung around it.
    """
    size = np.maximum(1, np.round(POCKET_MM / voxel)).astype(int)
    mean = ndimage.uniform_filter(hu, size, mode="nearest")
    parts, _ = ndimage.label(air & (mean < gas_hu))
    levels = np.flatnonzero(air.any(axis=(0, 1)))
    pockets = np.zeros_like(air)
    for part, where in enumerate(ndimage.find_objects(parts), start=1):
        own = parts[where] == part
        middle = (where[2].start + where[2].stop) / 2
        if own.sum() * float(np.prod(voxel)) / 1000 < POCKET_ML or middle > (levels[0] + levels[-1]) / 2:
            continue
        near = tuple(
            slice(max(side.start - int(room), 0), side.stop + int(room)) for side, room in zip(where, size, strict=True)
        )
        own = parts[near] == part
        shell = ndimage.maximum_filter(own.view(np.uint8), 2 * size + 1).astype(bool) & ~own
        if (hu[near][shell] > LUNG_HU).mean() > WALL_SHARE:
            pockets[near] |= own
    if not pockets.any():
        return pockets
    to_pocket = ndimage.distance_transform_edt(~pockets, sampling=voxel)
    lung = _inner(air, voxel) & (mean > gas_hu + GAS_MARGIN_HU) & (mean < LUNG_HU - 200)
    to_lung = ndimage.distance_transform_edt(~lung, sampling=voxel) if lung.any() else np.full(air.shape, np.inf)
    return air & (to_pocket <= POCKET_MM) & (to_pocket < to_lung)


def _inner(air: Mask, voxel: NDArray[np.float64]) -> Mask:
    """Air at least ``INNER_MM`` away from a wall."""
    block = 2 * np.ceil(INNER_MM / voxel).astype(int) + 1
    return ndimage.minimum_filter(air.view(np.uint8), block, mode="nearest").astype(bool)


def _lung_regions(air: Mask, hu: NDArray[np.float32], voxel: NDArray[np.float64]) -> Mask:
    """The connected regions of air that are lungs by size, place and by what is in them."""
    parts, count = ndimage.label(air)
    if count == 0:
        return air
    sizes = np.bincount(parts.ravel(), minlength=count + 1) * float(np.prod(voxel)) / 1000
    sizes[0] = 0
    places = ndimage.find_objects(parts)
    inner = _inner(air, voxel)
    kept: list[int] = []
    for part in sorted(np.flatnonzero(sizes >= MIN_LUNG_ML).tolist(), key=lambda part: -sizes[part]):
        where = places[part - 1]
        own = parts[where] == part
        core = own & inner[where]
        values = hu[where][core if core.any() else own]
        if float((values < GAS_HU).mean()) >= GAS_SHARE or np.median(values) > LUNG_HU - 100:
            continue
        if (
            kept
            and sizes[part] < LARGE_SHARE * sizes[kept[0]]
            and not _lies_between([places[large - 1] for large in kept], where)
        ):
            continue
        kept.append(part)
    return np.isin(parts, kept)


def _lies_between(large: Sequence[tuple[slice, ...]], small: tuple[slice, ...]) -> bool:
    """Whether the middle of a box lies in the upper two thirds of the box around others: below are stomach and bowel."""
    for axis in range(3):
        low, high = min(box[axis].start for box in large), max(box[axis].stop for box in large)
        middle = (small[axis].start + small[axis].stop) / 2
        floor = low + (high - low) / 3 if axis == 2 else low
        # A lung that is split by a tumour may have its apex apart, above the rest.
        if middle < floor or (axis < 2 and middle > high):
            return False
    return True


def _sides(lungs: Mask, voxel: NDArray[np.float64]) -> list[Mask]:
    """Right and left lung apart, so that what lies between them is not taken for a hole; both as one where they cannot
    be told.
    """
    total = int(lungs.sum())
    if total == 0:
        return []
    depth = lungs.astype(np.float32)
    for radius in (0.0, *SPLIT_MM):
        if radius == SPLIT_MM[0]:
            depth = ndimage.distance_transform_edt(lungs, sampling=voxel)
        parts, count = ndimage.label(depth > radius)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        sizes[0] = 0
        left, right = (int(part) for part in np.argsort(sizes)[-2:]) if count > 1 else (0, 0)
        if count < 2 or sizes[left] < SIDE_SHARE * sizes.sum():
            continue
        centres = np.asarray(ndimage.center_of_mass(parts > 0, parts, [left, right])) * voxel
        across, along = abs(centres[0, 0] - centres[1, 0]), np.linalg.norm(centres[0, 1:] - centres[1, 1:])
        if across < along:
            continue
        nearest = ndimage.distance_transform_edt(
            ~np.isin(parts, [left, right]), sampling=voxel, return_distances=False, return_indices=True
        )
        owner = parts[tuple(nearest)]
        return [lungs & (owner == left), lungs & (owner == right)]
    return [lungs]


def _filled(lung: Mask, voxel: NDArray[np.float64]) -> Mask:
    """With vessels, nodules and consolidation that lung surrounds, and gaps of the outline closed."""
    closed = ndimage.binary_fill_holes(_closed(lung, CLOSING_MM, voxel))
    limit = HOLE_MM2 / float(voxel[0] * voxel[1])
    for level in range(closed.shape[2]):
        plane = closed[:, :, level]
        if plane.any():
            holes, count = ndimage.label(ndimage.binary_fill_holes(plane) & ~plane)
            small = 1 + np.flatnonzero(np.bincount(holes.ravel(), minlength=count + 1)[1:] <= limit)
            plane |= np.isin(holes, small)
    return closed


def _closed(mask: Mask, radius_mm: float, voxel: NDArray[np.float64]) -> Mask:
    """Closing by a ball in mm. Outside the scan counts as set where the mask reaches the border."""
    pad = np.ceil(radius_mm / voxel).astype(int) + 1
    padded = np.pad(mask, [(width, width) for width in pad], mode="edge")
    grown = ndimage.distance_transform_edt(~padded, sampling=voxel) <= radius_mm
    shrunk = ndimage.distance_transform_edt(grown, sampling=voxel) > radius_mm
    inside = tuple(slice(width, width + size) for width, size in zip(pad, mask.shape, strict=True))
    return shrunk[inside] | mask


def _pooled(
    hu: NDArray[Any], spacing: NDArray[np.float64], working_mm: float = WORKING_MM
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Means of blocks of voxels up to ``working_mm``, and the blocks' sizes; incomplete blocks at the end repeat the
    last voxel.
    """
    factors = np.maximum(1, np.floor(working_mm / spacing + 1e-3)).astype(np.int64)
    missing = [(0, int(-size % factor)) for size, factor in zip(hu.shape, factors, strict=True)]
    padded = np.pad(hu, missing, mode="edge") if any(end for _, end in missing) else hu
    x, y, z = (int(size) for size in np.asarray(padded.shape) // factors)
    blocks = padded.reshape(x, factors[0], y, factors[1], z, factors[2])
    return blocks.mean(axis=(1, 3, 5), dtype=np.float32), factors


def _enlarged(mask: Mask, factors: NDArray[np.int64], shape: tuple[int, ...]) -> Mask:
    """The mask on the scan's own grid, its border drawn between the centres of the working grid."""
    if (factors == 1).all():
        return mask
    offset = (1 / factors - 1) / 2
    values = ndimage.affine_transform(
        mask.astype(np.float32), 1 / factors, offset, shape, order=1, mode="nearest", output=np.float32
    )
    return values > 0.5
