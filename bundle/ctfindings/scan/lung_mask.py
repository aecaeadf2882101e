"""Segments the lungs of a chest CT by threshold and shape, without a network.

Every constant is a property of bodies or of CT in HU, mm or ml, so it holds for other voxel sizes and scanners. The
mask contains air, vessels and lesions within the lung. It excludes trachea and main bronchi, bowel gas, air around the
body and pleural fluid. Consolidation is included if lung surrounds it or if it leaves a gap in the lung outline, but
not if it fills a lobe down to the chest wall: see docs/masks.md.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bundle.ctfindings.scan.airways import central_airways
from bundle.ctfindings.scan.body_mask import body_region, pooled, segment_coarsely, to_upright
from bundle.ctfindings.scan.morphology import (
    IN_SLICE,
    Array,
    Mask,
    closed_by_ball,
    enclosed_parts,
    filled,
    filled_slices,
    grown_by_box,
    shrunk_by_box,
)

LUNG_HU = -400.0
"""Half way between inflated lung (-850) and tissue (50), where partial volume puts the border."""
GAS_HU = -950.0
"""The median of free gas, in the bowel or around the body, is below; that of lung, even emphysematous, is above."""
GAS_MARGIN_HU = 30.0
GAS_SHARE = 0.6
"""A region is gas if at least this share of its inner voxels is below ``GAS_HU``."""
INNER_MM = 3.0
"""Distance from a wall at which partial volume is negligible."""
POCKET_MM = 10.0
"""Over this width stomach gas is uniform, while lung has vessels."""
POCKET_ML = 10.0
WALL_SHARE = 0.4
"""Minimum share of tissue within ``POCKET_MM`` of a gas pocket; around a bulla it is lower."""
COARSE_MM = 8.0
"""Coarse enough to be fast, fine enough for the volume of the lungs."""
SMOOTHING_MM = 1.0
"""Standard deviation of the Gaussian filter against noise."""
TISSUE, LUNG, OTHER_AIR = 1, 2, 3
"""Labels of ``ChestRegions``: soft tissue and bone, air-filled lung, and air elsewhere in the body."""
MIN_LUNG_ML = 30.0
"""Smaller regions are gas pockets, or corners of the lung that closing adds anyway."""
LARGE_SHARE = 0.1
"""A region larger than this share of the largest is lung wherever it lies; a smaller one must lie between the large."""
CLOSING_MM = 8.0
"""Radius of the hilar vessels and pleural nodules that belong to the lung."""
HOLE_MM2 = 300.0
"""Larger holes of an axial slice may be the dome of the diaphragm."""
SIDE_SHARE = 0.15
"""Minimum share of the volume of both lungs that one lung has: a collapsed one is small."""
SPLIT_MM = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0)
"""Erosion depths that are tried to separate left and right lung where they touch."""


def lung_mask(hu: NDArray[Any], affine: Array) -> Mask:
    """The lungs, (X, Y, Z); empty if the scan shows none.

    Takes HU (X, Y, Z), axes in any order, and the affine (4, 4) to RAS world mm.
    """
    return segment_coarsely(_lungs, hu, affine)


class ChestRegions(NamedTuple):
    """Body and lungs on a coarse upright grid inside the scan, with voxels of at most ``COARSE_MM``."""

    labels: NDArray[np.uint8]  # (X, Y, Z): 0 outside the body, else one of ``TISSUE``, ``LUNG`` and ``OTHER_AIR``
    affine: Array  # (4, 4), voxel of this grid to RAS world mm

    @property
    def litres(self) -> float:
        """Volume of the air-filled lungs."""
        return float(np.count_nonzero(self.labels == LUNG) * abs(np.linalg.det(self.affine[:3, :3])) / 1e6)


def chest_regions(hu: NDArray[Any], affine: Array) -> ChestRegions:
    """Body and lungs, fast; see ``lung_mask`` for arguments and method."""
    upright, spacing = to_upright(hu, affine)
    small, factors = pooled(upright, spacing, COARSE_MM)
    voxel = spacing * factors
    lungs = _lungs(small, voxel)
    body = filled_slices(body_region(small, voxel) | lungs)
    labels = np.where(body, np.where(small < LUNG_HU, OTHER_AIR, TISSUE), 0).astype(np.uint8)
    labels[lungs] = LUNG
    to_block = np.diag([*factors, 1.0])
    to_block[:3, 3] = (factors - 1) / 2
    to_upright_grid = nib.orientations.inv_ornt_aff(nib.orientations.io_orientation(affine), hu.shape)
    return ChestRegions(labels, np.asarray(affine @ to_upright_grid @ to_block, np.float64))


def _lungs(hu: NDArray[np.float32], voxel: Array) -> Mask:
    """The lungs on the pooled upright grid with voxels of ``voxel`` mm."""
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


def _box(mask: Mask, voxel: Array) -> tuple[slice, ...]:
    """Bounding box of a mask with a margin for closing; the whole grid for an empty mask."""
    found = ndimage.find_objects(mask.view(np.uint8))
    margin = np.ceil(2 * CLOSING_MM / voxel).astype(int)
    return _with_margin(found[0], margin) if found else (slice(None),) * 3


def _with_margin(box: Sequence[slice], margin: NDArray[np.int_]) -> tuple[slice, ...]:
    """A box enlarged on all sides, in voxels."""
    return tuple(
        slice(max(side.start - int(room), 0), side.stop + int(room)) for side, room in zip(box, margin, strict=True)
    )


def _air_around_the_body(air: Mask, hu: NDArray[np.float32], voxel: Array) -> Mask:
    """Air that reaches the side of an axial slice, except lung that the field of view truncates.

    Works slice by slice, because air inside and outside the body connect at the neck and through the bowel. A truncated
    lung has body tissue on at least two sides; a strip of air in front of or behind the body has it on one.
    """
    body = body_region(hu, voxel)
    on_sides = np.zeros(air.shape, np.uint8)
    for axis in (0, 1):
        on_sides += np.logical_or.accumulate(body, axis=axis)
        on_sides += np.flip(np.logical_or.accumulate(np.flip(body, axis), axis=axis), axis)
    parts, _ = ndimage.label(air, IN_SLICE)
    sizes = np.bincount(parts.ravel())

    def share(mask: Mask) -> Array:
        return np.bincount(parts[mask], minlength=len(sizes)) / sizes

    at_side = np.zeros(len(sizes), bool)
    for side in (parts[0], parts[-1], parts[:, 0], parts[:, -1]):
        at_side[side] = True
    at_side[0] = False
    is_outside = at_side & ((share(hu < GAS_HU) > 0.5) | (share(on_sides >= 2) < 0.5))
    outside = is_outside[parts]
    # Air directly above or below outside air is outside as well.
    levels = range(air.shape[2])
    for level, neighbour in [*pairwise(levels), *pairwise(reversed(levels))]:
        own = parts[:, :, neighbour]
        is_outside |= at_side & (np.bincount(own[outside[:, :, level]], minlength=len(sizes)) > sizes / 2)
        outside[:, :, neighbour] = is_outside[own]
    return outside


def _gas_of(airways: Mask, hu: NDArray[np.float32]) -> float:
    """HU of free gas in this scan: the median of its trachea plus a margin, since scatter raises HU inside the body."""
    if not airways.any():
        return GAS_HU
    return float(np.clip(np.median(hu[airways]) + GAS_MARGIN_HU, GAS_HU, GAS_HU + GAS_MARGIN_HU))


def _gas_below(air: Mask, hu: NDArray[np.float32], gas_hu: float, voxel: Array) -> Mask:
    """Gas of stomach and bowel, also where only a thin diaphragm separates it from the lung.

    Such gas is uniform over 10 mm, surrounded by tissue and in the lower half of the air of the scan; a bulla is
    surrounded by lung.
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
        near = _with_margin(where, size)
        own = parts[near] == part
        shell = grown_by_box(own, size.tolist()) & ~own
        if (hu[near][shell] > LUNG_HU).mean() > WALL_SHARE:
            pockets[near] |= own
    if not pockets.any():
        return pockets
    to_pocket = ndimage.distance_transform_edt(~pockets, sampling=voxel)
    lung = _inner(air, voxel) & (mean > gas_hu + GAS_MARGIN_HU) & (mean < LUNG_HU - 200)
    to_lung = ndimage.distance_transform_edt(~lung, sampling=voxel) if lung.any() else np.full(air.shape, np.inf)
    return air & (to_pocket <= POCKET_MM) & (to_pocket < to_lung)


