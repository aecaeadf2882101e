"""RadFinder's preprocessing: resampled, rounded to half precision, and cropped around the centre to whole windows."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import (
    CastToTyped,
    CenterSpatialCrop,
    MapTransform,
    Orientationd,
    ResampleToMatchd,
    ScaleIntensityRanged,
    Spacingd,
    SpatialPad,
    Transform,
)

from bundle.ctfindings.data.transforms import LoadScand


def radfinder_pipeline(
    spacing: Sequence[float] = (0.75, 0.75, 3.0),
    hu_window: Sequence[float] = (-1000.0, 1000.0),
    window: Sequence[int] = (128, 128, 32),
    mapping: Mapping[int, str] | Mapping[str, str] | str = "ctfindings",
) -> list[Transform]:
    """RadFinder's transforms; they give ``image`` in [0, 1], float32, and ``anatomy``, uint8, both ``[1, X, Y, Z]``.

    Args:
        spacing: mm along X, Y, Z.
        hu_window: HU that are mapped to 0 and 1.
        window: Voxels of a window along X, Y, Z.
        mapping: Label ids of the anatomy masks, see ``load_anatomy_mask``.
    """
    keys = ("image", "anatomy")
    return [
        LoadScand("image", "anatomy", mapping),
        Orientationd(keys, axcodes="RAS", labels=None, allow_missing_keys=True),
        Spacingd("image", pixdim=spacing, mode="bilinear", dtype=np.float32),
        ResampleToMatchd(
            "anatomy", "image", mode="nearest", padding_mode="zeros", dtype=np.float32, allow_missing_keys=True
        ),
        ScaleIntensityRanged("image", hu_window[0], hu_window[1], 0.0, 1.0, clip=True),
        CroppedToWindows(keys, window),
        CastToTyped("image", torch.float16),
        CastToTyped(keys, (torch.float32, torch.uint8), allow_missing_keys=True),
    ]


class CroppedToWindows(MapTransform):
    """Crops images ``[C, X, Y, Z]`` around the centre to whole windows; a shorter axis is zero-padded to a window."""

    def __init__(self, keys: KeysCollection, window: Sequence[int]) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.window = tuple(int(size) for size in window)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        study = dict(data)
        for key in self.key_iterator(study):
            volume = study[key]
            size = [max(extent // edge, 1) * edge for extent, edge in zip(volume.shape[1:], self.window, strict=True)]
            study[key] = SpatialPad(self.window)(CenterSpatialCrop(size)(volume))
        return study
