"""Trachea and main bronchi of a chest CT, which the lung does not contain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]

TRACHEA_MM2 = (40.0, 800.0)
"""Cross-section of the lumen: 7 to 32 mm in diameter, with room for partial volume."""
TRACHEA_LENGTH_MM = 30.0
"""A tube that is followed for less is no trachea."""
LUMEN_HU = (-600.0, -700.0, -800.0, -850.0, -900.0, -930.0, -950.0)
"""Thresholds of the lumen, from loose to strict: the loosest that does not leak into the lung is taken."""
LARGEST_ML = 120.0
"""Trachea and main bronchi of an adult have 30 to 80 ml; more means a leak."""
MAX_SHIFT_MM = 15.0
"""Between slices 10 mm apart, the trachea moves less."""


def central_airways(hu: NDArray[np.float32], air: Mask, voxel: NDArray[np.float64]) -> Mask:
    """Lumen and wall of trachea and main bronchi.

    Args:
        hu: the scan (X, Y, Z), last axis from feet to head.
        air: (X, Y, Z), air within the body.
        voxel: size in mm.

    Returns:
        (X, Y, Z); empty where the scan shows no trachea.
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
    # The rim, where the lumen's edge is averaged with its wall, is a thin shell: opening keeps the lung beside it.
    rest = air & ~lumen
    return lumen | (ndimage.binary_dilation(lumen) & rest & ~ndimage.binary_opening(rest))


def _trachea(air: Mask, hu: NDArray[np.float32], voxel: NDArray[np.float64]) -> Mask:
    """The longest chain of round, gas-filled spots near the middle of the body, followed from slice to slice downwards."""
    area = float(voxel[0] * voxel[1])
    chains: list[list[tuple[int, Mask, NDArray[np.float64], float]]] = []
    for level in range(air.shape[2] - 1, -1, -1):
        spots = _spots(air[:, :, level], hu[:, :, level], area, voxel)
        for chain in [chain for chain in chains if chain[-1][0] == level + 1]:
            near = [spot for spot in spots if np.linalg.norm((spot[1] - chain[-1][2]) * voxel[:2]) <= MAX_SHIFT_MM]
            if near:
                best = min(near, key=lambda spot: float(np.linalg.norm((spot[1] - chain[-1][2]) * voxel[:2])))
                if best[2] <= 3 * chain[-1][3]:
                    chain.append((level, *best))
                    spots = [spot for spot in spots if spot is not best]
        chains += [[(level, *spot)] for spot in spots]
    result = np.zeros_like(air)
    long = [chain for chain in chains if len(chain) * voxel[2] >= TRACHEA_LENGTH_MM]
    if long:
        for level, spot, _, _ in max(long, key=len):
            result[:, :, level] |= spot
    return result


def _spots(
    air: Mask, hu: NDArray[np.float32], area: float, voxel: NDArray[np.float64]
) -> list[tuple[Mask, NDArray[np.float64], float]]:
    """Round spots of gas of the size of a trachea in one slice: mask, centre in voxels, area in mm2."""
    parts, _ = ndimage.label(air)
    spots = []
    for part, where in enumerate(ndimage.find_objects(parts), start=1):
        spot = parts[where] == part
        size = float(spot.sum()) * area
        extent = np.asarray(spot.shape) * voxel[:2]
        # A disc fills 0.79 of the square around it.
        if (
            not TRACHEA_MM2[0] <= size <= TRACHEA_MM2[1]
            or extent.max() > 2.5 * extent.min()
            or size < 0.5 * extent.prod()
        ):
            continue
        if hu[where][spot].min() > -800:
            continue
        whole = np.zeros_like(air)
        whole[where] = spot
        centre = np.array(ndimage.center_of_mass(whole))
        if abs(centre / air.shape - 0.5).max() < 0.3:
            spots.append((whole, centre, size))
    return spots
