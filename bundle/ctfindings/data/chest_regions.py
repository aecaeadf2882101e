"""Body and lungs of a scan as tensors of its study, found by threshold before the scan is preprocessed."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from bundle.ctfindings.scan.lung_mask import chest_regions


class ChestRegionsd(MapTransform):
    """Adds ``regions`` [1, x, y, z] uint8 and ``regions_affine`` (4, 4) of a scan in HU, see ``ChestRegions``."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        study = dict(data)
        for key in self.key_iterator(study):
            scan: MetaTensor = study[key]
            found = chest_regions(scan.as_tensor()[0].numpy(), scan.affine.numpy())
            study["regions"] = torch.from_numpy(found.labels)[None]
            study["regions_affine"] = torch.from_numpy(found.affine)
        return study
