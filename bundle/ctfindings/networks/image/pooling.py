"""Pooling of tokens: by anatomy with masked attention, and along the body axis."""

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.ctfindings.anatomy import ANATOMIES
from bundle.ctfindings.findings import FINDINGS
from bundle.ctfindings.networks.image.standardization import RunningStandardization


def token_membership(mask: Tensor, stride: Sequence[int]) -> Tensor:
    """Anatomies of each token, bool ``[B, N, K]`` in C order of the grid; one voxel of an anatomy is enough.

    Args:
        mask: Integer anatomy mask ``[B, 1, X, Y, Z]``; extents are multiples of ``stride``.
        stride: Voxels of a token along X, Y, Z.
    """
    bits = torch.bitwise_left_shift(torch.ones((), dtype=torch.uint8, device=mask.device), mask.to(torch.uint8))
    members = torch.tensor(
        [sum(1 << i for i in anatomy.members) for anatomy in ANATOMIES], dtype=torch.uint8, device=mask.device
    )
    return (_token_bits(bits, stride).unsqueeze(-1) & members) != 0


def finding_tokens(masks: Tensor, stride: Sequence[int]) -> Tensor:
    """Findings of each token, bool ``[B, N, C]`` in C order of the grid.

    Args:
        masks: int32 ``[B, 1, X, Y, Z]``, bit i for finding i; extents are multiples of ``stride``.
        stride: Voxels of a token along X, Y, Z.
    """
    bit = torch.bitwise_left_shift(
        torch.ones((), dtype=masks.dtype, device=masks.device), torch.arange(len(FINDINGS), device=masks.device)
    )
    return (_token_bits(masks, stride).unsqueeze(-1) & bit.to(masks.dtype)) != 0


def _token_bits(bits: Tensor, stride: Sequence[int]) -> Tensor:
    """Union of the bits of the voxels of each token, ``[B, 1, X, Y, Z]`` to ``[B, N]``."""
    for axis, size in enumerate(stride, start=2):
        bits = functools.reduce(torch.bitwise_or, bits.unflatten(axis, (-1, size)).unbind(axis + 1))
    return bits.flatten(1)


def dilate_membership(membership: Tensor, grid: list[int], tokens: int) -> Tensor:
    """Grows each anatomy by some tokens in every direction, bool ``[B, N, K]`` to the same."""
    if tokens == 0:
        return membership
    volume = _as_volume(membership, grid)
    for axis in range(3):
        kernel, padding = [1, 1, 1], [0, 0, 0]
        kernel[axis], padding[axis] = 2 * tokens + 1, tokens
        volume = F.max_pool3d(volume, kernel, stride=1, padding=padding)
    return volume.flatten(2).transpose(1, 2) > 0.5


def coarsen_membership(membership: Tensor, grid: list[int], coarse: list[int]) -> Tensor:
    """Membership on a coarser grid of the same volume, bool ``[B, N, K]`` to ``[B, N', K]``."""
    if grid[0] == coarse[0] and grid[1] == coarse[1] and grid[2] == coarse[2]:
        return membership
    volume = F.adaptive_max_pool3d(_as_volume(membership, grid), [coarse[0], coarse[1], coarse[2]])
    return volume.flatten(2).transpose(1, 2) > 0.5


def _as_volume(membership: Tensor, grid: list[int]) -> Tensor:
    return membership.float().transpose(1, 2).unflatten(2, grid)


def body_tokens(image: Tensor, stride: list[int], threshold: float) -> Tensor:
    """Tokens inside the body without a mask, bool ``[B, N]`` in C order of the grid: those that lie between tokens
    brighter than ``threshold`` along X and along Y, so that the lungs count.

    Args:
        image: ``[B, 1, X, Y, Z]`` in [0, 1].
        stride: Voxels of a token along X, Y, Z.
        threshold: Intensity of soft tissue at least, in the units of the image.
    """
    tissue = (F.avg_pool3d(image, stride) > threshold).to(torch.int32)
    inside = torch.ones_like(tissue)
    for axis in (2, 3):
        before = torch.cummax(tissue, axis)[0]
        after = torch.cummax(tissue.flip([axis]), axis)[0].flip([axis])
        inside = inside * before * after
    return inside.flatten(1) > 0


