"""Label map of the anatomies that the network found, on the scan's own grid."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.ctfindings.anatomy import ANATOMIES
from bundle.ctfindings.inference.output.evidence_volume import planes_on_scan
from bundle.ctfindings.scan.coordinates import Array, as_affine
from bundle.ctfindings.scan.nifti_writer import write_planes


def _size(row: int) -> int:
    return len(ANATOMIES[row].members)


_SPECIFIC_FIRST = sorted(range(len(ANATOMIES)), key=_size)
"""Rows of the anatomy table; regions that contain others come last."""


def write_anatomy(path: str | Path, inside: Any, map_affine: Any, scan_affine: Any, scan_shape: Sequence[int]) -> None:
    """Writes the label map as NIfTI (``.nii.gz``), uint8 with the ids of ``anatomy.ANATOMIES``, 0 outside the body.

    The regions ``[K, x, y, z]``, 0 or 1, are interpolated between voxel centres and cut at one half, so borders are
    smooth but not finer than their grid. The map shows where answers may look; apart from the lung, which a threshold
    finds, it is not a segmentation. For the affines see ``write_evidence``. ValueError if there is not one region per
    anatomy.
    """
    if len(inside) != len(ANATOMIES):
        raise ValueError(f"expected regions of {len(ANATOMIES)} anatomies, got {len(inside)}")
    x, y, z = (int(size) for size in scan_shape)
    scan = as_affine(scan_affine)
    maps = [np.asarray(region, np.float32) for region in inside]
    planes = label_planes(maps, as_affine(map_affine), scan, (x, y, z))
    write_planes(path, planes, (x, y, z), scan, "anatomies 1..6 of the network")


def label_planes(
    regions: list[NDArray[np.float32]], grid: Array, scan: Array, shape: tuple[int, int, int]
) -> Iterator[NDArray[np.uint8]]:
    """Planes ``[Y, X]`` of mask ids: the most specific anatomy of each voxel; of equally specific ones, the one that
    covers more of it.
    """
    for together in zip(*(planes_on_scan(row, grid, scan, shape) for row in regions), strict=True):
        labels = np.zeros(together[0].shape, np.uint8)
        for _, rows in groupby(_SPECIFIC_FIRST, key=_size):
            # A larger region gets only voxels without a smaller one.
            free, best = labels == 0, np.full(labels.shape, 0.5, np.float32)
            for row in rows:
                np.copyto(labels, ANATOMIES[row].mask_id, where=(together[row] > best) & free)
                np.maximum(best, together[row], out=best)
        yield labels
