"""A transformer with rotary positions in three dimensions and layer scale, the base of both RadFinder networks.

Shapes: B batch, N tokens, d width of a token, L leading tokens without a position.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from monai.networks.blocks import MLPBlock
from torch import Tensor, nn


class RotaryPosition(nn.Module):
    """Rotation angles of tokens on a grid of three axes.

    Token i of an axis has the coordinate ``2 (i + 0.5) / divisor - 1`` and the angles ``2 pi coordinate / period``. The
    angles of the three axes are concatenated and repeated for both halves of a head.

    Args:
        size: Channels of a head, a multiple of 6.
        base: Upper bound of the periods, which start at 1.
    """

    def __init__(self, size: int, base: float) -> None:
        super().__init__()
        count = size // 6
        self.register_buffer("periods", base ** (torch.arange(count) / count))
        self.periods: Tensor

    def forward(self, grid: Sequence[int], divisor: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Sine and cosine ``[N, size]`` of every token of a grid, the last axis fastest.

        The divisor is the grid by default, which gives coordinates in (-1, 1).
        """
        axes = [
            2 * (torch.arange(count, device=self.periods.device) + 0.5) / whole - 1
            for count, whole in zip(grid, divisor or grid, strict=True)
        ]
        coordinates = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)
        angles = (2 * math.pi * coordinates.unsqueeze(-1) / self.periods).flatten(1).repeat(1, 2)
        return angles.sin(), angles.cos()


def rotate(tokens: Tensor, sine: Tensor, cosine: Tensor) -> Tensor:
    """Rotates the last N tokens of ``[B, heads, L + N, size]`` by angles ``[N, size]``."""
    leading = tokens.shape[2] - sine.shape[0]
    plain, spatial = tokens[:, :, :leading], tokens[:, :, leading:]
    first, second = spatial.chunk(2, dim=-1)
    return torch.cat([plain, spatial * cosine + torch.cat([-second, first], dim=-1) * sine], dim=2)


class RotaryAttention(nn.Module):
    """Self-attention with rotary positions on queries and keys."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, sine: Tensor, cosine: Tensor) -> Tensor:
        """Mixes tokens ``[B, L + N, d]``; the last N have angles ``[N, size]``."""
        batch, count, width = tokens.shape
        size = width // self.heads
        query = self.q(tokens).view(batch, count, self.heads, size).transpose(1, 2)
        key, value = self.kv(tokens).view(batch, count, 2, self.heads, size).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(rotate(query, sine, cosine), rotate(key, sine, cosine), value)
        return cast(Tensor, self.proj(mixed.transpose(1, 2).reshape(batch, count, width)))


class LayerScale(nn.Module):
    """A learned factor for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Scales ``[..., d]``."""
        return tokens * self.gamma


class RotaryBlock(nn.Module):
    """A pre-norm transformer block; the outputs of attention and perceptron are scaled by channel."""

    def __init__(self, width: int, heads: int, perceptron: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = RotaryAttention(width, heads)
        self.ls1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = MLPBlock(width, perceptron)
        self.ls2 = LayerScale(width)

    def forward(self, tokens: Tensor, sine: Tensor, cosine: Tensor) -> Tensor:
        """See ``RotaryAttention``."""
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens), sine, cosine))
        return cast(Tensor, tokens + self.ls2(self.mlp(self.norm2(tokens))))


class RotaryTransformer(nn.Module):
    """Blocks over tokens on a grid, with a class token.

    ``width`` is a multiple of ``6 * heads``, ``depth`` counts blocks, ``perceptron`` is the hidden width of a block.
    """

    def __init__(self, width: int, depth: int, heads: int, perceptron: int, base: float) -> None:
        super().__init__()
        self.width = width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.rope = RotaryPosition(width // heads, base)
        self.blocks = nn.ModuleList([RotaryBlock(width, heads, perceptron) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def mix(self, tokens: Tensor, grid: Sequence[int], divisor: Sequence[int] | None = None) -> Tensor:
        """Class token and mixed tokens ``[B, 1 + N, d]`` of tokens ``[B, N, d]`` on a grid, see ``RotaryPosition``."""
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        sine, cosine = self.rope(grid, divisor)
        for block in self.blocks:
            tokens = block(tokens, sine, cosine)
        return cast(Tensor, self.norm(tokens))
