"""The 3D vision transformer of fVLM as an image tower: large patches, full attention, several levels on one grid."""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from monai.networks.blocks import SABlock, TransformerBlock
from torch import Tensor, nn

from bundle.ctfindings.networks.image.hounsfield_windows import HounsfieldWindows


class VisionTransformerTower(nn.Module):
    """A 3D ViT without class token, after fVLM (https://arxiv.org/abs/2501.14548).

    fVLM orders its axes depth, height, width, and its patch is (16, 16, 32). Our axes are X, Y, Z, so the same patch is
    (32, 16, 16): 32 x 16 x 48 mm at a spacing of 1 x 1 x 3 mm. A scan of 352 x 256 x 112 voxels has 1232 tokens.

    The position embedding is learned on the grid of ``size`` and resized trilinearly to that of any other scan. Dropout
    acts on embeddings, projections and perceptrons but not on attention weights, which MONAI's scaled-dot-product
    attention would also drop in evaluation.

    Args:
        hu_window: HU range that the pipeline maps to [0, 1].
        windows: HU ranges that become input channels, see ``HounsfieldWindows``; None for the one channel as it is.
        patch: Voxels of a token along X, Y, Z.
        size: Voxels of a training scan along X, Y, Z; multiples of ``patch``.
        width: Width of the tokens.
        depth: Number of transformer blocks.
        heads: Attention heads of a block.
        perceptron: Width of the perceptron of a block.
        levels: Blocks, counted from 0, whose outputs are levels beside the normalised output of the last one.
        dropout: Dropout probability.

    Raises:
        ValueError: ``size`` is not a multiple of ``patch``, or a level is not a block.
    """

    def __init__(
        self,
        hu_window: Sequence[float] = (-1150, 350),
        windows: Sequence[Sequence[float]] | None = None,
        patch: Sequence[int] = (32, 16, 16),
        size: Sequence[int] = (352, 256, 112),
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        perceptron: int = 3072,
        levels: Sequence[int] = (3, 6, 9),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if any(extent % edge for extent, edge in zip(size, patch, strict=True)):
            raise ValueError(f"size: expected multiples of patch {tuple(patch)}, got {tuple(size)} voxels")
        if any(not 0 <= level < depth for level in levels):
            raise ValueError(f"levels: expected blocks from 0 to {depth - 1}, got {tuple(levels)}")
        self.width = width
        self.stride = (patch[0], patch[1], patch[2])
        self.multiple = self.stride
        self.levels = [int(level) for level in levels]
        self.windows = nn.Identity() if windows is None else HounsfieldWindows(hu_window, windows)
        channels = 1 if windows is None else len(windows)
        self.embed = nn.Conv3d(channels, width, kernel_size=self.stride, stride=self.stride)
        base = [extent // edge for extent, edge in zip(size, patch, strict=True)]
        self.position = nn.Parameter(torch.empty(1, width, *base))
        nn.init.trunc_normal_(self.position, std=0.02, a=-0.04, b=0.04)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, perceptron, heads, dropout, qkv_bias=True, use_flash_attention=True)
            for _ in range(depth)
        )
        for block in self.blocks:
            # MONAI 1.6 hands this probability to the attention in evaluation too.
            cast(SABlock, block.attn).dropout_rate = 0.0
            # MONAI 1.6 makes this norm for a cross-attention that the block does not have.
            block.norm_cross_attn = nn.Identity()
        self.norm = nn.LayerNorm(width)

    def forward(self, image: Tensor) -> tuple[list[Tensor], list[list[int]]]:
        """Tokens of a batch of scans.

        Args:
            image: ``[B, 1, X, Y, Z]`` in [0, 1]; extents are multiples of ``multiple``.

        Returns:
            Levels of tokens ``[B, N, width]``, the normalised output first and then the blocks of ``levels``, and their
            grids ``[gx, gy, gz]``, which are all the same.
        """
        cells = self.embed(self.windows(image))
        grid = [cells.shape[2], cells.shape[3], cells.shape[4]]
        position = F.interpolate(self.position, size=grid, mode="trilinear", align_corners=False)
        tokens = self.dropout((cells + position).flatten(2).transpose(1, 2))
        outputs: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens)
            if index in self.levels:
                outputs.append(tokens)
        return [self.norm(tokens)] + outputs, [grid] * (1 + len(outputs))
