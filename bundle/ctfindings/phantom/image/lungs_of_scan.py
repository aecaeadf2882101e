"""The lungs of a real scan as a field that findings can be drawn into."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bundle.ctfindings.phantom.image.canvas import BODY, LUNG, SIDES, Box, Canvas, Floats
from bundle.ctfindings.phantom.image.lung_field import LungField, sample_spots

MARGIN_MM = 20.0
"""Tissue around the lungs that belongs to the field."""
DISTANCE_MM = 1.6
"""Distances are computed on a grid of at least this voxel size."""
GAP_MM = 45.0
"""Half of the widest mediastinum that counts as the inside of the chest."""
HALF_WIDTH_MM, SULCUS_MM = 134.0, 45.0
"""Half the width of the lungs of an average adult, and how far they reach below the dome."""
CONTRAST_HU = 100.0
VESSEL_HU = -500.0
VESSEL_DEPTH_MM, VESSEL_RADIUS_MM = 8.0, 5.0
"""Denser voxels this deep in the lung are vessels, unless they fill a ball of that radius."""


def lungs_of_scan(
    rng: np.random.Generator, hu: NDArray[np.floating], spacing: NDArray[np.float64], lungs: NDArray[np.bool_]
) -> tuple[LungField, Box]:
    """A field over the part of a scan around its lungs, and the slices of that part.

    The field has no bronchi, which a scan does not come with, but places on the vessels of the scan. Lobes are those of
    an average chest of this size.

    Args:
        hu: HU (X, Y, Z), axes to right, front and head.
        spacing: voxel size in mm, (3,).
        lungs: the same grid.

    Raises:
        ValueError: if there is no lung on one of the sides.
    """
    if not lungs.any():
        raise ValueError("no lung was found; give a mask of the lungs")
    reach = np.ceil(MARGIN_MM / spacing).astype(int)
    spans = [np.flatnonzero(lungs.any(axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    first = [max(0, int(span[0]) - step) for span, step in zip(spans, reach, strict=True)]
    box = tuple(slice(start, int(span[-1]) + 1 + step) for start, span, step in zip(first, spans, reach, strict=True))
    lungs = lungs[box]
    places = np.argwhere(lungs) * spacing
    low, high = places.min(0), places.max(0)
    size = float(np.clip((high[0] - low[0]) / 2 / HALF_WIDTH_MM, 0.5, 1.5))
    middle = _midline(lungs) * spacing[0]
    corner = -np.array([middle, (low[1] + high[1]) / 2, low[2] + SULCUS_MM * size])
    canvas = Canvas(spacing, lungs.shape, corner, np.zeros(3))
    canvas.hu[:] = hu[box]
    canvas.anatomy[:] = np.where(lungs, LUNG, BODY)
    lung, wall = _distances(lungs, spacing)
    points = canvas.body(np.flatnonzero(lungs.reshape(-1)))
    hila = {}
    for side, sign in SIDES.items():
        own = points[points[:, 0] * sign > 0]
        if len(own) == 0:
            raise ValueError(f"no lung was found on the {side} side; give a mask of both lungs")
        hila[side] = np.median(own[np.abs(own[:, 0]) <= np.quantile(np.abs(own[:, 0]), 0.15)], axis=0)
    blood = canvas.hu[(wall > 10) & (canvas.hu > -20) & (canvas.hu < 400)]
    contrast = bool(len(blood)) and float(np.median(blood)) > CONTRAST_HU
    empty = np.zeros(0, np.int64), np.zeros(0, np.float32)
    spots = sample_spots(rng, canvas, lung, size)
    field = LungField(canvas, size, contrast, lung, wall, _dome(lungs, canvas), hila, [], empty, spots)
    field.vessel_points = _vessel_points(canvas, lung)
    return field, box  # type: ignore[return-value]


def _vessel_points(canvas: Canvas, lung: Floats) -> NDArray:
    """Dense voxels inside the lung that are not part of something wide, such as a consolidation: body mm, (N, 3)."""
    steps = _coarse_steps(canvas.spacing)
    every = tuple(slice(None, None, step) for step in steps)
    dense = (canvas.hu[every] > VESSEL_HU) & (lung[every] > VESSEL_DEPTH_MM)
    voxel = canvas.spacing * steps
    wide = ndimage.distance_transform_edt(dense, voxel) > VESSEL_RADIUS_MM
    if wide.any():
        # A voxel more, because the surface of what is wide is rough.
        dense &= ndimage.distance_transform_edt(~wide, voxel) > VESSEL_RADIUS_MM + voxel.max()
    index = np.argwhere(dense) * steps
    return canvas.body(np.ravel_multi_index(tuple(index.T), canvas.shape)).astype(np.float64)


def _midline(lungs: NDArray[np.bool_]) -> float:
    """The sagittal plane with the least lung in the middle third between the outer borders of the lungs."""
    amount = lungs.sum((1, 2))
    span = np.flatnonzero(amount)
    third = (span[-1] - span[0]) // 3
    inner = slice(span[0] + third, span[-1] - third + 1)
    least = np.flatnonzero(amount[inner] == amount[inner].min())
    return float(inner.start + least[len(least) // 2])


def _distances(lungs: NDArray[np.bool_], spacing: NDArray[np.float64]) -> tuple[Floats, Floats]:
    """Signed distance to the surface of the lungs, and depth under the chest wall, both in mm and positive inside."""
    steps = _coarse_steps(spacing)
    coarse = lungs[:: steps[0], :: steps[1], :: steps[2]]
    voxel = spacing * steps
    surface = _signed(coarse, voxel)
    # The inside of the chest: in each axial slice, the lungs and what lies between them.
    plane = np.array([voxel[0], voxel[1], 1e4])
    padded = np.pad(coarse, [(int(np.ceil(GAP_MM / step)) + 1,) * 2 for step in voxel[:2]] + [(0, 0)])
    closed = ndimage.distance_transform_edt(~padded, plane) <= GAP_MM
    closed = ndimage.distance_transform_edt(closed, plane) > GAP_MM
    inside = _signed(closed | padded, plane)
    margin = [(big - small) // 2 for big, small in zip(padded.shape, coarse.shape, strict=True)]
    inside = inside[tuple(slice(edge, edge + size) for edge, size in zip(margin, coarse.shape, strict=True))]
    return _resampled(surface, steps, lungs.shape), _resampled(inside, steps, lungs.shape)


def _coarse_steps(spacing: NDArray[np.float64]) -> NDArray[np.int64]:
    """Voxels of the scan in one of the grid that distances are computed on, (3,)."""
    return np.maximum(1, np.floor(DISTANCE_MM / spacing)).astype(np.int64)


def _signed(mask: NDArray[np.bool_], voxel: NDArray[np.float64]) -> Floats:
    inner = ndimage.distance_transform_edt(mask, voxel)
    outer = ndimage.distance_transform_edt(~mask, voxel)
    half = float(np.min(voxel)) / 2
    return np.where(mask, inner - half, half - outer).astype(np.float32)


def _resampled(values: Floats, steps: NDArray[np.int64], shape: tuple[int, ...]) -> Floats:
    """Values at every ``steps``-th voxel, on the grid of all voxels."""
    if (steps == 1).all():
        return values
    return ndimage.affine_transform(values, 1 / steps, 0.0, shape, np.float32, order=1, mode="nearest")


def _dome(lungs: NDArray[np.bool_], canvas: Canvas) -> Floats:
    """Height over the lower border of the lungs, in mm; under the mediastinum over that of the nearest lung."""
    shown = lungs.any(2)
    lowest = np.where(shown, lungs.argmax(2), 0)
    nearest = ndimage.distance_transform_edt(~shown, canvas.spacing[:2], return_distances=False, return_indices=True)
    base = lowest[tuple(nearest)] * np.float32(canvas.spacing[2]) + np.float32(canvas.corner[2])
    base = ndimage.gaussian_filter(base, 4.0 / canvas.spacing[:2])
    return ((canvas.z - base[:, :, None]) * np.float32(0.85)).astype(np.float32)
