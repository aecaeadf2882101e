"""Token maps on the scan's own grid: ``evidence.nii.gz``, and values at points in mm."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bundle.ctfindings.inference.evidence import as_map
from bundle.ctfindings.scan.coordinates import Array, as_affine, world_to_voxel
from bundle.ctfindings.scan.nifti_writer import write_planes

_SEPARABLE_TOKENS = 0.02
"""Largest shear, in tokens over the whole scan, at which the scan and the token grid count as parallel."""

_EDGE = 1e-4
"""Tolerance, in tokens, with which a voxel on the outer face of the token grid belongs to it."""


def sample_evidence(evidence: Any, token_affine: Any, points_mm: Any) -> NDArray[np.float32]:
    """Trilinear values ``[...]`` of a token map ``[gx, gy, gz]`` at world points ``[..., 3]`` in RAS mm.

    The outermost half token has the edge value; outside the token grid the value is zero.
    """
    scores = torch.from_numpy(np.ascontiguousarray(as_map(evidence), dtype=np.float32))
    coordinates = torch.from_numpy(world_to_voxel(points_mm, token_affine).astype(np.float32))
    return _interpolate(scores, coordinates.reshape(-1, 3)).numpy().reshape(coordinates.shape[:-1])


def write_evidence(path: str | Path, maps: Any, token_affine: Any, scan_affine: Any, scan_shape: Sequence[int]) -> None:
    """Writes token maps on the scan's own grid as NIfTI, uint8 with a slope of 1/255: 3D for one map, 4D for several.

    The file is written slice by slice, so memory does not grow with the number of maps, and appears only when complete.

    Args:
        path: ends in ``.nii.gz``.
        maps: ``[F, gx, gy, gz]``, values in [0, 1].
        token_affine, scan_affine: ``(4, 4)``, index of a token and of a voxel to RAS mm.
        scan_shape: ``(X, Y, Z)`` of the scan.
    """
    channels = [as_map(scores).astype(np.float32) for scores in maps]
    tokens, scan = as_affine(token_affine), as_affine(scan_affine)
    x, y, z = (int(size) for size in scan_shape)
    found = (plane for scores in channels for plane in planes_on_scan(scores, tokens, scan, (x, y, z)))
    planes = ((np.clip(plane, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8) for plane in found)
    shape = (x, y, z) if len(channels) == 1 else (x, y, z, len(channels))
    write_planes(path, planes, shape, scan, "token evidence 0..1", scale=1 / 255, largest=1.0)


def map_on_scan(scores: NDArray[Any], tokens: Array, scan: Array, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A token map on a small grid at once, ``[X, Y, Z]``; see ``planes_on_scan``."""
    x, y, z = shape
    parallel = _parallel(scores, tokens, scan, shape)
    if parallel is None:
        return np.stack(list(planes_on_scan(scores, tokens, scan, (x, y, z)))).transpose(2, 1, 0)
    ordered, (across_x, across_y, across_z) = parallel
    return across_y @ np.tensordot(across_x, ordered @ across_z.T, 1)


def planes_on_scan(
    scores: NDArray[Any], tokens: Array, scan: Array, shape: tuple[int, int, int]
) -> Iterator[NDArray[np.float32]]:
    """Planes ``[Y, X]`` of a token map along the scan's third axis, trilinear, zero outside the token grid.

    Args:
        scores: ``[gx, gy, gz]``, any finite float32 values.
        tokens, scan: ``(4, 4)``, index of a token and of a voxel to RAS mm.
        shape: ``(X, Y, Z)`` of the scan.
    """
    parallel = _parallel(scores, tokens, scan, shape)
    if parallel is not None:
        ordered, (across_x, across_y, across_z) = parallel
        for weights in across_z:
            yield across_y @ (ordered @ weights).T @ across_x.T
        return
    to_tokens = np.linalg.inv(tokens) @ scan
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


def _parallel(
    scores: NDArray[Any], tokens: Array, scan: Array, shape: Sequence[int]
) -> tuple[NDArray[Any], list[NDArray[np.float32]]] | None:
    """If the axes of tokens and scan are parallel, trilinear interpolation is three small matrix products.

    Returns:
        The token map with axes in the order of the scan's, and a matrix ``[voxels, tokens]`` for each axis of the scan;
        None if the axes are oblique.
    """
    to_tokens = np.linalg.inv(tokens) @ scan
    partner = np.argmax(np.abs(to_tokens[:3, :3]), axis=0)
    off_axis = np.abs(to_tokens[:3, :3]) * np.asarray(shape)
    off_axis[partner, np.arange(3)] = 0
    if len(set(partner.tolist())) < 3 or off_axis.max() >= _SEPARABLE_TOKENS:
        return None
    lines = [
        _line_weights(shape[axis], float(to_tokens[token, axis]), float(to_tokens[token, 3]), scores.shape[token])
        for axis, token in enumerate(partner)
    ]
    return scores.transpose(tuple(partner)), lines


def _line_weights(count: int, step: float, start: float, size: int) -> NDArray[np.float32]:
    """Linear interpolation as a matrix ``[count, size]``: voxel i lies at token coordinate ``start + i * step``."""
    coordinate = start + step * np.arange(count)
    covered = np.abs(coordinate - (size - 1) / 2) <= size / 2 + _EDGE
    weights = np.maximum(0.0, 1 - np.abs(np.clip(coordinate, 0, size - 1)[:, None] - np.arange(size)))
    return (weights * covered[:, None]).astype(np.float32)
