"""Depth rows: embeddings along the body axis, their world z, and where a text points among them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.ctfindings.networks.image.pooling import depth_rows

TEMPERATURE = 0.1
"""Divides the cosine similarity of a depth row and a snippet, as in RadFinder (https://arxiv.org/abs/2603.02026)."""

STEM_WIDTH = 64
"""Channels of the convolution of ``DepthStem``."""


class DepthStem(nn.Module):
    """Depth rows thinner than a token, for towers with thick tokens: fVLM's tokens of 48 mm give rows of 12 mm.

    The rows of a token share its embedding; a convolution of flat patches of the image adds what tells them apart.

    Args:
        patch: Voxels of a token along X, Y, Z.
        depth_patch: Voxels of a row along Z, a divisor of the token's.
        embedding: Size E of the shared space.

    Raises:
        ValueError: A token is not a whole number of rows.
    """

    def __init__(self, patch: tuple[int, int, int], depth_patch: int, embedding: int) -> None:
        super().__init__()
        if depth_patch < 1 or patch[2] % depth_patch != 0:
            raise ValueError(
                f"depth_patch is {depth_patch} voxels; it must divide the {patch[2]} voxels of a token along Z"
            )
        size = (patch[0], patch[1], depth_patch)
        self.split = patch[2] // depth_patch
        self.convolution = nn.Conv3d(1, STEM_WIDTH, kernel_size=size, stride=size)
        self.project = nn.Sequential(nn.GELU(), nn.LayerNorm(STEM_WIDTH), nn.Linear(STEM_WIDTH, embedding))

    def forward(self, image: Tensor, field: Tensor, body: Tensor, grid: list[int]) -> Tensor:
        """Unit rows along the body axis.

        Args:
            image: ``[B, 1, X, Y, Z]`` in [0, 1].
            field: unit token field ``[B, N, E]``.
            body: bool ``[B, N]``, tokens inside the body.
            grid: Grid ``[gx, gy, gz]`` of the tokens.

        Returns:
            ``[B, gz split, E]``, inferior to superior.
        """
        patches = self.convolution(2 * image - 1).flatten(2).transpose(1, 2)
        fine = [grid[0], grid[1], grid[2] * self.split]
        # Tokens and patches are in C order, Z fastest: the rows of a token follow each other.
        cells = field.repeat_interleave(self.split, dim=1) + self.project(patches)
        return depth_rows(cells, body.repeat_interleave(self.split, dim=1), fine)


def depth_positions(affine: Tensor, image: Tensor, depth_patch: int) -> Tensor:
    """World z of the centre of each depth row in mm, ``[B, D]``; NaN for padding, which is constant over a whole row.

    Args:
        affine: Voxel index of the image to RAS mm, ``[B, 4, 4]``.
        image: Input of the network, ``[B, 1, X, Y, Z]``.
        depth_patch: Voxels of a row along Z.
    """
    batch, _, x, y, z = image.shape
    rows = z // depth_patch
    affine = affine.double()
    centre = torch.arange(rows, dtype=affine.dtype, device=affine.device) * depth_patch + (depth_patch - 1) / 2
    # On an oblique grid, a row has the z of its middle.
    level = affine[:, 2, 0] * (x - 1) / 2 + affine[:, 2, 1] * (y - 1) / 2 + affine[:, 2, 3]
    mm = (level[:, None] + affine[:, 2, 2, None] * centre).to(torch.float32)
    slabs = image.reshape(batch, x * y, rows, depth_patch)
    low, high = slabs.amin(dim=(1, 3)), slabs.amax(dim=(1, 3))
    return mm.masked_fill(low == high, torch.nan)


def depth_logits(depth: Tensor, snippet: Tensor) -> Tensor:
    """Cosine of every depth row and snippet of a scan, divided by ``TEMPERATURE``, ``[..., S, D]``.

    Args:
        depth: Unit depth rows of scans, ``[..., D, E]``.
        snippet: Unit embeddings of the snippets of each scan, ``[..., S, E]``.
    """
    return snippet @ depth.transpose(-1, -2) / TEMPERATURE


def depth_profile(logits: Tensor, depth_mm: Tensor) -> Tensor:
    """Probability that a snippet refers to each depth row, ``[..., D]``; sums to one, and is 0 for padding.

    Args:
        logits: Logits of the depth rows, ``[..., D]``.
        depth_mm: World z of each row in mm, NaN where padding, in a shape that broadcasts to the logits; at least one
            row is not padding.
    """
    return F.softmax(logits.masked_fill(depth_mm.isnan(), -torch.inf), dim=-1)