class AnatomyPooling(nn.Module):
    """One embedding row per anatomy, from the common features of its tokens and from their extremes.

    A learnable query attends to the anatomy's tokens of all levels; as in fVLM (https://arxiv.org/abs/2501.14548) the
    attention is shared, and each anatomy has its own projection into the text space. The maximum and minimum of each
    channel over the tokens of the finest level are appended, so that a small calcification is not averaged away; the
    extremes and the standardisation are ours.

    Args:
        width: Width of the tokens.
        embedding: Size E of the shared space.
        anatomies: Number of rows K.
        heads: Attention heads.
    """

    def __init__(self, width: int, embedding: int, anatomies: int = len(ANATOMIES), heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.zeros(anatomies, width))
        self.normalize = nn.LayerNorm(width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.level = nn.LayerNorm(width)
        self.standardize = RunningStandardization(anatomies, 3 * width)
        self.projection = nn.Parameter(torch.empty(anatomies, 3 * width, embedding))
        self.bias = nn.Parameter(torch.zeros(anatomies, embedding))
        nn.init.normal_(self.query, std=0.02)
        nn.init.normal_(self.projection, std=(3 * width) ** -0.5)

    def forward(self, levels: list[Tensor], memberships: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Unit rows of each anatomy.

        Args:
            levels: Tokens of each level, ``[B, N_l, d]``, finest first.
            memberships: Anatomies of the tokens of each level, bool ``[B, N_l, K]``.

        Returns:
            Rows ``[B, K, E]``, zero where an anatomy has no token, and validity, bool ``[B, K]``.
        """
        pooled, valid = self.pool(levels, memberships)
        return project_rows(pooled, valid, self.projection, self.bias), valid

    def pool(self, levels: list[Tensor], memberships: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Standardised features of the rows, ``[B, K, 3 d]``, and validity; arguments as in ``forward``."""
        features, valid = self.features(levels, memberships)
        return self.standardize(features, valid), valid

    def features(self, levels: list[Tensor], memberships: list[Tensor]) -> tuple[Tensor, Tensor]:
        """``pool`` before the standardisation."""
        membership = torch.cat(memberships, dim=1)
        tokens = self.normalize(torch.cat(levels, dim=1))
        batch, count, width = tokens.shape
        anatomies = self.query.shape[0]
        size = width // self.heads
        valid = membership.any(dim=1)
        allowed = (membership | ~valid.unsqueeze(1)).transpose(1, 2).unsqueeze(1)
        query = self.query.view(1, anatomies, self.heads, size).transpose(1, 2).expand(batch, -1, -1, -1)
        key = self.key(tokens).view(batch, count, self.heads, size).transpose(1, 2)
        value = self.value(tokens).view(batch, count, self.heads, size).transpose(1, 2)
        common = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        common = self.level(self.output(common.transpose(1, 2).reshape(batch, anatomies, width)))
        highest, lowest = extremes(tokens[:, : levels[0].shape[1]], memberships[0])
        return torch.cat([common, highest, lowest], dim=2), valid


def project_rows(pooled: Tensor, valid: Tensor, projection: Tensor, bias: Tensor) -> Tensor:
    """Unit rows ``[B, K, E]`` of features ``[B, K, F]`` by weights ``[K, F, E]`` and ``[K, E]``; zero where not valid.

    A row without a length is zero too, and has no gradient: the first scan of an anatomy that training sees is
    standardised to zero, where the gradient of a unit vector has no bound. One such step would keep the optimizer from
    moving the tower for thousands of others.
    """
    rows = torch.einsum("bkf,kfe->bke", pooled, projection) + bias
    told = valid.unsqueeze(-1) & (torch.linalg.vector_norm(rows.detach(), dim=-1, keepdim=True) > 1e-3)
    return F.normalize(rows, dim=-1) * told


def extremes(tokens: Tensor, membership: Tensor) -> tuple[Tensor, Tensor]:
    """Maximum and minimum of each channel over the tokens of each anatomy, twice ``[B, K, d]``; zero without tokens.

    The tokens are chosen without gradient and then gathered, because backpropagation through a maximum would visit all
    tokens for every anatomy.

    Args:
        tokens: ``[B, N, d]``.
        membership: bool ``[B, N, K]``.
    """
    with torch.no_grad():
        chosen = []
        # The search runs along memory.
        channels, members = tokens.transpose(1, 2).contiguous(), membership.transpose(1, 2).contiguous()
        for row in range(membership.shape[2]):
            # Tokens of other anatomies are moved out of reach.
            away = (~members[:, row : row + 1]).to(tokens.dtype) * 1e4
            chosen += [(channels - away).argmax(2), (channels + away).argmin(2)]
    absent = ~membership.any(dim=1).unsqueeze(-1)
    values = tokens.gather(1, torch.stack(chosen, 1))
    return values[:, 0::2].masked_fill(absent, 0.0), values[:, 1::2].masked_fill(absent, 0.0)


def depth_rows(field: Tensor, body: Tensor, grid: list[int]) -> Tensor:
    """Unit mean of the token field over the body at each depth, ``[B, gz, E]``, inferior to superior.

    Args:
        field: Token field ``[B, N, E]``.
        body: Tokens inside the body, bool ``[B, N]``; a depth without any uses all its tokens.
        grid: ``[gx, gy, gz]``.
    """
    batch, _, embedding = field.shape
    weights = body.float().view(batch, grid[0] * grid[1], grid[2], 1)
    weights = torch.where(weights.sum(1, keepdim=True) > 0, weights, torch.ones_like(weights))
    cells = field.view(batch, grid[0] * grid[1], grid[2], embedding)
    return F.normalize((cells * weights).sum(1) / weights.sum(1), dim=-1)
