"""Transformer blocks with rotary positions in three dimensions and layer scale, the parts that RadFinder's two networks
share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.blocks import MLPBlock
from torch import Tensor, nn


class RotaryPosition(nn.Module):
    """Angles of tokens on a grid of three axes.

    The coordinate of token i of an axis is ``2 (i + 0.5) / divisor - 1``, its angles are ``2 pi coordinate / period``.
    The angles of the three axes stand one after the other, and the list is repeated once for the two halves of a head.

    Args:
        size: channels of a head; a multiple of 6.
        base: the periods run from 1 to nearly this number.
    """

    def __init__(self, size: int, base: float) -> None:
        super().__init__()
        if size % 6:
            raise ValueError(
                f"a head of {size} channels cannot hold the angles of three axes twice; give a multiple of 6"
            )
        count = size // 6
        self.register_buffer("periods", base ** (torch.arange(count) / count))
        self.periods: Tensor

    def forward(self, grid: Sequence[int], divisor: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Sine and cosine of every token.

        Args:
            grid: tokens along the three axes, the last one fastest.
            divisor: what a coordinate is divided by; the grid itself by default, so that coordinates lie in (-1, 1).

        Returns:
            Two tensors ``[N, size]``.
        """
        divisor = grid if divisor is None else divisor
        axes = [
            2 * (torch.arange(count, device=self.periods.device) + 0.5) / whole - 1
            for count, whole in zip(grid, divisor, strict=True)
        ]
        coordinates = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)
        angles = (2 * math.pi * coordinates.unsqueeze(-1) / self.periods).flatten(1).repeat(1, 2)
        return angles.sin(), angles.cos()


def rotate(tokens: Tensor, sine: Tensor, cosine: Tensor) -> Tensor:
    """Turns ``[B, heads, L + N, size]`` by the angles of its last N tokens, ``[N, size]``; the L leading ones are left
    alone.
    """
    leading = tokens.shape[2] - sine.shape[0]
    plain, spatial = tokens[:, :, :leading], tokens[:, :, leading:]
    first, second = spatial.chunk(2, dim=-1)
    return torch.cat([plain, spatial * cosine + torch.cat([-second, first], dim=-1) * sine], dim=2)


class RotaryAttention(nn.Module):
    """Self-attention with rotary positions on queries and keys.

    Args:
        width: width of the tokens.
        heads: attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, sine: Tensor, cosine: Tensor) -> Tensor:
        """``[B, L, width]`` to the same, with the angles of the last N tokens, ``[N, size]``."""
        batch, count, width = tokens.shape
        size = width // self.heads
        query = self.q(tokens).view(batch, count, self.heads, size).transpose(1, 2)
        key, value = self.kv(tokens).view(batch, count, 2, self.heads, size).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(rotate(query, sine, cosine), rotate(key, sine, cosine), value)
        projected: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, count, width))
        return projected


class LayerScale(nn.Module):
    """A learned factor for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, tokens: Tensor) -> Tensor:
        """``[..., width]`` to the same."""
        return tokens * self.gamma


class RotaryBlock(nn.Module):
    """A pre-norm transformer block: attention and perceptron, each scaled by channel before it is added.

    Args:
        width: width of the tokens.
        heads: attention heads.
        perceptron: width of the perceptron.
    """

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
        scaled: Tensor = tokens + self.ls2(self.mlp(self.norm2(tokens)))
        return scaled
