"""Where findings are: the bit mask of a study on the grid of the network."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.findings import FINDINGS


class FindingVoxelsd(MapTransform):
    """Puts the finding mask of a study onto the grid of its preprocessed image; bit i marks finding i.

    Every marked voxel marks the voxel of the image's grid that it falls into, so that a small lesion survives a coarse
    grid. A study need not have a mask.

    Args:
        keys: key of the mask's path.
        image_key: key of the preprocessed image, whose affine says where its voxels are.

    Returns (replaces the path by):
        int32 ``[1, X, Y, Z]`` on the image's grid.

    Raises:
        ScanError: when the file cannot be read, or has bits of findings that do not exist.
    """

    def __init__(self, keys: str = "finding_masks", image_key: str = "image") -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        study = dict(data)
        for key in self.key_iterator(study):
            study[key] = _on_grid(study[key], study[self.image_key])
        return study


def _on_grid(path: str, image: MetaTensor) -> torch.Tensor:
    try:
        mask = nib.load(path)
        bits = np.asarray(mask.dataobj).astype(np.int32)  # type: ignore[attr-defined]
    except (OSError, EOFError, nib.filebasedimages.ImageFileError) as error:
        raise ScanError(path, "cannot be read as a finding mask; write it again as NIfTI of int32") from error
    if bits.ndim != 3 or bits.min() < 0 or bits.max() >= 1 << len(FINDINGS):
        raise ScanError(path, f"is no finding mask; bit i of a 3D int32 volume marks finding i, of {len(FINDINGS)}")
    to_grid = np.linalg.inv(np.asarray(image.affine, float)) @ mask.affine  # type: ignore[attr-defined]
    marked = np.argwhere(bits)
    values = bits[tuple(marked.T)]
    index = np.rint(marked @ to_grid[:3, :3].T + to_grid[:3, 3]).astype(int)
    inside = ((index >= 0) & (index < image.shape[1:])).all(axis=1)
    grid = np.zeros(image.shape[1:], np.int32)
    index, values = index[inside], values[inside]
    for bit in range(len(FINDINGS)):
        place = tuple(index[(values >> bit) & 1 == 1].T)
        grid[place] |= np.int32(1 << bit)
    return torch.from_numpy(grid)[None]
