"""Label map of the anatomies that the network found, on the scan's own grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bundle.ctfindings.anatomy import ANATOMIES
from bundle.ctfindings.inference.evidence import as_map
from bundle.ctfindings.inference.output.evidence_volume import planes_on_scan
from bundle.ctfindings.scan.coordinates import Array, as_affine
from bundle.ctfindings.scan.nifti_writer import write_planes

_SPECIFIC_FIRST = tuple(sorted(range(len(ANATOMIES)), key=lambda row: len(ANATOMIES[row].members)))
"""Rows of the anatomy table; regions that contain others come last."""


def write_anatomy(
    path: str | Path, logits: Any, token_affine: Any, scan_affine: Any, scan_shape: Sequence[int]
) -> None:
    """Writes the label map as NIfTI uint8 with the ids of ``anatomy.ANATOMIES``, 0 outside the body.

    The logits are interpolated between token centres and cut at zero, so borders are smooth but not finer than
    tokens. The map shows what the answers were pooled over. It is not a segmentation.

    Args:
        path: ends in ``.nii.gz``.
        logits: of the anatomy head, ``[K, gx, gy, gz]``.
        token_affine: ``(4, 4)``, token index to RAS mm.
        scan_affine: ``(4, 4)``, voxel index to RAS mm.
        scan_shape: ``(X, Y, Z)`` of the scan.

    Raises:
        ValueError: if the logits are not one map per anatomy.
    """
    if len(logits) != len(ANATOMIES):
        raise ValueError(f"expected anatomy logits of {len(ANATOMIES)} maps, got {len(logits)} maps")
    x, y, z = (int(size) for size in scan_shape)
    scan = as_affine(scan_affine)
    # Within -8..8: a single very sure token would push the border far into its neighbours.
    maps = [as_map(torch.as_tensor(row).clamp(-8, 8)).astype(np.float32) for row in logits]
    planes = _label_planes(maps, as_affine(token_affine), scan, (x, y, z))
    write_planes(path, planes, (x, y, z), scan, "anatomies 1..6 of the network")


def _label_planes(
    logits: list[NDArray[np.float32]], tokens: Array, scan: Array, shape: tuple[int, int, int]
) -> Iterator[NDArray[np.uint8]]:
    """The most specific anatomy of each voxel; of equally specific ones, the one with the largest logit."""
    sizes = [len(ANATOMIES[row].members) for row in _SPECIFIC_FIRST]
    for together in zip(*(planes_on_scan(row, tokens, scan, shape) for row in logits), strict=True):
        labels = np.zeros(together[0].shape, np.uint8)
        best = np.zeros(together[0].shape, np.float32)
        free = None
        for place, row in enumerate(_SPECIFIC_FIRST):
            if place and sizes[place] > sizes[place - 1]:
                # A larger region gets only voxels without a smaller one.
                free = labels == 0
                best.fill(0)
            better = together[row] > best
            if free is not None:
                better &= free
            np.maximum(best, together[row], out=best)
            np.copyto(labels, ANATOMIES[row].mask_id, where=better)
        yield labels
