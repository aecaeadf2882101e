"""Scans as the token levels of the tower of an encoder, for decoders: kept on disk while the encoder is frozen."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.transforms import MapTransform
from torch import Tensor, nn

from bundle.ctfindings.downstream.encoded_scans import weights_digest
from bundle.ctfindings.networks.image.segmentation_decoder import SegmentationDecoder, token_volumes


def level_strides(tower: nn.Module) -> list[list[int]]:
    """Voxels of a token along X, Y, Z at each level of a tower, finest first; asked with an empty scan."""
    size: Sequence[int] = tower.multiple  # type: ignore[assignment]
    weight = next(tower.parameters())
    training = tower.training
    with torch.no_grad():
        _, grids = tower.eval()(weight.new_zeros(1, 1, *size))
    tower.train(training)
    return [[edge // cells for edge, cells in zip(size, grid, strict=True)] for grid in grids]


class EncodeLevelsd(MapTransform):
    """Adds the token levels of a preprocessed scan: ``level_0``, the finest, and so on, [d, gx, gy, gz] float16.

    Args:
        tower: tower of the frozen encoder, on its device.
    """

    not_in_cache_key = ("tower",)

    def __init__(self, tower: nn.Module) -> None:
        super().__init__("image")
        self.tower, self.weights = tower, weights_digest(tower)

    @torch.no_grad()
    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        image = data["image"].as_tensor()[None].to(next(self.tower.parameters()).device).float()
        volumes = token_volumes(*self.tower(image))
        return {**data, **{f"level_{place}": value[0].half().cpu() for place, value in enumerate(volumes)}}


def levels_of(batch: Mapping[str, Any]) -> list[Tensor]:
    """The levels that ``EncodeLevelsd`` added to each study of a batch, finest first; none without it."""
    found: list[Tensor] = []
    while f"level_{len(found)}" in batch:
        found.append(batch[f"level_{len(found)}"])
    return found


class Segmenter(nn.Module):
    """A tower with a decoder: from an image ``[B, 1, X, Y, Z]``, or the levels of it, to logits ``[B, C, X, Y, Z]``.

    Args:
        tower: tower of the image encoder; trained if it is asked for images.
        decoder: decoder of its levels.
    """

    def __init__(self, tower: nn.Module, decoder: SegmentationDecoder) -> None:
        super().__init__()
        self.tower, self.decoder = tower, decoder

    def forward(self, given: Tensor | Sequence[Tensor]) -> Tensor:
        """Logits of the masks."""
        levels = token_volumes(*self.tower(given)) if isinstance(given, Tensor) else [level.float() for level in given]
        logits: Tensor = self.decoder(levels)
        return logits
