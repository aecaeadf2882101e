"""The preprocessing of Astra and of Merlin, whose networks are the same."""

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
    ResizeWithPadOrCropd,
    ScaleIntensityRanged,
    Spacingd,
    Transform,
)

from bundle.ctfindings.data.transforms import LoadScand

KEYS = ("image", "anatomy")


def astra_pipeline(
    size: Sequence[int] = (224, 224, 160),
    hu_window: Sequence[float] = (-1000.0, 200.0),
    border: Sequence[int] = (8, 8, 4),
    mapping: Mapping[int, str] | Mapping[str, str] | str = "ctfindings",
    log_warnings: bool = False,
) -> list[Transform]:
    """Astra's transforms: cropped to what is brighter than air, resized to one size; the spacing differs by scan.

    They give ``image`` in [0, 1], float32, and ``anatomy``, uint8, both ``[1, X, Y, Z]``. The affine follows every
    step, so that a token has its place in mm however a scan was stretched.

    Args:
        size: Voxels along X, Y, Z that the network sees, whatever the field of view.
        hu_window: HU that are mapped to 0 and 1; what is above the first is kept by the crop.
        border: Voxels of zeros on both sides of each axis, see ``ResNetTower``.
        mapping: Label ids of the anatomy masks, see ``load_anatomy_mask``.
        log_warnings: Whether warnings about a scan are logged instead of kept with it, as batches of scans need.
    """
    resized = [
        CropForegroundd("image", "image", BrighterThan(hu_window[0]), allow_smaller=True),
        Resized("image", size, mode="area"),
    ]
    return _pipeline(resized, [], hu_window, border, mapping, log_warnings)


def merlin_pipeline(
    spacing: Sequence[float] = (1.5, 1.5, 3.0),
    size: Sequence[int] = (224, 224, 160),
    hu_window: Sequence[float] = (-1000.0, 1000.0),
    border: Sequence[int] = (8, 8, 4),
    mapping: Mapping[int, str] | Mapping[str, str] | str = "ctfindings",
    log_warnings: bool = False,
) -> list[Transform]:
    """Merlin's transforms: resampled to one spacing, then padded with zeros and cropped about the center.

    What lies outside of the crop, by default 336 x 336 x 480 mm, is not seen. For the results and the other arguments
    see ``astra_pipeline``.

    Args:
        spacing: Voxel size in mm along X, Y, Z.
    """
    resampled = [Spacingd("image", spacing, mode="bilinear", padding_mode="border", dtype=np.float32)]
    cropped = [ResizeWithPadOrCropd(KEYS, size, allow_missing_keys=True)]
    return _pipeline(resampled, cropped, hu_window, border, mapping, log_warnings)


def _pipeline(
    geometry: Sequence[Transform],
    after_scaling: Sequence[Transform],
    hu_window: Sequence[float],
    border: Sequence[int],
    mapping: Mapping[int, str] | Mapping[str, str] | str,
    log_warnings: bool,
) -> list[Transform]:
    """The steps that both have around those of the image's geometry before and after its values are scaled."""
    return [
        LoadScand("image", "anatomy", mapping, log_warnings),
        Orientationd(KEYS, axcodes="RAS", labels=None, allow_missing_keys=True),
        *geometry,
        ResampleToMatchd(
            "anatomy", "image", mode="nearest", padding_mode="zeros", dtype=np.float32, allow_missing_keys=True
        ),
        ScaleIntensityRanged("image", hu_window[0], hu_window[1], 0.0, 1.0, clip=True),
        *after_scaling,
        BorderPadd(KEYS, border, allow_missing_keys=True),
        CastToTyped(KEYS, (torch.float32, torch.uint8), allow_missing_keys=True),
    ]


class BrighterThan:
    """Voxels above a threshold in HU, and all of them if there are none; a class because workers need to pickle it."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """HU ``[1, X, Y, Z]`` to bool of the same shape."""
        found = torch.as_tensor(image) > self.threshold
        return found if bool(found.any()) else torch.ones_like(found)
