"""Outputs of the frozen network as part of a preprocessed scan, which a cache keeps: training needs no forward."""

from collections.abc import Hashable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from monai.data import MetaTensor
from monai.transforms import MapTransform

from bundle.ctfindings.networks.checkpoint import read_checkpoint, read_source, sha256_of
from bundle.ctfindings.networks.image.resnet_tower import ResNetTower
from bundle.ctfindings.published.astra.checkpoint import frozen_tower


class FrozenTokensd(MapTransform):
    """Adds ``third_stage`` and ``fourth_stage`` of an image ``[1, X, Y, Z]``, see ``ResNetTower.features``, in half.

    Args:
        ckpt_path: Converted checkpoint of Astra or Merlin; the digest of its weights is part of the key of the cache.

    Raises:
        ValueError: The checkpoint is missing or has no such network.
    """

    encodes = True
    """Random transforms of the image after this step would not reach the tokens; ``cached_dataset`` refuses them."""

    not_in_cache_key = ("ckpt_path",)

    def __init__(self, ckpt_path: str | Path) -> None:
        super().__init__("image")
        read_checkpoint(Path(ckpt_path))
        self.ckpt_path = str(ckpt_path)
        # The file is large; its note of the published file it was made of identifies the weights without reading it.
        noted = read_source(ckpt_path) or {}
        # Adaptation may have tuned the encoder.
        self.digest = noted["sha256"] if "sha256" in noted and "adapted_to" not in noted else sha256_of(ckpt_path)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        study = dict(data)
        image: MetaTensor = study["image"]
        third, fourth = _tower(self.ckpt_path).features(image.as_tensor()[None].float())
        return {**study, "third_stage": third[0].half().contiguous(), "fourth_stage": fourth[0].half().contiguous()}


@lru_cache(maxsize=1)
def _tower(ckpt_path: str) -> ResNetTower:
    """The tower of a worker process, read once."""
    return frozen_tower(ckpt_path).eval()
