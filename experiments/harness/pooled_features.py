"""A scan as a locked image tower sees it: the features that anatomy and depth rows are projected from."""

from typing import NamedTuple

import torch
from torch import Tensor

from bundle.ctfindings.networks.image.image_encoder import ImageEncoder


class PooledFeatures(NamedTuple):
    """A batch of scans before any projection into the text space.

    Attributes:
        anatomy: Pooled features of the anatomies, ``[B, K, F]``, see ``AnatomyPooling.pool``.
        valid: Anatomies in the field of view, bool ``[B, K]``.
        depth: Features of each row of tokens along Z, ``[B, D, G]``, see ``depth_features``.
    """

    anatomy: Tensor
    valid: Tensor
    depth: Tensor


def pooled_features(encoder: ImageEncoder, image: Tensor) -> PooledFeatures:
    """Features of scans ``[B, 1, X, Y, Z]`` in [0, 1], with the anatomies of the encoder's own head."""
    levels, grids = encoder.tower(image)
    memberships = encoder.memberships(encoder.anatomy_head(levels[0]) > 0, grids)
    anatomy, valid = encoder.anatomy_pooling.pool(levels, memberships)
    return PooledFeatures(anatomy, valid, depth_features(levels[0], memberships[0][:, :, encoder.thorax], grids[0]))


def depth_features(tokens: Tensor, body: Tensor, grid: list[int]) -> Tensor:
    """Mean, maximum and minimum of the tokens over the body at each depth, ``[B, gz, 3 d]``, inferior to superior.

    Args:
        tokens: ``[B, N, d]``.
        body: Tokens inside the body, bool ``[B, N]``; a depth without any uses all its tokens.
        grid: ``[gx, gy, gz]``.
    """
    cells = tokens.unflatten(1, (grid[0] * grid[1], grid[2]))
    members = body.view(len(tokens), grid[0] * grid[1], grid[2], 1)
    members = members | ~members.any(dim=1, keepdim=True)
    mean = (cells * members).sum(1) / members.sum(1)
    largest = cells.masked_fill(~members, float("-inf")).amax(1)
    smallest = cells.masked_fill(~members, float("inf")).amin(1)
    return torch.cat([mean, largest, smallest], dim=-1)
