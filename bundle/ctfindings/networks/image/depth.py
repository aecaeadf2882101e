"""Depth rows: where they lie in the world, a finer pitch for towers of thick tokens, and which of them a text asks for."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.ctfindings.networks.image.pooling import depth_rows

TEMPERATURE = 0.1
"""Divides the cosine similarity of a depth row and a snippet, as in RadFinder (https://arxiv.org/abs/2603.02026)."""


class DepthStem(nn.Module):
    """Depth rows thinner than a token: a convolution of flat patches adds to the tokens what they average out along Z.

    Several rows of one token share the token's own embedding; what tells them apart is read from the image by patches
    that are as wide as the token and as high as a row. A tower with tokens of 48 mm (fVLM) so has rows of 12 mm.

    Args:
        patch: voxels of a token along X, Y, Z.
        depth_patch: voxels of a row along Z, a divisor of the token's.
        embedding: size E of the shared space.
        width: channels of the convolution.

    Raises:
        ValueError: when a token is no whole number of rows.
    """

    def __init__(self, patch: tuple[int, int, int], depth_patch: int, embedding: int, width: int = 64) -> None:
        super().__init__()
        if depth_patch < 1 or patch[2] % depth_patch != 0:
            raise ValueError(
                f"depth_patch is {depth_patch} voxels; it must divide the {patch[2]} voxels of a token along Z"
            )
        size = (patch[0], patch[1], depth_patch)
        self.split = patch[2] // depth_patch
        self.convolution = nn.Conv3d(1, width, kernel_size=size, stride=size)
        self.project = nn.Sequential(nn.GELU(), nn.LayerNorm(width), nn.Linear(width, embedding))

    def forward(self, image: Tensor, field: Tensor, body: Tensor, grid: list[int]) -> Tensor:
        """Unit rows along the body axis.

        Args:
            image: ``[B, 1, X, Y, Z]`` in [0, 1].
            field: unit token field ``[B, N, E]``.
            body: bool ``[B, N]``, tokens inside the body.
            grid: ``[gx, gy, gz]`` of the tokens.

        Returns:
            ``[B, gz split, E]``, inferior to superior.
        """
        patches = self.convolution(2 * image - 1).flatten(2).transpose(1, 2)
        fine = [grid[0], grid[1], grid[2] * self.split]
        # Tokens and patches are both in C order, Z fastest: the rows of a token follow each other.
        cells = field.repeat_interleave(self.split, dim=1) + self.project(patches)
        return depth_rows(cells, body.repeat_interleave(self.split, dim=1), fine)


def depth_positions(affine: Tensor, image: Tensor, depth_patch: int) -> Tensor:
    """World z of the centre of each depth row in mm, ``[B, D]``; NaN for a row without any of the scan.

    A row without any of the scan is padding, which is one value throughout; no slice of a real scan is.

    Args:
        affine: voxel index of the network's grid to RAS mm, ``[B, 4, 4]``.
        image: ``[B, 1, X, Y, Z]``, the network's input.
        depth_patch: voxels of a row along Z.
    """
    batch, _, x, y, z = image.shape
    rows = z // depth_patch
    affine = affine.double()
    centre = torch.arange(rows, dtype=affine.dtype, device=affine.device) * depth_patch + (depth_patch - 1) / 2
    # On an oblique grid a row has the z of its middle.
    level = affine[:, 2, 0] * (x - 1) / 2 + affine[:, 2, 1] * (y - 1) / 2 + affine[:, 2, 3]
    mm = (level[:, None] + affine[:, 2, 2, None] * centre).to(torch.float32)
    slabs = image.reshape(batch, x * y, rows, depth_patch)
    low, high = slabs.amin(dim=(1, 3)), slabs.amax(dim=(1, 3))
    return mm.masked_fill(low == high, torch.nan)


def depth_logits(depth: Tensor, snippet: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Cosine of every depth row and snippet of a scan, divided by the temperature, ``[..., S, D]``.

    Args:
        depth: unit depth rows of scans, ``[..., D, E]``.
        snippet: unit embeddings of the snippets asked of each scan, ``[..., S, E]``.
        temperature: of the localization objective.
    """
    return snippet @ depth.transpose(-1, -2) / temperature


def depth_profile(logits: Tensor, depth_mm: Tensor) -> Tensor:
    """How probable each depth row is as the place that a snippet speaks of, ``[..., D]``, which sums to one; rows that
    do not count get 0.

    Args:
        logits: of the depth rows, ``[..., D]``.
        depth_mm: world z of each row in mm, NaN where it does not count, in a shape that spreads over that of the
            logits; one row at least does.
    """
    return F.softmax(logits.masked_fill(depth_mm.isnan(), -torch.inf), dim=-1)
