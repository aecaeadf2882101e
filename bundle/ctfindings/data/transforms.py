"""Image pipeline of training, evaluation and inference, as MONAI dictionary transforms."""

import logging
from collections.abc import Hashable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import (
    CastToTyped,
    CropForegroundd,
    DivisiblePadd,
    InvertibleTransform,
    MapTransform,
    Orientationd,
    RandomizableTransform,
    ResampleToMatchd,
    ResizeWithPadOrCropd,
    ScaleIntensityRanged,
    Spacingd,
    Transform,
)
from monai.utils import TraceKeys

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.scan.anatomy_mask import load_anatomy_mask
from bundle.ctfindings.scan.body_mask import body_region
from bundle.ctfindings.scan.coordinates import voxel_spacing
from bundle.ctfindings.scan.load_scan import load_scan

logger = logging.getLogger(__name__)

BODY_MARGIN_MM = 10.0
"""Air kept around the body when the scan is cropped."""


def image_pipeline(
    spacing: Sequence[float] = (3.0, 3.0, 3.0),
    hu_window: tuple[float, float] = (-1000.0, 1000.0),
    roi_size: Sequence[int] | None = None,
    divisible: Sequence[int] | int = 16,
    mapping: Mapping[int, str] | Mapping[str, str] | str = "ctfindings",
) -> list[Transform]:
    """From the path of a scan to the input of the network: HU, RAS, spacing, body crop, HU window, size.

    ``image`` becomes [1, X, Y, Z] float32 in [0, 1]. ``anatomy``, which is optional, becomes [1, X, Y, Z] uint8 on the
    same grid, with ``anatomy_known`` (K,) bool. Every spatial step is invertible (``Invertd``).

    Args:
        spacing: voxel size of the result in mm.
        hu_window: HU that become 0 and 1; values outside are clipped.
        roi_size: size of the result in voxels, cropped and padded about the center (training); None pads each axis to
            the next multiple of ``divisible`` (inference).
        mapping: label ids of the anatomy masks, see ``load_anatomy_mask``.
    """
    keys = ("image", "anatomy")
    margin = np.ceil(BODY_MARGIN_MM / np.asarray(spacing, float)).astype(int).tolist()
    select_body = BodyForeground(spacing)
    return [
        LoadScand("image", "anatomy", mapping, log_warnings=roi_size is not None),
        Orientationd(keys, axcodes="RAS", labels=None, allow_missing_keys=True),
        AveragePoold("image", spacing),
        # float32 halves MONAI's sampling grid; its error at 512 voxels is below 1e-4 voxel.
        Spacingd("image", pixdim=spacing, mode="bilinear", padding_mode="border", dtype=np.float32),
        ResampleToMatchd(
            "anatomy", "image", mode="nearest", padding_mode="zeros", dtype=np.float32, allow_missing_keys=True
        ),
        CropForegroundd(keys, "image", select_body, margin=margin, allow_smaller=True, allow_missing_keys=True),
        ScaleIntensityRanged("image", *hu_window, 0.0, 1.0, clip=True),
        DivisiblePadd(keys, divisible, allow_missing_keys=True)
        if roi_size is None
        else ResizeWithPadOrCropd(keys, roi_size, allow_missing_keys=True),
        CastToTyped(keys, (torch.float32, torch.uint8), allow_missing_keys=True),
    ]


class LoadScand(MapTransform):
    """Loads a scan, and its anatomy mask if there is one, from their paths; ScanError if a file cannot be used.

    The scan becomes [1, X, Y, Z] float32 HU, the mask [1, X, Y, Z] uint8, and ``<anatomy_key>_known`` (K,) bool tells
    which anatomies the mask has. Warnings about the mask are added to those about the scan. The entry ``stored`` of the
    study (slope, intercept, geometry) is applied and removed.

    Args:
        keys: key of the scan.
        anatomy_key: key of the mask; None loads no mask.
        mapping: label ids of the mask, see ``load_anatomy_mask``.
        log_warnings: whether warnings are logged, and they, ``not_assessed`` and ``source_images`` are not kept in the
            meta. Batches of several scans need this, because torch cannot collate lists of different lengths.
    """

    def __init__(
        self,
        keys: KeysCollection,
        anatomy_key: str | None = None,
        mapping: Mapping[int, str] | Mapping[str, str] | str = "ctfindings",
        log_warnings: bool = False,
    ) -> None:
        super().__init__(keys)
        self.anatomy_key = anatomy_key
        self.mapping = mapping
        self.log_warnings = log_warnings

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        study = dict(data)
        for key in self.key_iterator(study):
            image = load_scan(study[key], study.pop("stored", None))
            warnings = image.meta["warnings"]
            path = study.pop(self.anatomy_key, None)
            if path is not None:
                mask, known = load_anatomy_mask(path, self.mapping, image)
                study[self.anatomy_key] = mask
                study[f"{self.anatomy_key}_known"] = torch.tensor([name in known for name in ANATOMY_NAMES])
                # Named by the scan, because outputs give no other path (``warnings_of_scan``).
                named = f"the anatomy mask of {image.meta['filename_or_obj']}"
                warnings += [line.replace(str(path), named) for line in mask.meta.pop("warnings")]
            if self.log_warnings:
                del image.meta["not_assessed"], image.meta["source_images"]
                file = str(image.meta["filename_or_obj"])
                for warning in image.meta.pop("warnings"):
                    # The folders of a scan may name a patient.
                    logger.warning(warning.replace(file, PurePath(file).name))
            study[key] = image
        return study


