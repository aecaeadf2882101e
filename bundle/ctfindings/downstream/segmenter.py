"""A tower with a decoder of its token levels, which come from a cache while the tower is frozen."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

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


class Segmenter(nn.Module):
    """A tower with a decoder: from an image ``[B, 1, X, Y, Z]``, or the levels of it, to logits ``[B, C, X, Y, Z]``.

    The tower is trained if it is asked for images.
    """

    def __init__(self, tower: nn.Module, decoder: SegmentationDecoder) -> None:
        super().__init__()
        self.tower, self.decoder = tower, decoder

    def forward(self, given: Tensor | Sequence[Tensor]) -> Tensor:
        """Logits of the masks."""
        levels = token_volumes(*self.tower(given)) if isinstance(given, Tensor) else [level.float() for level in given]
        return self.decoder(levels)
