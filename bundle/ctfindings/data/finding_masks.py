"""Finding masks on the grid of the network."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.findings import FINDINGS
from bundle.ctfindings.scan.load_scan import read_volume


class ResampleFindingMaskd(MapTransform):
    """Loads the finding mask of a study onto the grid of its preprocessed image; bit i marks finding i.

    A voxel of the grid is marked if its centre lies in a marked voxel, and every marked voxel marks the voxel of the
    grid it falls into: a large lesion has no gaps on a finer grid, and a small one survives a coarser grid. The path
    under ``finding_masks``, which is optional, becomes int32 [1, X, Y, Z]. ScanError if it cannot be read, has bits
    of unknown findings, or marks nothing within the scan.
    """

    def __init__(self) -> None:
        super().__init__("finding_masks", allow_missing_keys=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        study = dict(data)
        for key in self.key_iterator(study):
            study[key] = _on_grid(study[key], study["image"])
        return study


def _on_grid(path: str, image: MetaTensor) -> torch.Tensor:
    volume = read_volume(path)
    bits = volume.array
    if bits.dtype.kind not in "iu" or bits.min() < 0 or bits.max() >= 1 << len(FINDINGS):
        problem = f"expected a 3D int32 volume in which bit i marks finding i of {len(FINDINGS)}; correct it"
        raise ScanError(path, problem, "not-a-finding-mask")
    bits = bits.astype(np.int32)
    to_grid = np.linalg.inv(np.asarray(image.affine, float)) @ volume.affine
    marked = np.argwhere(bits)
    values = bits[tuple(marked.T)]
    scan = np.linalg.inv(np.asarray(image.meta["original_affine"], float)) @ volume.affine
    in_scan = marked @ scan[:3, :3].T + scan[:3, 3]
    if len(marked) and not ((in_scan > -1) & (in_scan < image.meta["spatial_shape"])).all(axis=1).any():
        problem = f"does not overlap the scan {image.meta.get('filename_or_obj', '')}; give the mask of this scan"
        raise ScanError(path, problem, "mask-elsewhere")
    index = np.rint(marked @ to_grid[:3, :3].T + to_grid[:3, 3]).astype(int)
    inside = ((index >= 0) & (index < image.shape[1:])).all(axis=1)
    grid = np.zeros(image.shape[1:], np.int32)
    index = index[inside]
    np.bitwise_or.at(grid, tuple(index.T), values[inside])
    if len(index):
        # Only around the marked voxels: one voxel of the mask may reach as far as that.
        reach = np.ceil(np.abs(to_grid[:3, :3]).sum(axis=1)).astype(int)
        first, last = np.maximum(index.min(axis=0) - reach, 0), np.minimum(index.max(axis=0) + reach + 1, grid.shape)
        box = tuple(map(slice, first, last))
        centres = np.moveaxis(np.indices(last - first), 0, -1) + first
        from_grid = np.linalg.inv(to_grid)
        source = np.rint(centres @ from_grid[:3, :3].T + from_grid[:3, 3]).astype(int)
        known = ((source >= 0) & (source < bits.shape)).all(axis=-1)
        grid[box][known] |= bits[tuple(source[known].T)]
    return torch.from_numpy(grid)[None]
