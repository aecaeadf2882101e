"""Astra's preprocessing: cropped to what is brighter than air, resized to one size; the spacing differs by scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from monai.transforms import (
    BorderPadd,
    CastToTyped,
    CropForegroundd,
    Orientationd,
    ResampleToMatchd,
    Resized,
    ScaleIntensityRanged,
    Transform,
)

from bundle.ctfindings.data.transforms import LoadScand


def astra_pipeline(
    size: Sequence[int] = (224, 224, 160),
    hu_window: Sequence[float] = (-1000.0, 200.0),
    border: Sequence[int] = (8, 8, 4),
    mapping: Mapping[int, str] | Mapping[str, str] | str = "ctfindings",
    log_warnings: bool = False,
) -> list[Transform]:
    """Astra's transforms; they give ``image`` in [0, 1], float32, and ``anatomy``, uint8, both ``[1, X, Y, Z]``.

    The affine follows every step, so that a token has its place in mm however a scan was stretched.

    Args:
        size: Voxels along X, Y, Z that the network sees, whatever the field of view.
        hu_window: HU that are mapped to 0 and 1; what is above the first is kept by the crop.
        border: Voxels of zeros on both sides of each axis, see ``ResNetTower``.
        mapping: Label ids of the anatomy masks, see ``load_anatomy_mask``.
        log_warnings: Whether warnings about a scan are logged instead of kept with it, as batches of scans need.
    """
    keys = ("image", "anatomy")
    return [
        LoadScand("image", "anatomy", mapping, log_warnings),
        Orientationd(keys, axcodes="RAS", labels=None, allow_missing_keys=True),
        CropForegroundd("image", "image", BrighterThan(hu_window[0]), allow_smaller=True),
        Resized("image", size, mode="area"),
        ResampleToMatchd(
            "anatomy", "image", mode="nearest", padding_mode="zeros", dtype=np.float32, allow_missing_keys=True
        ),
        ScaleIntensityRanged("image", hu_window[0], hu_window[1], 0.0, 1.0, clip=True),
        BorderPadd(keys, border, allow_missing_keys=True),
        CastToTyped(keys, (torch.float32, torch.uint8), allow_missing_keys=True),
    ]


class BrighterThan:
    """Voxels above a threshold in HU, and all of them if there are none; a class because workers need to pickle it."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """HU ``[1, X, Y, Z]`` to bool of the same shape."""
        found = torch.as_tensor(image) > self.threshold
        return found if bool(found.any()) else torch.ones_like(found)
