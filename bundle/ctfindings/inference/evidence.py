"""Evidence: from a token map to its peak, box, slice and side in the scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from bundle.ctfindings.inference.findings_record import Evidence, Point
from bundle.ctfindings.scan.coordinates import (
    Array,
    as_affine,
    axial_axis,
    axial_axis_ascends,
    bounds_mm,
    voxel_to_world,
    world_to_voxel,
)

MIDLINE_MM = 10.0
"""A peak closer than this to the midline is called "midline"."""


def locate(
    evidence: Any, token_affine: Any, scan_affine: Any, scan_shape: Sequence[int], midline_mm: float | None = None
) -> Evidence | None:
    """Peak, box and slice of one token map; None if no token inside the scan is above zero.

    The peak is the largest token, moved to the weighted centre of its 3x3x3 neighbourhood. The weights are the values
    above the smallest of the neighbourhood, so an even background has no pull. The box bounds the connected region
    around the peak that is above half of it, clipped to the scan. Tokens outside the scan (padding) are ignored.

    Args:
        evidence: ``[gx, gy, gz]``, values in [0, 1]; ValueError for another shape or non-finite values.
        token_affine: ``(4, 4)``, token index to RAS mm of the token's centre.
        scan_affine: ``(4, 4)``, voxel index of the scan's own grid to RAS mm.
        scan_shape: voxels of the scan along its own three axes.
        midline_mm: world x of the patient's midline; without it the evidence has no side.
    """
    tokens, scan = as_affine(token_affine), as_affine(scan_affine)
    shape = np.asarray(scan_shape, dtype=np.int64)
    scores = as_map(evidence)
    scores = np.where(tokens_in_scan(scores.shape, tokens, scan, shape), scores, 0.0)
    peak = np.array(np.unravel_index(int(np.argmax(scores)), scores.shape))
    peak_score = float(scores[tuple(peak)])
    if peak_score <= 0:
        return None

    regions, _ = ndimage.label(scores > 0.5 * peak_score)
    inside = np.argwhere(regions == regions[tuple(peak)])
    lower, upper = bounds_mm(tokens, inside.min(axis=0), inside.max(axis=0))
    scan_lower, scan_upper = bounds_mm(scan, (0, 0, 0), shape - 1)
    lower, upper = np.clip(lower, scan_lower, scan_upper), np.clip(upper, scan_lower, scan_upper)

    # Weak neighbours can pull the centre out of its region, and padding can pull it out of the scan.
    centre = np.clip(voxel_to_world(_centre(scores, peak), tokens), lower, upper)
    voxel = np.clip(world_to_voxel(centre, scan), 0, shape - 1)
    peak_mm = voxel_to_world(voxel, scan)
    axis = axial_axis(scan)
    index = round(float(voxel[axis]))
    on_slice = voxel.copy()
    on_slice[axis] = index
    return Evidence(
        peak_mm=_point(peak_mm),
        peak_score=peak_score,
        box_mm=(_point(lower), _point(upper)),
        slice_index=index,
        slice_axis=axis,
        image=int(shape[axis]) - index if axial_axis_ascends(scan) else index + 1,
        z_mm=float(voxel_to_world(on_slice, scan)[2]),
        side=None if midline_mm is None else _side(float(peak_mm[0]) - midline_mm),
    )


def _centre(scores: Array, peak: NDArray[Any]) -> Array:
    lower, upper = np.maximum(peak - 1, 0), np.minimum(peak + 2, scores.shape)
    block = scores[tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))]
    weights = block - block.min()
    return lower + np.array(ndimage.center_of_mass(weights)) if weights.any() else peak.astype(np.float64)


def tokens_in_scan(grid: tuple[int, ...], tokens: Array, scan: Array, shape: NDArray[Any]) -> NDArray[np.bool_]:
    """Tokens whose box reaches into the scan, bool ``[gx, gy, gz]``."""
    centres = world_to_voxel(voxel_to_world(np.moveaxis(np.indices(grid), 0, -1), tokens), scan)
    reach = 0.5 * np.abs(np.linalg.inv(scan)[:3, :3] @ tokens[:3, :3]).sum(axis=1)
    inside: NDArray[np.bool_] = ((centres > -0.5 - reach) & (centres < shape - 0.5 + reach)).all(axis=-1)
    return inside


def as_map(evidence: Any) -> Array:
    """A token map, array or tensor, as float64 ``[gx, gy, gz]``; ValueError for another shape or non-finite values."""
    if isinstance(evidence, torch.Tensor):
        evidence = evidence.detach().cpu().float().numpy()
    scores = np.asarray(evidence, dtype=np.float64)
    if scores.ndim != 3:
        raise ValueError(f"expected an evidence map [gx, gy, gz], got shape {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("expected an evidence map with values in [0, 1], found non-finite values")
    return scores


def _point(values: Array) -> Point:
    x, y, z = values.tolist()
    return x, y, z


def _side(from_midline_mm: float) -> str:
    if abs(from_midline_mm) < MIDLINE_MM:
        return "midline"
    return "right" if from_midline_mm > 0 else "left"
