"""Evidence: from a map to its peak, box, slice, side, extent and depth profile in the scan."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from bundle.ctfindings.inference.findings_record import DepthScore, Evidence, Point
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
TIED = 1e-6
"""Relative difference within which values are equal, but for the rounding of their interpolation."""
DIFFUSE_SHARE = 1 / 3
"""Evidence whose box has more than this share of the lung has no box, which would say nothing about the place."""


class Region(NamedTuple):
    """The anatomy that answered."""

    inside: NDArray[np.bool_]  # on the grid of the map
    litres: float  # volume of the lung, or of the anatomy if the scan shows no lung


def locate(
    evidence: Any,
    map_affine: Any,
    scan_affine: Any,
    scan_shape: Sequence[int],
    midline_mm: float | None = None,
    region: Region | None = None,
    diffuse_share: float = DIFFUSE_SHARE,
) -> Evidence | None:
    """Peak, box and slice of one map inside the scan; None if it has no value above zero.

    The peak is the largest voxel of the map, or of equal ones that touch each other the one nearest to their middle. It
    is moved to the weighted centre of its 3x3x3 neighbourhood unless the map is zero there. The weights are the values
    above the smallest of the neighbourhood, so an even background has no pull.
    The box bounds the connected part around the peak that is above half of it, clipped to the scan. A part whose box
    has more than ``diffuse_share`` of ``Region.litres`` gets no box: it is diffuse if it has more than that share of
    the anatomy too, and scattered otherwise.

    Args:
        evidence: ``[x, y, z]``, values in [0, 1]; ValueError for another shape or non-finite values.
        map_affine: ``(4, 4)``, voxel of the map to RAS mm.
        scan_affine: ``(4, 4)``, voxel index of the scan's own grid to RAS mm.
        scan_shape: voxels of the scan along its own three axes.
        midline_mm: world x of the patient's midline; without it the evidence has no side.
        region: the anatomy that answered; without it, the evidence has no share, and is always focal.
        diffuse_share: share of the volume, 0 to 1.
    """
    grid, scan = as_affine(map_affine), as_affine(scan_affine)
    shape = np.asarray(scan_shape, dtype=np.int64)
    scores = as_map(evidence)
    if scores.max() <= 0:
        return None
    peak = _peak(scores)
    peak_score = float(scores[tuple(peak)])

    around, part = _part_around(scores > 0.5 * peak_score, peak)
    lower, upper = bounds_mm(grid, [side.start for side in around], [side.stop - 1 for side in around])
    scan_lower, scan_upper = bounds_mm(scan, (0, 0, 0), shape - 1)
    lower, upper = np.clip(lower, scan_lower, scan_upper), np.clip(upper, scan_lower, scan_upper)
    wide = region is not None and float(np.prod(upper - lower)) / 1e6 > diffuse_share * region.litres
    anatomy = None if region is None or not region.inside.any() else region.inside
    share = None
    if anatomy is not None:
        share = float((part & anatomy[around]).sum() / anatomy.sum())
    spread = "diffuse" if share is None or share > diffuse_share else "scattered"

    centre = _centre(scores, peak)
    if scores[tuple(np.rint(centre).astype(int))] <= 0:
        centre = peak.astype(np.float64)
    voxel = np.clip(world_to_voxel(voxel_to_world(centre, grid), scan), 0, shape - 1)
    peak_mm = voxel_to_world(voxel, scan)
    axis = axial_axis(scan)
    index = round(float(voxel[axis]))
    on_slice = voxel.copy()
    on_slice[axis] = index
    return Evidence(
        peak_mm=_point(peak_mm),
        peak_score=peak_score,
        box_mm=None if wide else (_point(lower), _point(upper)),
        slice_index=index,
        slice_axis=axis,
        image=int(shape[axis]) - index if axial_axis_ascends(scan) else index + 1,
        z_mm=float(voxel_to_world(on_slice, scan)[2]),
        side=None if midline_mm is None else side_of(float(peak_mm[0]) - midline_mm),
        extent=spread if wide else "focal",
        share=share,
    )


def depth_profile(evidence: Any, map_affine: Any) -> list[DepthScore]:
    """The largest value of each layer of a map of ``locate``, inferior to superior.

    A layer has the world z of its middle. The maximum is the layer of the peak, where viewers jump.
    """
    scores = as_map(evidence)
    x, y, layers = scores.shape
    levels = np.arange(layers, dtype=np.float64)
    middle = [np.full(layers, (size - 1) / 2) for size in (x, y)]
    heights = voxel_to_world(np.stack([*middle, levels], axis=-1), map_affine)[:, 2]
    strongest = scores.max(axis=(0, 1))
    return [DepthScore(float(z_mm), float(score)) for z_mm, score in zip(heights, strongest, strict=True)]


def _peak(scores: Array) -> NDArray[np.int64]:
    """The largest voxel; in the middle of a plateau, such as a cell of pooled attention or a saturated probability."""
    first = np.array(np.unravel_index(int(np.argmax(scores)), scores.shape))
    highest = scores >= (1 - TIED) * scores[tuple(first)]
    around, plateau = _part_around(highest, first)
    voxels = np.argwhere(plateau) + [side.start for side in around]
    nearest: NDArray[np.int64] = voxels[np.square(voxels - voxels.mean(axis=0)).sum(axis=1).argmin()]
    return nearest


def _part_around(mask: NDArray[np.bool_], voxel: NDArray[Any]) -> tuple[tuple[slice, ...], NDArray[np.bool_]]:
    """The connected part of a mask that contains a voxel: its bounding box, and the part within the box."""
    (whole,) = ndimage.find_objects(mask.view(np.uint8))
    start = [side.start for side in whole]
    parts, _ = ndimage.label(mask[whole])
    number = int(parts[tuple(voxel - start)])
    box = ndimage.find_objects(parts)[number - 1]
    around = tuple(slice(first + side.start, first + side.stop) for first, side in zip(start, box, strict=True))
    return around, parts[box] == number


def _centre(scores: Array, peak: NDArray[Any]) -> Array:
    lower, upper = np.maximum(peak - 1, 0), np.minimum(peak + 2, scores.shape)
    block = scores[tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))]
    weights = block - block.min()
    return lower + np.array(ndimage.center_of_mass(weights)) if weights.any() else peak.astype(np.float64)


def as_map(evidence: Any) -> Array:
    """A map, array or tensor, as float64 ``[x, y, z]``; ValueError for another shape or non-finite values."""
    if isinstance(evidence, torch.Tensor):
        evidence = evidence.detach().cpu().float().numpy()
    scores = np.asarray(evidence, dtype=np.float64)
    if scores.ndim != 3:
        raise ValueError(f"expected an evidence map [x, y, z], got shape {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("expected an evidence map with values in [0, 1], found non-finite values")
    return scores


def _point(values: Array) -> Point:
    x, y, z = values.tolist()
    return x, y, z


def side_of(from_midline_mm: float) -> str:
    """Side of the patient, "midline" within ``MIDLINE_MM`` of it; the distance is positive to the right."""
    if abs(from_midline_mm) < MIDLINE_MM:
        return "midline"
    return "right" if from_midline_mm > 0 else "left"
