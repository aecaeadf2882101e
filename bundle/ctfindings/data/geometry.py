"""Geometry of a scan as plain tensors, for caches that do not keep the meta of a MetaTensor."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform


class KeepGeometryd(MapTransform):
    """Adds the geometry of a scan as tensors.

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