class AveragePoold(MapTransform, InvertibleTransform):
    """Averages blocks of voxels ([C, X, Y, Z]) before resampling to a coarser ``spacing`` in mm, against aliasing.

    Blocks have ``floor(spacing / own spacing)`` voxels along X, Y, Z. Voxels that do not fill a block at the far end of
    an axis are dropped. The affine is updated. The inverse repeats voxels.
    """

    def __init__(self, keys: KeysCollection, spacing: Sequence[float]) -> None:
        super().__init__(keys)
        self.spacing = np.asarray(spacing, float)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        study = dict(data)
        for key in self.key_iterator(study):
            image: MetaTensor = study[key]
            own = np.asarray(voxel_spacing(image.affine))
            # The small constant keeps a spacing of 0.9999999 from losing a factor that 1.0 has.
            factors = np.clip(np.floor(self.spacing / own + 1e-3), 1, image.shape[1:]).astype(int).tolist()
            affine = image.affine
            to_block = torch.diag(torch.tensor([*factors, 1], dtype=affine.dtype))
            to_block[:3, 3] = (torch.tensor(factors, dtype=affine.dtype) - 1) / 2
            pooled = image.as_tensor()
            if max(factors) > 1:
                # Files are stored with X fastest; pooling in that order avoids a transposed copy of the whole scan.
                order = sorted(range(3), key=lambda axis: -pooled.stride(axis + 1))
                stored = pooled.permute(0, *(axis + 1 for axis in order))
                stored = torch.nn.functional.avg_pool3d(stored, [factors[axis] for axis in order])
                pooled = stored.permute(0, *(order.index(axis) + 1 for axis in range(3))).contiguous()
            study[key] = _with_affine(image, pooled, affine @ to_block)
            self.push_transform(
                study[key], orig_size=tuple(image.shape[1:]), extra_info={"factors": factors, "affine": affine}
            )
        return study

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        study = dict(data)
        for key in self.key_iterator(study):
            pooled: MetaTensor = study[key]
            traced = self.pop_transform(pooled)
            values = pooled.as_tensor()
            for axis, (factor, size) in enumerate(
                zip(traced[TraceKeys.EXTRA_INFO]["factors"], traced[TraceKeys.ORIG_SIZE], strict=True), 1
            ):
                source = (torch.arange(int(size)) // int(factor)).clamp(max=values.shape[axis] - 1)
                values = values.index_select(axis, source)
            study[key] = _with_affine(pooled, values, torch.as_tensor(traced[TraceKeys.EXTRA_INFO]["affine"]))
        return study


class KeepGeometryd(MapTransform):
    """Adds the geometry of a scan as tensors, for caches that do not keep the meta of a MetaTensor.

    ``<key>_affine`` (4, 4): voxels of the network's grid to RAS mm. ``<key>_scan_affine`` (4, 4) and
    ``<key>_scan_shape`` (3,): the scan's own grid.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        study = dict(data)
        for key in self.key_iterator(study):
            image: MetaTensor = study[key]
            study[f"{key}_affine"] = torch.as_tensor(image.affine, dtype=torch.float64)
            study[f"{key}_scan_affine"] = torch.as_tensor(image.meta["original_affine"], dtype=torch.float64)
            study[f"{key}_scan_shape"] = torch.as_tensor(image.meta["spatial_shape"], dtype=torch.int64)
        return study


def _with_affine(image: MetaTensor, values: torch.Tensor, affine: torch.Tensor) -> MetaTensor:
    """``values`` with the meta and history of ``image`` and a new affine."""
    meta = {name: value for name, value in image.meta.items() if name != "affine"}
    return MetaTensor(values, affine=affine, meta=meta, applied_operations=image.applied_operations)


class BodyForeground:
    """The body without the table, see ``body_region``; everything if there is none. ``spacing`` is in mm.

    For the ``select_fn`` of ``CropForegroundd``; a class because worker processes need to pickle it.
    """

    def __init__(self, spacing: Sequence[float]) -> None:
        self.spacing = tuple(spacing)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """HU [1, X, Y, Z] -> bool [1, X, Y, Z]."""
        body = body_region(image[0].numpy(), self.spacing)
        return torch.from_numpy(body if body.any() else np.ones_like(body))[None]


class RandTranslated(RandomizableTransform, MapTransform):
    """Shifts images [C, X, Y, Z] of one size together by up to ``max_voxels`` in either direction; fills with zeros.

    The affine is updated: that of a ``MetaTensor``, and the tensor ``<key>_affine`` of ``KeepGeometryd``.
    """

    def __init__(
        self, keys: KeysCollection, max_voxels: Sequence[int], prob: float, allow_missing_keys: bool = False
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.max_voxels = tuple(max_voxels)
        self.shift = (0, 0, 0)

    def randomize(self, data: Any = None) -> None:
        super().randomize(data)
        if self._do_transform:
            x, y, z = (int(self.R.randint(-size, size + 1)) for size in self.max_voxels)
            self.shift = (x, y, z)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        study = dict(data)
        self.randomize()
        if not self._do_transform:
            return study
        for key in self.key_iterator(study):
            image = study[key]
            shifted = torch.zeros_like(image)
            moves = list(zip(self.shift, image.shape[1:], strict=True))
            to = (slice(max(step, 0), size + min(step, 0)) for step, size in moves)
            of = (slice(max(-step, 0), size - max(step, 0)) for step, size in moves)
            shifted[(slice(None), *to)] = image[(slice(None), *of)]
            back = torch.eye(4, dtype=torch.float64)
            back[:3, 3] = -torch.tensor(self.shift, dtype=torch.float64)
            if isinstance(shifted, MetaTensor):
                shifted.affine = image.affine @ back.to(image.affine)
            if f"{key}_affine" in study:
                study[f"{key}_affine"] = study[f"{key}_affine"] @ back.to(study[f"{key}_affine"])
            study[key] = shifted
        return study
