"""The image side of the model: tower, anatomy head, anatomy rows and the token field in the text space."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.ctfindings.anatomy import ANATOMIES, THORAX
from bundle.ctfindings.networks.image.depth import DepthStem
from bundle.ctfindings.networks.image.pooling import (
    AnatomyPooling,
    coarsen_membership,
    depth_features,
    depth_rows,
    dilate_membership,
    token_membership,
)


class ImageEmbedding(NamedTuple):
    """A batch of encoded scans; every question after that is a product with text vectors.

    Attributes:
        anatomy: unit rows of the anatomies, ``[B, K, E]``; zero where the scan misses one.
        anatomy_valid: bool ``[B, K]``.
        depth: unit rows along the body axis, inferior to superior, ``[B, D, E]``; a row is ``ImageEncoder.depth_patch``
            voxels high.
        pathology: unit rows of pathology queries, ``[B, Q, E]``; Q is 0 until a network has such queries.
        field: unit embedding of every token of the finest grid, ``[B, N, E]``.
        membership: the tokens that were pooled for each anatomy, bool ``[B, N, K]``.
        anatomy_logits: the anatomy head's logits, ``[B, N, K]``.
        grid: ``[gx, gy, gz]`` of the finest level.
    """

    anatomy: Tensor
    anatomy_valid: Tensor
    depth: Tensor
    pathology: Tensor
    field: Tensor
    membership: Tensor
    anatomy_logits: Tensor
    grid: list[int]


class PooledFeatures(NamedTuple):
    """A batch of scans before any projection into the text space.

    Attributes:
        anatomy: pooled features of the anatomies, ``[B, K, F]``, see ``AnatomyPooling.pool``.
        valid: anatomies the scan shows, bool ``[B, K]``.
        depth: features of each depth of a token's height, inferior to superior, ``[B, D, G]``, see ``depth_features``.
    """

    anatomy: Tensor
    valid: Tensor
    depth: Tensor


class ImageEncoder(nn.Module):
    """Tokens of a tower, pooled by anatomy and projected into the text space.

    Args:
        tower: a module with ``width``, ``stride`` and ``multiple`` (voxels along X, Y, Z) whose forward gives levels of
            tokens and their grids.
        embedding: size E of the shared space.
        heads: attention heads of the anatomy pooling.
        margin_tokens: tokens by which an anatomy grows before it is pooled, so that findings at its border count.
        depth_patch: voxels of a depth row along Z, a divisor of the token's; the token's own by default. See
            ``DepthStem``.

    Raises:
        ValueError: when a token is no whole number of depth rows.
    """

    def __init__(
        self,
        tower: nn.Module,
        embedding: int = 128,
        heads: int = 4,
        margin_tokens: int = 1,
        depth_patch: int | None = None,
    ) -> None:
        super().__init__()
        self.tower = tower
        self.embedding = embedding
        self.margin_tokens = margin_tokens
        self.thorax = THORAX
        multiple: tuple[int, int, int] = tower.multiple  # type: ignore[assignment]
        self.multiple = multiple
        width: int = tower.width  # type: ignore[assignment]
        self.anatomy_head = nn.Linear(width, len(ANATOMIES))
        self.anatomy_pooling = AnatomyPooling(width, embedding, heads=heads)
        self.field = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, embedding))
        stride: tuple[int, int, int] = tower.stride  # type: ignore[assignment]
        self.depth_patch = stride[2] if depth_patch is None else depth_patch
        self.depth_stem = None if self.depth_patch == stride[2] else DepthStem(stride, self.depth_patch, embedding)

    def forward(
        self, image: Tensor, membership: Tensor | None = None, membership_known: Tensor | None = None
    ) -> ImageEmbedding:
        """Encodes a batch of scans.

        Args:
            image: ``[B, 1, X, Y, Z]`` in [0, 1].
            membership: tokens of each anatomy from a mask, bool ``[B, N, K]``; the head's own prediction without one.
            membership_known: bool ``[B, K]``, the anatomies that the mask speaks of; the head answers for the others.

        Raises:
            ValueError: when an extent is not a multiple of the tower's.
        """
        x, y, z = image.shape[2], image.shape[3], image.shape[4]
        if x % self.multiple[0] != 0 or y % self.multiple[1] != 0 or z % self.multiple[2] != 0:
            raise ValueError(
                f"an image of {x} x {y} x {z} voxels does not fit this network; pad its extents to multiples of "
                f"{self.multiple[0]}, {self.multiple[1]} and {self.multiple[2]}"
            )
        levels, grids = self.tower(image)
        grid: list[int] = grids[0]
        anatomy_logits = self.anatomy_head(levels[0])
        members = anatomy_logits > 0
        if membership is not None:
            members = (
                membership
                if membership_known is None
                else torch.where(membership_known.unsqueeze(1), membership, members)
            )
        memberships = self._memberships(members, grids)
        members = memberships[0]
        anatomy, valid = self.anatomy_pooling(levels, memberships)
        field = F.normalize(self.field(levels[0]), dim=-1)
        body = members[:, :, self.thorax]
        depth = depth_rows(field, body, grid) if self.depth_stem is None else self.depth_stem(image, field, body, grid)
        return ImageEmbedding(
            anatomy=anatomy,
            anatomy_valid=valid,
            depth=depth,
            pathology=field.new_zeros(field.shape[0], 0, field.shape[2]),
            field=field,
            membership=members,
            anatomy_logits=anatomy_logits,
            grid=grid,
        )

    def pooled_features(self, image: Tensor) -> PooledFeatures:
        """What rows are projected from, by the head's own anatomies; ``image`` as in ``forward``."""
        levels, grids = self.tower(image)
        memberships = self._memberships(self.anatomy_head(levels[0]) > 0, grids)
        anatomy, valid = self.anatomy_pooling.pool(levels, memberships)
        return PooledFeatures(anatomy, valid, depth_features(levels[0], memberships[0][:, :, self.thorax], grids[0]))

    def _memberships(self, members: Tensor, grids: list[list[int]]) -> list[Tensor]:
        """The anatomies that the tokens of each level are pooled for, from those of the finest one, bool ``[B, N, K]``."""
        grown = dilate_membership(members, grids[0], self.margin_tokens)
        return [coarsen_membership(grown, grids[0], grid) for grid in grids]

    def encode_scan(self, image: Tensor, anatomy: Tensor | None = None, known: Tensor | None = None) -> ImageEmbedding:
        """Encodes scans at inference; encoders with windows or crops of their own have this method too.

        Args:
            image: ``[B, 1, X, Y, Z]`` in [0, 1].
            anatomy: integer anatomy mask ``[B, 1, X, Y, Z]``; the anatomy head's prediction is used without one.
            known: bool ``[B, K]``, anatomies the mask speaks of; all by default.
        """
        membership = None if anatomy is None else token_membership(anatomy, self.tower.stride)  # type: ignore[arg-type]
        encoded: ImageEmbedding = self(image, membership, known)
        return encoded
