"""fVLM's preprocessing: resized to a spacing, cropped to the organs, padded; axes point to left, posterior, superior.

Every step that changes the grid keeps the affine, so that evidence can be mapped back to the grid of the scan.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import (
    CastToTyped,
    MapTransform,
    Orientationd,
    Resize,
    ScaleIntensityRanged,
    SpatialCrop,
    SpatialPadd,
    Transform,
)

from bundle.ctfindings.anatomy import ANATOMIES, anatomy_index
from bundle.ctfindings.data.transforms import LoadScand
from bundle.ctfindings.published.fvlm.image_encoder import ORGANS


def fvlm_pipeline(
    spacing: Sequence[float] = (1.0, 1.0, 3.0),
    hu_window: Sequence[float] = (-1150.0, 350.0),
    margin: Sequence[int] = (20, 20, 5),
    least: Sequence[int] = (352, 256, 112),
    mapping: Mapping[int, str] | Mapping[str, str] | str = "ctfindings",
) -> list[Transform]:
    """fVLM's transforms; they give ``image`` in [0, 1], float32, and ``anatomy``, uint8, both ``[1, X, Y, Z]``.

    Args:
        spacing: mm along X, Y, Z. Sizes are rounded down, as published, so the true spacing is slightly larger.
        hu_window: HU that are mapped to 0 and 1.
        margin: Voxels along X, Y, Z around the bounding box of the organs. A scan without a mask is not cropped.
        least: Voxels along X, Y, Z to which a smaller scan is padded with zeros on both sides.
        mapping: Label ids of the anatomy masks, see ``load_anatomy_mask``.
    """
    keys = ("image", "anatomy")
    return [
        LoadScand("image", "anatomy", mapping),
        Orientationd(keys, axcodes="LPS", labels=None, allow_missing_keys=True),
        ResizedToSpacing(keys, spacing),
        ScaleIntensityRanged("image", hu_window[0], hu_window[1], 0.0, 1.0, clip=True),
        CroppedToOrgans(keys, margin),
        SpatialPadd(keys, least, allow_missing_keys=True),
        CastToTyped(keys, (torch.float32, torch.uint8), allow_missing_keys=True),
    ]


class ResizedToSpacing(MapTransform):
    """Resizes an image trilinearly and its mask to the nearest voxel, to a spacing in mm; sizes are rounded down."""

    def __init__(self, keys: KeysCollection, spacing: Sequence[float]) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.spacing = np.asarray(spacing, float)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        study = dict(data)
        for key in self.key_iterator(study):
            volume: MetaTensor = study[key]
            # The small constant keeps 351.9999999 voxels, which are 352, from becoming 351.
            size = np.floor(np.asarray(volume.shape[1:]) * np.asarray(volume.pixdim) / self.spacing + 1e-6)
            mode = "trilinear" if key == self.keys[0] else "nearest"
            study[key] = Resize(np.maximum(size, 1).astype(int).tolist(), mode=mode)(volume)
        return study


class CroppedToOrgans(MapTransform):
    """Crops image and mask to the bounding box of fVLM's organs; without a mask nothing is cropped.

    The margin around the box is in voxels along X, Y, Z, and one less at the far end, as published.
    """

    def __init__(self, keys: KeysCollection, margin: Sequence[int]) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.margin = np.asarray(margin, int)
        self.organs = torch.tensor([ANATOMIES[anatomy_index(organ)].mask_id for organ in ORGANS])

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        study = dict(data)
        if self.keys[1] not in study:
            return study
        mask = torch.isin(torch.as_tensor(study[self.keys[1]]).long(), self.organs)[0]
        voxels = torch.nonzero(mask).numpy()
        if len(voxels):
            start = np.maximum(voxels.min(axis=0) - self.margin, 0)
            stop = np.minimum(voxels.max(axis=0) + self.margin, mask.shape)
            crop = SpatialCrop(roi_start=start.tolist(), roi_end=stop.tolist())
            study |= {key: crop(study[key]) for key in self.key_iterator(study)}
        return study
