"""fVLM's image side: a vision transformer over a window for each organ, tokens of the organ pooled at four depths of
the network.

Shui et al., "Large-scale and Fine-grained Vision-language Pre-training for Enhanced CT Image Understanding", ICLR 2025,
https://arxiv.org/abs/2501.14548. Written from the published facts of the architecture and of the evaluation.

Shapes: B batch, N tokens, O organs (4), K anatomies, d width of a token, E embedding, P prompt pairs. Arrays are X, Y,
Z in LPS+, the order in which CT-RATE's axial volumes are stored and fVLM was trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.ctfindings.anatomy import ANATOMIES
from bundle.ctfindings.networks.image.image_encoder import ImageEmbedding
from bundle.ctfindings.networks.image.pooling import depth_rows, token_membership
from bundle.ctfindings.networks.image.vit_tower import VisionTransformerTower

ORGANS = ("lung", "heart", "esophagus", "aorta")
"""fVLM's organs in its order, which are the first rows of ``ANATOMIES``."""

NOT_SCORED = -200.0
"""Logit of a finding whose organ is missing; its probability is 0 in single precision, as fVLM's evaluation counts it.
"""


class FvlmImageEncoder(nn.Module):
    """Organ rows and a token field in the space of the texts.

    Args:
        tower: the vision transformer.
        embedding: size E of the shared space.
        heads: attention heads of the organ pooling.
        window: least voxels along X, Y, Z of the window that is cut for an organ.
    """

    def __init__(
        self,
        tower: VisionTransformerTower,
        embedding: int = 256,
        heads: int = 4,
        window: Sequence[int] = (352, 288, 112),
    ) -> None:
        super().__init__()
        self.tower = tower
        self.embedding = embedding
        self.multiple = tower.multiple
        self.depth_patch = tower.stride[2]
        self.window = tuple(int(size) for size in window)
        self.query = nn.Parameter(torch.zeros(len(ORGANS), tower.width))
        self.attention = nn.MultiheadAttention(tower.width, heads, dropout=0.1, batch_first=True)
        self.projections = nn.ModuleList([nn.Linear(tower.width, embedding) for _ in ORGANS])

    def pool(self, tokens: Tensor, membership: Tensor) -> tuple[Tensor, Tensor]:
        """One attention for all organs: what the query of each finds among the organ's tokens.

        Args:
            tokens: of all levels, ``[B, N, d]``.
            membership: bool ``[B, N, O]``.

        Returns:
            ``[B, O, d]``, meaningless where an organ has no token, and whether it has any, bool ``[B, O]``.
        """
        valid = membership.any(dim=1)
        forbidden = ~(membership | ~valid.unsqueeze(1)).transpose(1, 2)
        query = self.query.expand(len(tokens), -1, -1)
        forbidden = forbidden.repeat_interleave(self.attention.num_heads, dim=0)
        pooled, _ = self.attention(query, tokens, tokens, attn_mask=forbidden, need_weights=False)
        return pooled, valid

    def project(self, pooled: Tensor) -> Tensor:
        """``[..., O, d]`` to unit rows ``[..., O, E]``, each organ by its own map."""
        rows = [projection(pooled[..., organ, :]) for organ, projection in enumerate(self.projections)]
        return F.normalize(torch.stack(rows, dim=-2), dim=-1)

    def token_rows(self, levels: Sequence[Tensor]) -> Tensor:
        """The row that each organ would have if one token were all there was of it, ``[B, N, O, E]``.

        With a single key the attention's weight is one, so that this is its value path. fVLM itself has no such map; it
        is our reading of its pooling, and what the evidence is drawn from.
        """
        width = self.attention.embed_dim
        weight, bias = self.attention.in_proj_weight[2 * width :], self.attention.in_proj_bias[2 * width :]
        values = self.attention.out_proj(F.linear(torch.stack(list(levels)).mean(dim=0), weight, bias))
        return self.project(values.unsqueeze(-2).expand(*values.shape[:-1], len(ORGANS), width))

    def forward(
        self, image: Tensor, membership: Tensor | None = None, membership_known: Tensor | None = None
    ) -> ImageEmbedding:
        """Encodes a batch of windows.

        Args:
            image: ``[B, 1, X, Y, Z]`` in [0, 1].
            membership: tokens of each anatomy from a mask, bool ``[B, N, K]``; all tokens without one, for fVLM finds
                no organ by itself.
            membership_known: bool ``[B, K]``, the anatomies that the mask speaks of.
        """
        levels, grids = self.tower(image)
        if membership is None:
            membership = image.new_ones(*levels[0].shape[:2], len(ANATOMIES), dtype=torch.bool)
        if membership_known is not None:
            membership = membership & membership_known.unsqueeze(1)
        organs = membership[:, :, : len(ORGANS)]
        pooled, valid = self.pool(torch.cat(levels, dim=1), organs.repeat(1, len(levels), 1))
        rows = self.project(pooled) * valid.unsqueeze(-1)
        return self._embedding(rows, valid, self.token_rows(levels), membership, grids[0])

    def encode_scan(self, image: Tensor, anatomy: Tensor | None = None, known: Tensor | None = None) -> ImageEmbedding:
        """Encodes one scan as fVLM's evaluation does: a window for each organ, with all other organs taken out of its
        mask.

        The token field is brought from the windows to one grid over the scan by linear interpolation.

        Args:
            image: ``[1, 1, X, Y, Z]`` in [0, 1], of any size.
            anatomy: integer anatomy mask ``[1, 1, X, Y, Z]``.
            known: bool ``[1, K]``, anatomies the mask speaks of; all by default.

        Raises:
            ValueError: without a mask.
        """
        if anatomy is None:
            raise ValueError(
                "anatomy: fVLM pools tokens by organ and finds no organ by itself; give the scan's mask as --anatomy MASK"
            )
        stride = self.tower.stride
        padded = pad_to_multiple(anatomy, stride)
        grid = [size // edge for size, edge in zip(padded.shape[2:], stride, strict=True)]
        membership = token_membership(padded, stride)
        if known is not None:
            membership = membership & known.unsqueeze(1)
        rows = image.new_zeros(1, len(ORGANS), self.embedding)
        field = image.new_zeros(*grid, len(ORGANS), self.embedding)
        valid = membership.any(dim=1)[:, : len(ORGANS)]
        encoded: dict[str, tuple[list[Tensor], list[int]]] = {}
        for organ in torch.nonzero(valid[0])[:, 0].tolist():
            mask = anatomy == ANATOMIES[organ].mask_id
            window = organ_window(mask[0, 0], self.window)
            if str(window) not in encoded:
                levels, grids = self.tower(pad_to_multiple(image[:, :, window[0], window[1], window[2]], stride))
                encoded[str(window)] = levels, grids[0]
            levels, own_grid = encoded[str(window)]
            # Anatomies other than this one are not asked for, so that one mask value is enough.
            members = token_membership(
                pad_to_multiple(
                    mask[:, :, window[0], window[1], window[2]].to(torch.uint8) * ANATOMIES[organ].mask_id, stride
                ),
                stride,
            )
            pooled, _ = self.pool(torch.cat(levels, dim=1), members[:, :, : len(ORGANS)].repeat(1, len(levels), 1))
            rows[:, organ] = self.project(pooled)[:, organ]
            own = self.token_rows(levels)[0, :, organ].unflatten(0, own_grid)
            field[..., organ, :] = on_scan_grid(own, window, grid, stride)
        return self._embedding(rows, valid, F.normalize(field, dim=-1).flatten(0, 2).unsqueeze(0), membership, grid)

    def _embedding(
        self, rows: Tensor, valid: Tensor, field: Tensor, membership: Tensor, grid: list[int]
    ) -> ImageEmbedding:
        beyond = len(ANATOMIES) - len(ORGANS)
        whole = F.normalize(field.mean(dim=2), dim=-1)
        return ImageEmbedding(
            anatomy=F.pad(rows, (0, 0, 0, beyond)),
            anatomy_valid=F.pad(valid, (0, beyond)),
            depth=depth_rows(whole, membership.any(dim=2), grid),
            pathology=field.new_zeros(len(field), 0, self.embedding),
            field=field,
            membership=membership,
            anatomy_logits=torch.zeros(membership.shape, device=field.device),
            grid=grid,
        )


class FvlmScorer(nn.Module):
    """fVLM's logit of a pair of prompts: the difference of both similarities over the temperature.

    The softmax over the two similarities is the sigmoid of this logit. A missing organ has ``NOT_SCORED``.

    Args:
        temperature: the learned temperature; its value comes from the checkpoint.
    """

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(temperature))

    def forward(
        self, anatomy: Tensor, anatomy_valid: Tensor, field: Tensor, membership: Tensor, delta: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scores P prompt pairs on each scan; arguments and results as of ``FindingScorer``, but for the field, ``[B,
        N, O, E]``.
        """
        found = anatomy_valid[:, rows]
        logits = (anatomy[:, rows] * delta).sum(-1) / self.temperature
        # Rows beyond the organs are never found; the last organ stands in so that the index is valid.
        own = field[:, :, rows.clamp(max=field.shape[2] - 1)]
        tokens = torch.einsum("bnpe,bpe->bnp", own, delta) / self.temperature
        return logits.masked_fill(~found, NOT_SCORED), tokens.masked_fill(~found.unsqueeze(1), NOT_SCORED)


def organ_window(mask: Tensor, least: Sequence[int]) -> tuple[slice, ...]:
    """Where fVLM's evaluation cuts a volume for an organ: about the middle of its box, within the volume.

    Args:
        mask: bool ``[X, Y, Z]`` with at least one voxel.
        least: voxels of the window along each axis, where the organ is not larger.
    """
    window = []
    for axis, minimum in enumerate(least):
        others = [other for other in range(3) if other != axis]
        places = torch.nonzero(mask.any(dim=others[1]).any(dim=others[0]))[:, 0]
        first, last = int(places[0]), int(places[-1])
        size, extent = max(minimum, last - first), mask.shape[axis]
        start = max(0, (first + last) // 2 - size // 2)
        stop = min(extent, start + size)
        window.append(slice(max(0, stop - size), stop))
    return tuple(window)


def pad_to_multiple(volume: Tensor, stride: Sequence[int]) -> Tensor:
    """Zeros at the far end of each axis of ``[B, 1, X, Y, Z]``, up to a multiple of the stride."""
    x, y, z = (-size % edge for size, edge in zip(volume.shape[2:], stride, strict=True))
    return F.pad(volume, (0, z, 0, y, 0, x))


def on_scan_grid(tokens: Tensor, window: Sequence[slice], grid: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Token vectors of a window at the token centres of the scan, by linear interpolation; zero outside the window.

    Args:
        tokens: ``[gx, gy, gz, E]``.
        window: voxels of the scan that the window covers.
        grid: tokens of the scan along each axis.
        stride: voxels of a token along each axis.
    """
    for axis, (part, count, edge) in enumerate(zip(window, grid, stride, strict=True)):
        size = tokens.shape[axis]
        place = torch.arange(count, device=tokens.device) - cast(int, part.start) / edge
        nearest = place.clamp(0, size - 1).unsqueeze(1) - torch.arange(size, device=tokens.device)
        weights = (1 - nearest.abs()).clamp(min=0) * ((place > -0.5) & (place < size - 0.5)).unsqueeze(1)
        tokens = torch.tensordot(weights.to(tokens.dtype), tokens.movedim(axis, 0), dims=1).movedim(0, axis)
    return tokens
