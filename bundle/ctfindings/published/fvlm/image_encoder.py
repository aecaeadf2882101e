"""fVLM's image encoder: a vision transformer over a window around each organ, whose tokens are pooled at four levels.

Shui et al., "Large-scale and Fine-grained Vision-language Pre-training for Enhanced CT Image Understanding", ICLR 2025,
https://arxiv.org/abs/2501.14548. Written from the published facts of the architecture and of the evaluation.

Shapes: B batch, N tokens, O organs (4), K anatomies, d width of a token, E embedding, P prompt pairs. Arrays are X, Y,
Z in LPS+, the order in which CT-RATE stores its volumes and fVLM was trained.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from bundle.ctfindings.anatomy import ANATOMIES
from bundle.ctfindings.networks.image.image_encoder import ImageEmbedding, no_observations
from bundle.ctfindings.networks.image.pooling import depth_rows, token_membership
from bundle.ctfindings.networks.image.vit_tower import VisionTransformerTower

EMBEDDING = 256  # Size E of fVLM's shared space.
ORGANS = ("lung", "heart", "esophagus", "aorta")  # In fVLM's order: the first rows of ``ANATOMIES``.
NOT_SCORED = -200.0
"""Logit of a finding whose organ is missing. Its probability is 0 in single precision, as in fVLM's evaluation."""


class FvlmImageEncoder(nn.Module):
    """Organ rows and a token field in the text space, from windows of at least ``window`` voxels around the organs.

    ``heads`` is the number of attention heads of the organ pooling.
    """

    def __init__(
        self,
        tower: VisionTransformerTower,
        embedding: int = EMBEDDING,
        heads: int = 4,
        window: Sequence[int] = (352, 288, 112),
    ) -> None:
        super().__init__()
        self.tower, self.embedding = tower, embedding
        self.multiple = tower.multiple
        self.depth_patch = tower.stride[2]
        self.window = tuple(int(size) for size in window)
        self.query = nn.Parameter(torch.zeros(len(ORGANS), tower.width))
        self.attention = nn.MultiheadAttention(tower.width, heads, dropout=0.1, batch_first=True)
        self.projections = nn.ModuleList([nn.Linear(tower.width, embedding) for _ in ORGANS])

    def pool(self, tokens: Tensor, membership: Tensor) -> tuple[Tensor, Tensor]:
        """Attention of each organ's query over the organ's tokens: tokens ``[B, N, d]``, membership ``[B, N, O]``.

        Returns features ``[B, O, d]``, undefined for an organ without tokens, and whether it has any, bool ``[B, O]``.
        """
        valid = membership.any(dim=1)
        query = self.query.expand(len(tokens), -1, -1)
        forbidden = (~membership & valid.unsqueeze(1)).transpose(1, 2)
        forbidden = forbidden.repeat_interleave(self.attention.num_heads, dim=0)
        pooled, _ = self.attention(query, tokens, tokens, attn_mask=forbidden, need_weights=False)
        return pooled, valid

    def project(self, pooled: Tensor) -> Tensor:
        """Projects ``[..., O, d]`` to unit rows ``[..., O, E]``, with one map per organ."""
        rows = [projection(pooled[..., organ, :]) for organ, projection in enumerate(self.projections)]
        return F.normalize(torch.stack(rows, dim=-2), dim=-1)

    def token_rows(self, levels: Sequence[Tensor]) -> Tensor:
        """The row that each organ would have with one single token, ``[B, N, O, E]``; evidence is drawn from it.

        The attention weight of a single key is one, so this is the value path of the pooling. fVLM has no such map.
        """
        width = self.attention.embed_dim
        weight, bias = self.attention.in_proj_weight[2 * width :], self.attention.in_proj_bias[2 * width :]
        values = self.attention.out_proj(F.linear(torch.stack(list(levels)).mean(dim=0), weight, bias))
        return self.project(values.unsqueeze(-2).expand(*values.shape[:-1], len(ORGANS), width))

    def forward(self, image: Tensor, membership: Tensor | None = None) -> ImageEmbedding:
        """Encodes windows ``[B, 1, X, Y, Z]`` in [0, 1] with bool membership ``[B, N, K]``, by default all tokens."""
        levels, grids = self.tower(image)
        if membership is None:
            membership = image.new_ones(*levels[0].shape[:2], len(ANATOMIES), dtype=torch.bool)
        organs = membership[:, :, : len(ORGANS)]
        pooled, valid = self.pool(torch.cat(levels, dim=1), organs.repeat(1, len(levels), 1))
        rows = self.project(pooled) * valid.unsqueeze(-1)
        return self._embedding(rows, valid, self.token_rows(levels), membership, grids[0])

    def encode_scan(
        self, image: Tensor, anatomy: Tensor | None = None, known: Tensor | None = None, body: Tensor | None = None
    ) -> ImageEmbedding:
        """Encodes one scan like fVLM's evaluation: a window for each organ, without the other organs in its mask.

        The token field of the windows is interpolated linearly onto one grid over the scan.

        Args:
            image: ``[1, 1, X, Y, Z]`` in [0, 1], of any size.
            anatomy: Integer anatomy mask ``[1, 1, X, Y, Z]``; ``ValueError`` without it.
            known: Anatomies that the mask covers, bool ``[1, K]``; all by default.
            body: Ignored.
        """
        if anatomy is None:
            raise ValueError("anatomy: fVLM cannot find organs by itself; give the mask of the scan: --anatomy MASK")
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
            part = (slice(None), slice(None), *window)
            if str(window) not in encoded:
                levels, grids = self.tower(pad_to_multiple(image[part], stride))
                encoded[str(window)] = levels, grids[0]
            levels, own_grid = encoded[str(window)]
            alone = mask[part].to(torch.uint8) * ANATOMIES[organ].mask_id
            members = token_membership(pad_to_multiple(alone, stride), stride)
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
            field=field,
            membership=membership,
            anatomy_logits=torch.zeros(membership.shape, device=field.device),
            grid=grid,
            **no_observations(rows, field.shape[1]),
        )


