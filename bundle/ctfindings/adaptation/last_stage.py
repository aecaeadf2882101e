"""The last blocks of a ``ResNetTower``, trained together with the head.

What comes before them is computed once for each scan, so that a step runs these blocks alone.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.ctfindings.networks.image.image_encoder import ImageEncoder
from bundle.ctfindings.networks.image.resnet_tower import ResNetTower, as_tokens, on_grid_of_third


class LastStage(nn.Module):
    """The last residual blocks of the fourth stage; their batch normalisation keeps its statistics.

    The blocks are those of the tower: what they learn is part of its weights. The linear map of the tower stays.

    Args:
        image: Image encoder with the tower.
        blocks: Number of blocks that are trained, at most those of the stage.

    Raises:
        ValueError: The encoder has another tower, or the stage has fewer blocks.
    """

    def __init__(self, image: ImageEncoder, blocks: int) -> None:
        super().__init__()
        if not isinstance(image.tower, ResNetTower):
            raise ValueError(
                "head: tuned_stage needs the encoder of Astra or Merlin; add configs/networks/astra.json, or train the "
                "whole of another tower with configs/finetune.json"
            )
        stage: nn.Sequential = image.tower.network.layer4
        if not 1 <= blocks <= len(stage):
            raise ValueError(f"tuned_blocks: expected 1 to {len(stage)}, got {blocks}")
        self.before, self.blocks = stage[:-blocks], stage[-blocks:]
        self.reduce, self.pooling = image.tower.reduce, image.anatomy_pooling

    @torch.no_grad()
    def inputs(self, third: Tensor) -> Tensor:
        """What the trained blocks read, ``[B, C, z', x', y']``, from the third stage ``[B, C3, x, y, z]``."""
        found: Tensor = self.before(third.permute(0, 1, 4, 2, 3))
        return found

    @torch.no_grad()
    def fourth(self, third: Tensor) -> Tensor:
        """The fourth stage as trained, ``[B, C4, x', y', z']``."""
        found: Tensor = self.blocks(self.inputs(third)).permute(0, 1, 3, 4, 2)
        return found

    @torch.no_grad()
    def fixed_part(self, third: Tensor) -> Tensor:
        """The share of the third stage in the tokens, ``[B, N, d]``."""
        return F.linear(as_tokens(third), self.reduce.weight[:, : third.shape[1]], self.reduce.bias)

    def forward(self, inputs: Tensor, places: Tensor, grid: list[int]) -> Tensor:
        """The share of the fourth stage in some tokens, ``[B, N', d]``.

        Args:
            inputs: Of the trained blocks, ``[B, C, z', x', y']``.
            places: Index of the tokens in C order of the grid, ``[B, N']``.
            grid: Tokens along X, Y, Z.
        """
        cells = self.blocks(inputs).permute(0, 1, 3, 4, 2)
        weight = self.reduce.weight[:, -cells.shape[1] :]
        reduced = torch.einsum("bcxyz,dc->bdxyz", cells, weight)
        tokens = as_tokens(on_grid_of_third(reduced, [size - 1 for size in grid]))
        return tokens.gather(1, places.unsqueeze(-1).expand(-1, -1, tokens.shape[2]))
