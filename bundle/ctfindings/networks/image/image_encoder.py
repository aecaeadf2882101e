"""The image encoder: tower, anatomy head, anatomy rows and the token field in the text space."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.ctfindings.anatomy import ANATOMIES, THORAX
from bundle.ctfindings.networks.image.depth import DepthStem
from bundle.ctfindings.networks.image.observation_extractor import ObservationExtractor
from bundle.ctfindings.networks.image.pooling import (
    AnatomyPooling,
    body_tokens,
    coarsen_membership,
    depth_rows,
    dilate_membership,
    token_membership,
)
from bundle.ctfindings.networks.product_embedding import ProductEmbedding
from bundle.ctfindings.networks.trained_settings import TrainedSettings

MARGIN_TOKENS = 1
"""Tokens by which an anatomy grows before it is pooled, so that findings at its border count."""


BODY_LOGIT = 10.0
"""Logit of the anatomies where the body is found by its intensity."""


class ImageEmbedding(NamedTuple):
    """A batch of encoded scans; every question after that is a product with text vectors."""

    anatomy: Tensor  # [B, K, E]: unit rows of the anatomies, zero outside the field of view
    anatomy_valid: Tensor  # bool [B, K]: anatomies in the field of view
    depth: Tensor  # [B, D, E]: unit rows along the body axis, inferior to superior, each depth_patch voxels high
    field: Tensor  # [B, N, E]: unit embedding of every token of the finest grid
    membership: Tensor  # bool [B, N, K]: tokens that were pooled for each anatomy
    anatomy_logits: Tensor  # [B, N, K]: logits of the anatomy head
    grid: list[int]  # [gx, gy, gz]: finest grid of tokens
    # Q is 0 without an extractor of observations.
    pathology: Tensor  # [B, Q, E]: unit rows of the pathology queries, zero where not valid
    pathology_valid: Tensor  # bool [B, Q]: queries that see a token
    pathology_attention: Tensor  # [B, Q, N]: attention of each query over the tokens of the finest grid


def no_observations(rows: Tensor, tokens: int) -> dict[str, Tensor]:
    """The observations in the ``ImageEmbedding`` of an encoder without queries, from rows ``[B, K, E]``; Q is 0."""
    none = rows[:, :0]
    valid = none.new_zeros(none.shape[:2], dtype=torch.bool)
    return {
        "pathology": none,
        "pathology_valid": valid,
        "pathology_attention": none.new_zeros(none.shape[0], 0, tokens),
    }


class ImageEncoder(nn.Module):
    """Tokens of a tower, pooled by anatomy and projected into the text space.

    Args:
        tower: Module with ``width``, ``stride`` and ``multiple`` (voxels along X, Y, Z) whose forward gives levels of
            tokens and their grids.
        embedding: Size E of the shared space.
        heads: Attention heads of the anatomy pooling.
        depth_patch: Voxels of a depth row along Z, a divisor of the token's, see ``DepthStem``; the token's by default.
        pathology: Extractor of observations, as PLACE has one.
        body_threshold: Intensity that separates tissue from air. If given, every anatomy is the body as
            ``body_tokens`` finds it, not what the anatomy head predicts or a mask shows, and training needs no mask.
        parts: Splits the rows and the token field into parts; None leaves them whole.
        settings: Keys of the configuration that a checkpoint keeps, see ``TrainedSettings``.

    Raises:
        ValueError: A token is not a whole number of depth rows.
    """

    def __init__(
        self,
        tower: nn.Module,
        embedding: int = 128,
        heads: int = 4,
        depth_patch: int | None = None,
        pathology: ObservationExtractor | None = None,
        body_threshold: float | None = None,
        parts: ProductEmbedding | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.settings = TrainedSettings(settings or {})
        self.parts = nn.Identity() if parts is None else parts
        self.body_threshold = body_threshold
        self.body_logit = BODY_LOGIT
        self.tower = tower
        self.embedding = embedding
        # Attributes, because TorchScript reads no globals.
        self.margin_tokens = MARGIN_TOKENS
        self.thorax = THORAX
        multiple: tuple[int, int, int] = tower.multiple  # type: ignore[assignment]
        self.multiple = multiple
        width: int = tower.width  # type: ignore[assignment]
        self.anatomy_head = nn.Linear(width, len(ANATOMIES))
        self.anatomy_pooling = AnatomyPooling(width, embedding, heads=heads)
        self.field = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, embedding))
        stride: tuple[int, int, int] = tower.stride  # type: ignore[assignment]
        self.stride = list(stride)
        self.depth_patch = stride[2] if depth_patch is None else depth_patch
        self.depth_stem = None if self.depth_patch == stride[2] else DepthStem(stride, self.depth_patch, embedding)
        self.pathology = pathology

    def forward(
        self,
        image: Tensor,
        membership: Tensor | None = None,
        membership_known: Tensor | None = None,
        body: Tensor | None = None,
    ) -> ImageEmbedding:
        """Encodes a batch of scans.

        Args:
            image: ``[B, 1, X, Y, Z]`` in [0, 1].
            membership: Tokens of each anatomy by a mask, bool ``[B, N, K]``; None uses the prediction of the head. Not
                read with a ``body_threshold``.
            membership_known: Anatomies that the mask covers, bool ``[B, K]``; the head answers for the others.
            body: Tokens inside the body, bool ``[B, N]``; the head answers for no others. None for all.

        Raises:
            ValueError: An extent is not a multiple of the tower's.
        """
        x, y, z = image.shape[2], image.shape[3], image.shape[4]
        if x % self.multiple[0] != 0 or y % self.multiple[1] != 0 or z % self.multiple[2] != 0:
            raise ValueError(
                f"an image of {x} x {y} x {z} voxels does not fit this network; pad it to multiples of "
                f"{self.multiple[0]}, {self.multiple[1]} and {self.multiple[2]} voxels"
            )
        levels, grids = self.tower(image)
        return self.encode_levels(image, levels, grids, membership, membership_known, body)

    def encode_levels(
        self,
        image: Tensor,
        levels: list[Tensor],
        grids: list[list[int]],
        membership: Tensor | None = None,
        membership_known: Tensor | None = None,
        body: Tensor | None = None,
    ) -> ImageEmbedding:
        """``forward`` from the tokens and grids of the tower, which may come from a cache."""
        grid: list[int] = grids[0]
        anatomy_logits = self.anatomy_logits(image, levels[0])
        own = self.own_members(anatomy_logits, membership, membership_known, body)
        memberships = self.memberships(own, grids)
        members = memberships[0]
        anatomy, valid = self.anatomy_pooling(levels, memberships)
        anatomy, field = self.parts(anatomy), self.token_field(levels[0])
        body = members[:, :, self.thorax]
        depth = depth_rows(field, body, grid) if self.depth_stem is None else self.depth_stem(image, field, body, grid)
        if self.pathology is not None:
            rows, seen, attention = self.pathology(levels[0], self.observed_members(members, own), grid)
        else:
            absent = no_observations(anatomy, field.shape[1])
            rows, seen, attention = absent["pathology"], absent["pathology_valid"], absent["pathology_attention"]
        return ImageEmbedding(anatomy, valid, depth, field, members, anatomy_logits, grid, rows, seen, attention)

    def token_field(self, tokens: Tensor) -> Tensor:
        """Unit embeddings ``[B, N, E]`` of the finest tokens ``[B, N, d]``."""
        return self.parts(F.normalize(self.field(tokens), dim=-1))

    def anatomy_logits(self, image: Tensor, tokens: Tensor) -> Tensor:
        """Logits ``[B, N, K]`` of the anatomies of the finest tokens ``[B, N, d]``, by the head or by intensity."""
        logits: Tensor = self.anatomy_head(tokens)
        if self.body_threshold is None:
            return logits
        inside = body_tokens(image, self.stride, self.body_threshold).unsqueeze(2)
        found = torch.where(inside, self.body_logit, -self.body_logit).to(logits.dtype)
        return found.expand_as(logits)

    def own_members(
        self,
        anatomy_logits: Tensor,
        membership: Tensor | None = None,
        membership_known: Tensor | None = None,
        body: Tensor | None = None,
    ) -> Tensor:
        """Tokens of each anatomy without a margin, bool ``[B, N, K]``; arguments as in ``forward``."""
        members = anatomy_logits > 0
        if body is not None:
            members = members & body.unsqueeze(-1)
        if self.body_threshold is not None:
            return members  # Also of a scan with a mask: its rows have to mean what those of other scans mean.
        if membership is not None and membership_known is not None:
            members = torch.where(membership_known.unsqueeze(1), membership, members)
        elif membership is not None:
            members = membership
        return members

    def observed_members(self, members: Tensor, own: Tensor) -> Tensor:
        """The tokens that the pathology queries see: those with a margin ``[B, N, K]``, but not outside the body."""
        return members & own[:, :, self.thorax].unsqueeze(2)

    def memberships(self, members: Tensor, grids: list[list[int]]) -> list[Tensor]:
        """The tokens of each level that are pooled for each anatomy, bool ``[B, N_l, K]``."""
        grown = dilate_membership(members, grids[0], self.margin_tokens)
        return [coarsen_membership(grown, grids[0], grid) for grid in grids]

    def encode_scan(
        self, image: Tensor, anatomy: Tensor | None = None, known: Tensor | None = None, body: Tensor | None = None
    ) -> ImageEmbedding:
        """Encodes scans at inference; encoders with windows or crops of their own have this method too.

        Args:
            image: ``[B, 1, X, Y, Z]`` in [0, 1].
            anatomy: Integer anatomy mask ``[B, 1, X, Y, Z]``; None uses the prediction of the anatomy head.
            known: Anatomies that the mask covers, bool ``[B, K]``; None for all.
            body: Tokens inside the body, bool ``[B, N]``; None for all.
        """
        membership = None if anatomy is None else token_membership(anatomy, self.tower.stride)  # type: ignore[arg-type]
        return self(image, membership, known, body)
