"""Segments the trachea and main bronchi of a chest CT, which are not part of the lung mask."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bundle.ctfindings.scan.morphology import IN_SLICE, Array, Mask

TRACHEA_MM2 = (40.0, 800.0)
"""Cross-section of the lumen: 7 to 32 mm in diameter, with tolerance for partial volume."""
TRACHEA_LENGTH_MM = 30.0
"""Minimum length of a trachea."""
LUMEN_HU = (-600.0, -700.0, -800.0, -850.0, -900.0, -930.0, -950.0)
"""Thresholds of the lumen, from loose to strict; the first that does not leak into the lung is used."""
LARGEST_ML = 120.0
"""Trachea and main bronchi of an adult have 30 to 80 ml; a larger region has leaked into the lung."""
MAX_SHIFT_MM = 15.0
"""The trachea shifts less between slices 10 mm apart."""


def central_airways(hu: NDArray[np.float32], air: Mask, voxel: Array) -> Mask:
    """Lumen and wall of trachea and main bronchi, (X, Y, Z); empty if the scan shows no trachea.

    Takes HU (X, Y, Z) with the last axis from feet to head, the air within the body (X, Y, Z) and the voxel size in mm.
    """
    trachea = _trachea(air, hu, voxel)
    if not trachea.any():
        return trachea
    ml = float(np.prod(voxel)) / 1000
    lumen = trachea
    for threshold in LUMEN_HU:
        grown = ndimage.binary_propagation(trachea & (hu < threshold), mask=air & (hu < threshold))
        if 0 < grown.sum() * ml <= LARGEST_ML:
            lumen = trachea | grown
            break
    # The rim, where partial volume mixes lumen and wall, is a thin shell: opening keeps the lung beside it.
    rest = air & ~lumen
    return lumen | (ndimage.binary_dilation(lumen) & rest & ~ndimage.binary_opening(rest))


def _trachea(air: Mask, hu: NDArray[np.float32], voxel: Array) -> Mask:
    """The longest chain of round, gas-filled spots near the middle of the body, from slice to slice downwards."""
    spots_of = _spots(air, hu, voxel)
    chains: list[list[tuple[int, Mask, Array, float]]] = []
    for level in reversed(range(air.shape[2])):
        spots = spots_of[level]
        for chain in [chain for chain in chains if chain[-1][0] == level + 1]:
            shifts = [float(np.linalg.norm((spot[1] - chain[-1][2]) * voxel[:2])) for spot in spots]
            nearest = int(np.argmin(shifts)) if shifts else 0
            if shifts and shifts[nearest] <= MAX_SHIFT_MM and spots[nearest][2] <= 3 * chain[-1][3]:
                chain.append((level, *spots.pop(nearest)))
        chains += [[(level, *spot)] for spot in spots]
    result = np.zeros_like(air)
    long = [chain for chain in chains if len(chain) * voxel[2] >= TRACHEA_LENGTH_MM]
    if long:
        for level, spot, _, _ in max(long, key=len):
            result[:, :, level] |= spot
    return result


def _spots(air: Mask, hu: NDArray[np.float32], voxel: Array) -> list[list[tuple[Mask, Array, float]]]:
    """Round gas-filled spots of the size of a trachea in each slice: mask, centre in voxels, area in mm2."""
    parts, _ = ndimage.label(air, IN_SLICE)
    areas = np.bincount(parts.ravel()) * voxel[0] * voxel[1]
    places = ndimage.find_objects(parts)
    spots: list[list[tuple[Mask, Array, float]]] = [[] for _ in range(air.shape[2])]
    for part in 1 + np.flatnonzero((areas[1:] >= TRACHEA_MM2[0]) & (areas[1:] <= TRACHEA_MM2[1])):
        *where, plane = places[part - 1]
        level, area = plane.start, float(areas[part])
        spot = parts[*where, level] == part
        extent = np.asarray(spot.shape) * voxel[:2]
        # A disc fills 0.79 of the square around it.
        round_enough = extent.max() <= 2.5 * extent.min() and area >= 0.5 * extent.prod()
        if not round_enough or hu[*where, level][spot].min() > -800:
            continue
        centre = np.argwhere(spot).mean(axis=0) + [side.start for side in where]
        if abs(centre / air.shape[:2] - 0.5).max() < 0.3:
            whole = np.zeros(air.shape[:2], bool)
            whole[tuple(where)] = spot
            spots[level].append((whole, centre, area))
    return spots
