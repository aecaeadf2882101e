"""Label map of the anatomies that the network found, on the scan's own grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
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


def _size(row: int) -> int:
    return len(ANATOMIES[row].members)


_SPECIFIC_FIRST = sorted(range(len(ANATOMIES)), key=_size)
"""Rows of the anatomy table; regions that contain others come last."""


def write_anatomy(
    path: str | Path, logits: Any, token_affine: Any, scan_affine: Any, scan_shape: Sequence[int]
) -> None:
    """Writes the label map as NIfTI (``.nii.gz``), uint8 with the ids of ``anatomy.ANATOMIES``, 0 outside the body.

    The logits of the anatomy head, ``[K, gx, gy, gz]``, are interpolated between token centres and cut at zero, so
    borders are smooth but not finer than tokens. The map shows what the answers were pooled over. It is not a
    segmentation. For the affines see ``write_evidence``. ValueError if the logits are not one map per anatomy.
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
    for together in zip(*(planes_on_scan(row, tokens, scan, shape) for row in logits), strict=True):
        labels = np.zeros(together[0].shape, np.uint8)
        for _, rows in groupby(_SPECIFIC_FIRST, key=_size):
            # A larger region gets only voxels without a smaller one.
            free, best = labels == 0, np.zeros(labels.shape, np.float32)
            for row in rows:
                np.copyto(labels, ANATOMIES[row].mask_id, where=(together[row] > best) & free)
                np.maximum(best, together[row], out=best)
        yield labels
