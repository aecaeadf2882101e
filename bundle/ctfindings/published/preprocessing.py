"""The image pipelines of published models: each brings a scan to the form in which that model was trained and
evaluated.

Every step that changes the grid keeps the affine, so that evidence returns to the scan's own grid whatever the pipeline
did.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import (
    CastToTyped,
    CenterSpatialCrop,
    MapTransform,
    Orientationd,
    ResampleToMatchd,
    Resize,
    ScaleIntensityRanged,
    Spacingd,
    SpatialCrop,
    SpatialPad,
    SpatialPadd,
    Transform,
)

from bundle.ctfindings.data.transforms import LoadScand


def fvlm_pipeline(
    spacing: Sequence[float] = (1.0, 1.0, 3.0),
    hu_window: Sequence[float] = (-1150.0, 350.0),
    margin: Sequence[int] = (20, 20, 5),
    least: Sequence[int] = (352, 256, 112),
    organs: Sequence[int] = (1, 2, 3, 4),
    mapping: Mapping[int, str] | Mapping[str, str] | str = "ctfindings",
) -> list[Transform]:
    """fVLM's preprocessing: resized to a spacing, cropped to the organs, padded to a least size. Axes run to left,
    posterior, superior.

    Args:
        spacing: mm along X, Y, Z; sizes are rounded down, as published, so that the true spacing is a little larger.
        hu_window: HU that become 0 and 1.
        margin: voxels along X, Y, Z that are kept around the box of the organs; a scan without a mask is not cropped.
        least: voxels along X, Y, Z to which a smaller scan is padded with zeros, evenly at both ends.
        organs: mask ids whose box is kept.
        mapping: label ids of the anatomy masks, see ``load_anatomy_mask``.

    Returns:
        Transforms for ``Compose``. ``image`` becomes [1, X, Y, Z] float32 in [0, 1]; ``anatomy`` [1, X, Y, Z] uint8.
    """
    keys = ("image", "anatomy")
    return [
        LoadScand("image", "anatomy", mapping),
        Orientationd(keys, axcodes="LPS", labels=None, allow_missing_keys=True),
        ResizedToSpacing(keys, spacing, allow_missing_keys=True),
        ScaleIntensityRanged("image", hu_window[0], hu_window[1], 0.0, 1.0, clip=True),
        CroppedToOrgans(keys, margin, organs, allow_missing_keys=True),
        SpatialPadd(keys, least, allow_missing_keys=True),
        CastToTyped(keys, (torch.float32, torch.uint8), allow_missing_keys=True),
    ]


def radfinder_pipeline(
    spacing: Sequence[float] = (0.75, 0.75, 3.0),
    hu_window: Sequence[float] = (-1000.0, 1000.0),
    window: Sequence[int] = (128, 128, 32),
    mapping: Mapping[int, str] | Mapping[str, str] | str = "ctfindings",
) -> list[Transform]:
    """RadFinder's preprocessing: resampled, rounded to half precision, and cut to whole windows about the middle.

    Args:
        spacing: mm along X, Y, Z.
        hu_window: HU that become 0 and 1.
        window: voxels of a window along X, Y, Z.
        mapping: label ids of the anatomy masks, see ``load_anatomy_mask``.

    Returns:
        Transforms for ``Compose``. ``image`` becomes [1, X, Y, Z] float32 in [0, 1]; ``anatomy`` [1, X, Y, Z] uint8.
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
        CutToWindows(keys, window, allow_missing_keys=True),
        CastToTyped("image", torch.float16),
        CastToTyped(keys, (torch.float32, torch.uint8), allow_missing_keys=True),
    ]


class ResizedToSpacing(MapTransform):
    """Resize to the whole number of voxels nearest below a spacing: an image trilinearly, its mask by the nearest
    voxel.

    Args:
        keys: the image first, then its mask.
        spacing: mm along X, Y, Z.
    """

    def __init__(self, keys: KeysCollection, spacing: Sequence[float], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.spacing = np.asarray(spacing, float)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        study = dict(data)
        for key in self.key_iterator(study):
            volume: MetaTensor = study[key]
            own = np.linalg.norm(np.asarray(volume.affine, float)[:3, :3], axis=0)
            # The small constant keeps 351.9999999 voxels, which are 352, from becoming 351.
            size = (
                np.maximum(np.floor(np.asarray(volume.shape[1:]) * own / self.spacing + 1e-6), 1).astype(int).tolist()
            )
            study[key] = Resize(size, mode="trilinear" if key == self.keys[0] else "nearest")(volume)
        return study


class CroppedToOrgans(MapTransform):
    """Crop image and mask to the box of some labels of the mask, with a margin; without a mask nothing is cropped.

    Args:
        keys: the image first, then its mask.
        margin: voxels along X, Y, Z; at the far end one less is kept, as published.
        organs: mask ids.
    """

    def __init__(
        self, keys: KeysCollection, margin: Sequence[int], organs: Sequence[int], allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.margin = np.asarray(margin, int)
        self.organs = torch.tensor(list(organs))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        study = dict(data)
        if self.keys[1] not in study:
            return study
        mask = torch.isin(torch.as_tensor(study[self.keys[1]]).long(), self.organs)[0]
        places = torch.nonzero(mask).numpy()
        if not len(places):
            return study
        start = np.maximum(places.min(axis=0) - self.margin, 0)
        stop = np.minimum(places.max(axis=0) + self.margin, mask.shape)
        crop = SpatialCrop(roi_start=start.tolist(), roi_end=stop.tolist())
        for key in self.key_iterator(study):
            study[key] = crop(study[key])
        return study


class CutToWindows(MapTransform):
    """Cut about the middle to the largest multiple of a window; an axis shorter than one window is padded to it with
    zeros.

    Args:
        keys: images [C, X, Y, Z].
        window: voxels along X, Y, Z.
    """

    def __init__(self, keys: KeysCollection, window: Sequence[int], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.window = tuple(int(size) for size in window)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        study = dict(data)
        for key in self.key_iterator(study):
            volume = study[key]
            size = [max(extent // edge, 1) * edge for extent, edge in zip(volume.shape[1:], self.window, strict=True)]
            study[key] = SpatialPad(self.window)(CenterSpatialCrop(size)(volume))
        return study
