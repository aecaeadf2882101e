"""Evidence maps: from scores of tokens to a place in the scan and a volume on the scan's own grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from bundle.ctfindings.inference.findings_record import Evidence
from bundle.ctfindings.scan.coordinates import (
    Array,
    as_affine,
    axial_axis,
    axial_axis_ascends,
    bounds_mm,
    voxel_to_world,
    world_to_voxel,
)
from bundle.ctfindings.scan.nifti_writer import write_planes

MIDLINE_MM = 10.0
"""A peak closer than this to the midline is called "midline"."""

_SEPARABLE_TOKENS = 0.02
"""Largest shear, in tokens over the whole scan, at which the scan and the token grid count as parallel."""

_EDGE = 1e-4
"""Tolerance, in tokens, with which a voxel on the outer face of the token grid belongs to it."""


def locate(
    evidence: Any, token_affine: Any, scan_affine: Any, scan_shape: Sequence[int], midline_mm: float | None = None
) -> Evidence | None:
    """Peak, box and slice of one token map.

    The peak is the largest token, moved to the weighted centre of its 3x3x3 neighbourhood (weights: value above the
    smallest of the neighbourhood, so that an even background does not pull). The box bounds the connected region around
    the peak that is above half of it, clipped to the scan. Tokens that lie outside the scan (padding) are not looked
    at.

    Args:
        evidence: ``[gx, gy, gz]``, values in [0, 1].
        token_affine: ``(4, 4)``, token index to RAS mm of the token's centre.
        scan_affine: ``(4, 4)``, voxel index of the scan's own grid to RAS mm.
        scan_shape: voxels of the scan along its own three axes.
        midline_mm: world x of the patient's midline; gives the side.

    Returns:
        The evidence, or None when no token inside the scan is above zero.

    Raises:
        ValueError: when the map is not three-dimensional or holds non-finite values.
    """
    tokens, scan = as_affine(token_affine), as_affine(scan_affine)
    shape = np.asarray(scan_shape, dtype=np.int64)
    scores = as_map(evidence)
    scores = np.where(_tokens_in_scan(scores, tokens, scan, shape), scores, 0.0)
    peak = np.array(np.unravel_index(int(np.argmax(scores)), scores.shape))
    peak_score = float(scores[tuple(peak)])
    if peak_score <= 0:
        return None

    regions, _ = ndimage.label(scores > 0.5 * peak_score)
    inside = np.argwhere(regions == regions[tuple(peak)])
    lower, upper = bounds_mm(tokens, inside.min(axis=0), inside.max(axis=0))
    scan_lower, scan_upper = bounds_mm(scan, (0, 0, 0), shape - 1)
    lower, upper = np.clip(lower, scan_lower, scan_upper), np.clip(upper, scan_lower, scan_upper)

    # Weak neighbours can pull the centre out of the region it stands for, and padding out of the scan.
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


def strongest_by_layer(
    evidence: Any, token_affine: Any, scan_affine: Any, scan_shape: Sequence[int]
) -> list[tuple[float, float]]:
    """The strongest token of every axial layer of a token map: where along the body an answer looks.

    Args:
        evidence: ``[gx, gy, gz]``, values in [0, 1].
        token_affine: ``(4, 4)``, token index to RAS mm of the token's centre.
        scan_affine: ``(4, 4)``, voxel index of the scan's own grid to RAS mm.
        scan_shape: voxels of the scan along its own three axes.

    Returns:
        World z in mm of the centre of the layer, and its largest value, from inferior to superior. Layers that lie
        outside the scan (padding) are left out.
    """
    tokens, scan = as_affine(token_affine), as_affine(scan_affine)
    scores = as_map(evidence)
    inside = _tokens_in_scan(scores, tokens, scan, np.asarray(scan_shape, dtype=np.int64))
    gx, gy, gz = scores.shape
    heights = voxel_to_world(
        np.stack([np.full(gz, (gx - 1) / 2), np.full(gz, (gy - 1) / 2), np.arange(gz)], axis=-1), tokens
    )[:, 2]
    strongest = np.where(inside, scores, 0.0).max(axis=(0, 1))
    return sorted((float(heights[layer]), float(strongest[layer])) for layer in range(gz) if inside[:, :, layer].any())


def sample_evidence(evidence: Any, token_affine: Any, points_mm: Any) -> NDArray[np.float32]:
    """Trilinear values ``[...]`` of a token map ``[gx, gy, gz]`` at world points ``[..., 3]`` in RAS mm.

    Inside the outermost half token the edge value holds; outside the token grid the value is zero.
    """
    scores = torch.from_numpy(np.ascontiguousarray(as_map(evidence), dtype=np.float32))
    coordinates = torch.from_numpy(world_to_voxel(points_mm, token_affine).astype(np.float32))
    return _interpolate(scores, coordinates.reshape(-1, 3)).numpy().reshape(coordinates.shape[:-1])


def write_evidence(
    path: str | Path,
    maps: Any,
    token_affine: Any,
    scan_affine: Any,
    scan_shape: Sequence[int],
    description: str = "token evidence 0..1",
) -> None:
    """Writes token maps on the scan's own grid as NIfTI, uint8 with a slope of 1/255: 3D for one map, 4D for several.

    The file is made slice by slice, so the memory needed does not grow with the number of maps, and appears only when
    complete.

    Args:
        path: ends in ``.nii.gz``.
        maps: ``[F, gx, gy, gz]``, values in [0, 1].
        token_affine: ``(4, 4)``, token index to RAS mm.
        scan_affine: ``(4, 4)``, voxel index to RAS mm.
        scan_shape: ``(X, Y, Z)`` of the scan.
        description: free text of the NIfTI header, at most 79 bytes.
    """
    channels = _as_channels(maps)
    tokens, scan = as_affine(token_affine), as_affine(scan_affine)
    x, y, z = (int(size) for size in scan_shape)
    planes = (_to_uint8(plane) for scores in channels for plane in planes_on_scan(scores, tokens, scan, (x, y, z)))
    shape = (x, y, z) if len(channels) == 1 else (x, y, z, len(channels))
    write_planes(path, planes, shape, scan, description, scale=1 / 255, largest=1.0)


def planes_on_scan(
    scores: NDArray[Any], tokens: Array, scan: Array, shape: tuple[int, int, int]
) -> Iterator[NDArray[np.float32]]:
    """A token map ``[gx, gy, gz]`` on the scan's grid, as planes ``[Y, X]`` in the order of the file's third axis, as
    NIfTI stores voxels.

    Args:
        scores: any finite float32 values.
        tokens: ``(4, 4)``, token index to RAS mm.
        scan: ``(4, 4)``, voxel index to RAS mm.
        shape: ``(X, Y, Z)`` of the scan.

    Yields:
        Trilinear values; zero outside the token grid.
    """
    to_tokens = np.linalg.inv(tokens) @ scan
    partner = np.argmax(np.abs(to_tokens[:3, :3]), axis=0)
    off_axis = np.abs(to_tokens[:3, :3]) * np.asarray(shape)
    off_axis[partner, np.arange(3)] = 0
    if len(set(partner.tolist())) == 3 and off_axis.max() < _SEPARABLE_TOKENS:
        # The axes of scan and tokens are parallel: trilinear interpolation is three small matrix products.
        ordered = scores.transpose(tuple(partner))
        across_x, across_y, across_z = (
            _line_weights(shape[axis], float(to_tokens[token, axis]), float(to_tokens[token, 3]), scores.shape[token])
            for axis, token in enumerate(partner)
        )
        for k in range(shape[2]):
            plane = across_y @ (ordered @ across_z[k]).T @ across_x.T
            yield plane
        return
    volume = torch.from_numpy(np.ascontiguousarray(scores, dtype=np.float32))
    along_x, along_y, along_z = (
        torch.from_numpy((np.arange(count)[:, None] * to_tokens[:3, axis]).astype(np.float32))
        for axis, count in enumerate(shape)
    )
    corner = torch.from_numpy(to_tokens[:3, 3].astype(np.float32))
    for k in range(shape[2]):
        coordinates = along_y[:, None] + (along_x + (along_z[k] + corner))[None]
        yield _interpolate(volume, coordinates.reshape(-1, 3)).numpy().reshape(shape[1], shape[0])


def _interpolate(scores: torch.Tensor, coordinates: torch.Tensor) -> torch.Tensor:
    """Trilinear values ``[P]`` of ``[gx, gy, gz]`` at token coordinates ``[P, 3]``, zero outside the token boxes."""
    size = torch.tensor(scores.shape, dtype=torch.float32)
    # grid_sample counts from -1 to 1 between the centres of the outermost tokens, and names the last axis first.
    unit = coordinates * (2 / (size - 1).clamp(min=1)) - 1
    values = torch.nn.functional.grid_sample(
        scores[None, None], unit.flip(-1)[None, None, None], mode="bilinear", padding_mode="border", align_corners=True
    ).reshape(-1)
    beyond = ((coordinates - (size - 1) / 2).abs() > size / 2 + _EDGE).any(dim=-1)
    return values.masked_fill_(beyond, 0.0)


def _line_weights(count: int, step: float, start: float, size: int) -> NDArray[np.float32]:
    """Linear interpolation as a matrix ``[count, size]``: voxel i lies at token coordinate ``start + i * step``."""
    coordinate = start + step * np.arange(count)
    covered = np.abs(coordinate - (size - 1) / 2) <= size / 2 + _EDGE
    weights = np.maximum(0.0, 1 - np.abs(np.clip(coordinate, 0, size - 1)[:, None] - np.arange(size)))
    return (weights * covered[:, None]).astype(np.float32)


def _to_uint8(values: NDArray[Any]) -> NDArray[np.uint8]:
    return (np.clip(values, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def _centre(scores: Array, peak: NDArray[Any]) -> Array:
    lower, upper = np.maximum(peak - 1, 0), np.minimum(peak + 2, scores.shape)
    block = scores[tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))]
    weights = block - block.min()
    if weights.sum() <= 0:
        return peak.astype(np.float64)
    return lower + np.array(ndimage.center_of_mass(weights))


def _tokens_in_scan(scores: Array, tokens: Array, scan: Array, shape: NDArray[Any]) -> NDArray[np.bool_]:
    """Which tokens, as boxes, reach into the scan, ``[gx, gy, gz]``."""
    centres = world_to_voxel(voxel_to_world(np.moveaxis(np.indices(scores.shape), 0, -1), tokens), scan)
    reach = 0.5 * np.abs(np.linalg.inv(scan)[:3, :3] @ tokens[:3, :3]).sum(axis=1)
    inside: NDArray[np.bool_] = ((centres > -0.5 - reach) & (centres < shape - 0.5 + reach)).all(axis=-1)
    return inside


def as_map(evidence: Any) -> Array:
    """A token map as float64 ``[gx, gy, gz]``, from an array or a tensor on any device; refuses other shapes and
    non-finite values.
    """
    if isinstance(evidence, torch.Tensor):
        evidence = evidence.detach().cpu().float().numpy()
    scores = np.asarray(evidence, dtype=np.float64)
    if scores.ndim != 3:
        raise ValueError(f"evidence map has shape {scores.shape}; [gx, gy, gz] is expected")
    if not np.isfinite(scores).all():
        raise ValueError("evidence map holds non-finite values; probabilities in [0, 1] are expected")
    return scores


def _as_channels(maps: Any) -> list[NDArray[Any]]:
    if len(maps) == 0:
        raise ValueError("no evidence map was given; at least one [gx, gy, gz] is expected")
    return [as_map(scores).astype(np.float32) for scores in maps]


def _point(values: Array) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return x, y, z


def _side(from_midline_mm: float) -> str:
    if abs(from_midline_mm) < MIDLINE_MM:
        return "midline"
    return "right" if from_midline_mm > 0 else "left"