def _inner(air: Mask, voxel: Array) -> Mask:
    """Air at least ``INNER_MM`` from a wall."""
    return shrunk_by_box(air, np.ceil(INNER_MM / voxel).astype(int).tolist())


def _lung_regions(air: Mask, hu: NDArray[np.float32], voxel: Array) -> Mask:
    """The connected regions of air that are lungs by their size, position and HU."""
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
        is_large = not kept or sizes[part] >= LARGE_SHARE * sizes[kept[0]]
        if is_large or _lies_between([places[large - 1] for large in kept], where):
            kept.append(part)
    return np.isin(parts, kept)


def _lies_between(large: Sequence[tuple[slice, ...]], small: tuple[slice, ...]) -> bool:
    """Whether the centre of a box is in the upper two thirds of the box around others; stomach and bowel are below."""
    boxes = np.array([[(side.start, side.stop) for side in box] for box in large], np.float64)
    low, high = boxes[..., 0].min(axis=0), boxes[..., 1].max(axis=0)
    low[2] += (high[2] - low[2]) / 3
    high[2] = np.inf  # A tumour may separate the apex of a lung from the rest, above it.
    middle = np.mean([(side.start, side.stop) for side in small], axis=1)
    return bool(((low <= middle) & (middle <= high)).all())


def _sides(lungs: Mask, voxel: Array) -> list[Mask]:
    """Right and left lung, so that the space between them is not filled; one mask if they cannot be separated."""
    total = int(lungs.sum())
    if total == 0:
        return []
    depth = None
    # Every voxel is at least as deep as a voxel is wide.
    for radius in (0.0, *(step for step in SPLIT_MM if step >= voxel.min())):
        if radius and depth is None:
            depth = ndimage.distance_transform_edt(lungs, sampling=voxel)
        parts, count = ndimage.label(lungs if depth is None else depth > radius)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        sizes[0] = 0
        left, right = (int(part) for part in np.argsort(sizes)[-2:]) if count > 1 else (0, 0)
        if count < 2 or sizes[left] < SIDE_SHARE * sizes.sum():
            continue
        centres = np.asarray(ndimage.center_of_mass(parts > 0, parts, [left, right])) * voxel
        across, along = abs(centres[0, 0] - centres[1, 0]), np.linalg.norm(centres[0, 1:] - centres[1, 1:])
        if across < along:
            continue
        pair = np.isin(parts, [left, right])
        if not (lungs & ~pair).any():
            return [parts == left, parts == right]
        nearest = ndimage.distance_transform_edt(~pair, sampling=voxel, return_distances=False, return_indices=True)
        owner = parts[tuple(nearest)]
        return [lungs & (owner == left), lungs & (owner == right)]
    return [lungs]


def _filled(lung: Mask, voxel: Array) -> Mask:
    """The lung with the vessels, nodules and consolidation it surrounds, and with gaps in its outline closed."""
    closed = filled(closed_by_ball(lung, CLOSING_MM, voxel))
    holes, enclosed = enclosed_parts(closed, IN_SLICE)
    small = enclosed & (np.bincount(holes.ravel(), minlength=len(enclosed)) * voxel[0] * voxel[1] <= HOLE_MM2)
    return closed | small[holes]