class FvlmScorer(nn.Module):
    """fVLM's logit of a pair of prompts: the difference of their similarities, divided by a learned temperature.

    Its sigmoid is the softmax over both similarities. The logit of a missing organ is ``NOT_SCORED``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(0.07))

    def evidence(self, token_logits: Tensor) -> Tensor:
        """Evidence in [0, 1] of token logits."""
        return torch.sigmoid(token_logits)

    def forward(
        self, anatomy: Tensor, anatomy_valid: Tensor, field: Tensor, membership: Tensor, delta: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scores P prompt pairs on each scan, like ``FindingScorer`` but with a field ``[B, N, O, E]``."""
        found = anatomy_valid[:, rows]
        logits = (anatomy[:, rows] * delta).sum(-1) / self.temperature
        # Rows beyond the organs are never found; the last organ keeps the index valid.
        own = field[:, :, rows.clamp(max=field.shape[2] - 1)]
        tokens = torch.einsum("bnpe,bpe->bnp", own, delta) / self.temperature
        return logits.masked_fill(~found, NOT_SCORED), tokens.masked_fill(~found.unsqueeze(1), NOT_SCORED)


def organ_window(mask: Tensor, least: Sequence[int]) -> tuple[slice, ...]:
    """The window of at least ``least`` voxels that fVLM's evaluation crops around the middle of an organ's box.

    The mask of the organ, bool ``[X, Y, Z]``, has at least one voxel; the window lies within the volume.
    """
    window = []
    for axis, minimum in enumerate(least):
        slices = torch.nonzero(mask.movedim(axis, 0).flatten(1).any(dim=1))
        first, last = int(slices[0]), int(slices[-1])
        size, extent = max(minimum, last - first), mask.shape[axis]
        start = max(0, (first + last) // 2 - size // 2)
        stop = min(extent, start + size)
        window.append(slice(max(0, stop - size), stop))
    return tuple(window)


def pad_to_multiple(volume: Tensor, stride: Sequence[int]) -> Tensor:
    """Pads ``[B, 1, X, Y, Z]`` with zeros at the far end of each axis to a multiple of the stride."""
    x, y, z = (-size % edge for size, edge in zip(volume.shape[2:], stride, strict=True))
    return F.pad(volume, (0, z, 0, y, 0, x))


def on_scan_grid(tokens: Tensor, window: Sequence[slice], grid: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Linear interpolation of a window's tokens ``[gx, gy, gz, E]`` at the token centres of the scan; zero outside.

    The window is in voxels of the scan, the stride in voxels per token, and the grid in tokens of the scan.
    """
    for axis, (part, count, edge) in enumerate(zip(window, grid, stride, strict=True)):
        size = tokens.shape[axis]
        position = torch.arange(count, device=tokens.device) - cast(int, part.start) / edge
        distance = position.clamp(0, size - 1).unsqueeze(1) - torch.arange(size, device=tokens.device)
        weights = (1 - distance.abs()).clamp(min=0) * ((position > -0.5) & (position < size - 0.5)).unsqueeze(1)
        tokens = torch.tensordot(weights.to(tokens.dtype), tokens.movedim(axis, 0), dims=1).movedim(0, axis)
    return tokens


def fvlm_image_encoder(window: Sequence[int] = (352, 288, 112)) -> FvlmImageEncoder:
    """fVLM's image encoder without weights; ``window`` as for ``FvlmImageEncoder``."""
    with no_init_weights():
        return FvlmImageEncoder(VisionTransformerTower(), window=window)
