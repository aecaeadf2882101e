"""Pathology observations of a scan: learned queries over its tokens, each of which gives one row in the text space."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.ctfindings.anatomy import ANATOMY_NAMES, THORAX
from bundle.ctfindings.networks.image.standardization import RunningStandardization
from bundle.ctfindings.networks.trained_settings import TrainedSettings

ORGAN_QUERIES = {"lung": 8, "heart": 2, "esophagus": 1, "aorta": 1, "mediastinum": 2, "thorax": 2}
"""Queries of each anatomy with ``localized="organ"``."""

WAVELENGTHS_MM = (40.0, 640.0)
"""Shortest and longest wavelength of the position code, about two pooled tokens and twice a chest."""

WIDEST = 256
"""Largest default width of the queries."""


class CrossAttentionBlock(nn.Module):
    """A transformer block of queries: self-attention (if asked), cross-attention, perceptron, normalised before each.

    Args:
        width: Width of queries and keys.
        heads: Attention heads.
        mutual: Whether the queries also attend to each other.
    """

    def __init__(self, width: int, heads: int, mutual: bool = True) -> None:
        super().__init__()
        self.mutual = Attention(width, heads) if mutual else None
        self.normalize_mutual = nn.LayerNorm(width)
        self.cross = Attention(width, heads)
        self.normalize_cross = nn.LayerNorm(width)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, query: Tensor, key: Tensor, share: Tensor, kept: int = 0) -> Tensor:
        """The queries after the block, ``[B, Q, w]``; arguments as in ``AttentionWeights``."""
        if self.mutual is not None:
            own = self.normalize_mutual(query)
            everyone = torch.ones(query.shape[0], 1, query.shape[1], device=query.device)
            query = query + self.mutual(own, own, everyone, 0)
        query = query + self.cross(self.normalize_cross(query), key, share, kept)
        return query + self.perceptron(query)


class AttentionWeights(nn.Module):
    """Multi-head attention of queries to keys, which can keep the best keys of each query only."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)

    def forward(self, query: Tensor, key: Tensor, share: Tensor, kept: int) -> Tensor:
        """Weights ``[B, heads, Q, N]`` that sum to 1 over the keys, in single precision.

        Args:
            query: ``[B, Q, w]``.
            key: ``[B, N, w]``.
            share: What each key counts, at least 0 and above 0 for at least one, ``[B, Q, N]`` or ``[B, 1, N]``. A key
                with half the share gets half the weight, and one with 0 is not seen.
            kept: Keys that each query keeps, by the mean score over the heads; 0 keeps all.
        """
        q = self.split(self.query(query))
        k = self.split(self.key(key))
        # In single precision: a scan may have ten thousand tokens.
        scores = (q @ k.transpose(2, 3)).float() / math.sqrt(q.shape[3])
        scores = scores + share.to(torch.float32).log().unsqueeze(1)
        if 0 < kept < key.shape[1]:
            mean = scores.mean(1)
            # Of fewer seen keys than are kept, all stay: the least of the kept is then minus infinity.
            least = mean.topk(kept, dim=2).values[:, :, kept - 1 :]
            scores = scores.masked_fill((mean < least).unsqueeze(1), float("-inf"))
        return torch.softmax(scores, dim=-1)

    def split(self, rows: Tensor) -> Tensor:
        """The rows of each head, ``[B, heads, n, width / heads]``."""
        return rows.view(rows.shape[0], -1, self.heads, rows.shape[2] // self.heads).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head attention that returns what it finds."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.weights = AttentionWeights(width, heads)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, query: Tensor, key: Tensor, share: Tensor, kept: int) -> Tensor:
        """What each query finds, ``[B, Q, width]``; arguments as in ``AttentionWeights``."""
        weights = self.weights(query, key, share, kept)
        v = self.weights.split(self.value(key))
        return self.output((weights.to(v.dtype) @ v).transpose(1, 2).flatten(2))


class ObservationExtractor(nn.Module):
    """The visual pathology observation extractor of PLACE (Wang et al., https://arxiv.org/abs/2506.10573).

    Our reading of its abstract, whose equations were not available: Q learned queries attend to each other and to the
    localised tokens of the scan, and each gives one unit row in the text space. Tokens are pooled before, by mean and
    maximum, so that a finding of one token survives.

    A row is read from the tokens themselves, averaged with the attention of its query, and not from the query after the
    blocks: that is nearly the same in every scan, and moves faster in training than scans differ. As in
    ``AnatomyPooling``, the averages are standardised over the training scans. A learned offset tells the queries apart.

    Args:
        tower: Image tower, for the width and size of its tokens.
        embedding: Size E of the shared space.
        spacing: Voxel size in mm along X, Y, Z.
        queries: Number of queries Q; with ``localized="organ"`` the sum of ``ORGAN_QUERIES``.
        layers: Attention layers: transformer blocks of the queries, and the one that reads the rows.
        width: Width of the queries; by default that of the tokens, but at most ``WIDEST``.
        heads: Attention heads.
        localized: What a query attends to: "all" tokens of the body, those of its "organ", or its "topk" best ones.
        kept: Tokens that each query keeps with ``localized="topk"``.
        pool: Tokens along each axis that are pooled to one; 1 for towers with large tokens.

    Raises:
        ValueError: ``localized`` is unknown, or the queries do not match those of the organs.
    """

    def __init__(
        self,
        tower: nn.Module,
        embedding: int,
        spacing: Sequence[float],
        queries: int = 16,
        layers: int = 2,
        width: int | None = None,
        heads: int = 4,
        localized: str = "all",
        kept: int = 64,
        pool: int = 2,
    ) -> None:
        super().__init__()
        if localized not in ("all", "organ", "topk"):
            raise ValueError(f"localized: expected 'all', 'organ' or 'topk', got {localized!r}")
        if localized == "organ" and queries != sum(ORGAN_QUERIES.values()):
            raise ValueError(f"queries: with localized 'organ' expected {sum(ORGAN_QUERIES.values())}, got {queries}")
        tokens: int = tower.width  # type: ignore[assignment]
        stride: Sequence[int] = tower.stride  # type: ignore[assignment]
        width = min(tokens, WIDEST) if width is None else width
        self.settings = TrainedSettings({"localized": localized, "pathology_pool": pool})
        self.pool = pool
        self.kept = kept if localized == "topk" else 0
        self.thorax = THORAX
        self.step_mm = [float(edge * size) for edge, size in zip(stride, spacing, strict=True)]
        self.width = width
        # Attributes, because TorchScript reads no globals.
        self.shortest_mm, self.longest_mm = WAVELENGTHS_MM
        self.reduce = nn.Sequential(nn.LayerNorm(2 * tokens), nn.Linear(2 * tokens, width))
        self.query = nn.Parameter(torch.empty(queries, width))
        nn.init.orthogonal_(self.query)
        self.blocks = nn.ModuleList(CrossAttentionBlock(width, heads) for _ in range(layers - 1))
        self.normalize = nn.LayerNorm(width)
        self.look = AttentionWeights(width, heads)
        self.standardize = RunningStandardization(queries, 2 * tokens)
        self.project = nn.Linear(2 * tokens, embedding)
        # Of about the length of the projection, so that neither hides the other.
        self.offset = nn.Parameter(torch.randn(queries, embedding) / 2)
        organs = [ANATOMY_NAMES.index(name) for name, count in ORGAN_QUERIES.items() for _ in range(count)]
        self.query_anatomy: Tensor
        anatomy = torch.tensor(organs) if localized == "organ" else torch.full((queries,), -1)
        self.register_buffer("query_anatomy", anatomy, persistent=False)

    def forward(self, tokens: Tensor, membership: Tensor, grid: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """The observations of scans.

        Args:
            tokens: Tokens of the finest level, ``[B, N, d]``.
            membership: Anatomies of the tokens, bool ``[B, N, K]``; thorax is the body.
            grid: ``[gx, gy, gz]``.

        Returns:
            Unit rows ``[B, Q, E]``, zero where not valid; validity, bool ``[B, Q]``: the query sees a token; and the
            attention of each query over the tokens, ``[B, Q, N]``, which sums to 1, or to 0 where not valid.
        """
        cells, attention, valid, coarse = self._looked(tokens, membership, grid)
        rows = F.normalize(self._row(attention.to(cells.dtype) @ cells, valid), dim=-1)
        attention = self._unpooled(attention * valid.unsqueeze(2), membership[:, :, self.thorax], grid, coarse)
        return rows * valid.unsqueeze(2), valid, attention

    def relevance(
        self, tokens: Tensor, membership: Tensor, grid: list[int], shares: Tensor, direction: Tensor
    ) -> Tensor:
        """How much each token moves the rows of the queries towards a direction of the text space, ``[B, P, N]``.

        Before its row is normalised, a query is a weighted sum over the cells of pooled tokens. This is the part of a
        cell, relative to the mean of the training scans and to an even attention, interpolated between the cells; 0
        outside the body.

        Args:
            tokens, membership, grid: As in ``forward``.
            shares: Share of each query in P answers, ``[B, P, Q]``.
            direction: ``[P, E]``, such as statement minus denial.
        """
        cells, attention, valid, coarse = self._looked(tokens, membership, grid)
        read = attention.to(cells.dtype) @ cells
        length = self._row(read, valid).norm(dim=-1)
        weights = (direction @ self.project.weight).unsqueeze(1) * self.standardize.slope(read).unsqueeze(1)
        part = torch.einsum("bmf,bpqf->bpqm", cells, weights)
        part = part - (weights * self.standardize.mean).sum(3, keepdim=True)
        looked = (attention * (attention > 0).sum(2, keepdim=True)).to(part.dtype)
        share = shares * (valid / length.clamp(min=1e-12)).unsqueeze(1)
        found = torch.einsum("bpqm,bqm,bpq->bpm", part, looked, share)
        if self.pool > 1:
            volume = found.unflatten(2, coarse)
            volume = F.interpolate(volume, scale_factor=float(self.pool), mode="trilinear")
            found = volume[:, :, : grid[0], : grid[1], : grid[2]].flatten(2)
        return found * membership[:, :, self.thorax].unsqueeze(1)

    def _row(self, read: Tensor, valid: Tensor) -> Tensor:
        """The rows of the queries before they are normalised, ``[B, Q, E]``, from what they read, ``[B, Q, 2 d]``."""
        return self.project(self.standardize(read, valid)) + self.offset

    def _looked(self, tokens: Tensor, membership: Tensor, grid: list[int]) -> tuple[Tensor, Tensor, Tensor, list[int]]:
        """Cells ``[B, M, 2 d]``, attention of the queries ``[B, Q, M]``, validity ``[B, Q]``, and the cells' grid."""
        batch = tokens.shape[0]
        cells, members, share, coarse = self._pooled(tokens, membership, grid)
        body = members[:, :, self.thorax]
        places = cell_centres(coarse, [self.pool * step for step in self.step_mm], body)
        x = self.reduce(cells) + position_code(places, self.width, self.shortest_mm, self.longest_mm).to(tokens.dtype)
        # Without an anatomy of its own, a query sees the body.
        seen = torch.where(self.query_anatomy < 0, torch.full_like(self.query_anatomy, self.thorax), self.query_anatomy)
        # A cell counts by its share of body, whose tokens it has; one at the skin would stand out with the few it has.
        share = torch.where(body.any(dim=1, keepdim=True), share, torch.ones_like(share))
        share = (members[:, :, seen] * share.unsqueeze(2)).transpose(1, 2)
        valid = (share > 0).any(dim=2)
        share = torch.where(valid.unsqueeze(2), share, torch.ones_like(share))
        rows = self.query.unsqueeze(0).expand(batch, -1, -1)
        for block in self.blocks:
            rows = block(rows, x, share, self.kept)
        return cells, self.look(self.normalize(rows), x, share, self.kept).mean(dim=1), valid, coarse

    def _pooled(self, tokens: Tensor, membership: Tensor, grid: list[int]) -> tuple[Tensor, Tensor, Tensor, list[int]]:
        """Mean and maximum over the body tokens of each cell, ``[B, M, 2 d]``; membership of the cells, ``[B, M, K]``;
        share of body, ``[B, M]``; and their grid.
        """
        pool = self.pool
        body = membership[:, :, self.thorax].unsqueeze(2)
        inside = body.to(tokens.dtype)
        if pool == 1:
            return torch.cat([tokens, tokens], dim=2) * inside, membership, inside.squeeze(2), grid
        volume = _volume(tokens * inside, grid)
        share = F.avg_pool3d(_volume(inside, grid), pool, ceil_mode=True)
        mean = F.avg_pool3d(volume, pool, ceil_mode=True) / share.clamp(min=1e-6)
        highest = F.max_pool3d(_volume(tokens.masked_fill(~body, -1e4), grid), pool, ceil_mode=True)
        coarse = [mean.shape[2], mean.shape[3], mean.shape[4]]
        cells = torch.cat([mean, highest], dim=1) * (share > 0)
        members = F.max_pool3d(_volume(membership.to(torch.float32), grid), pool, ceil_mode=True) > 0.5
        return cells.flatten(2).transpose(1, 2), members.flatten(2).transpose(1, 2), share.flatten(1), coarse

    def _unpooled(self, attention: Tensor, body: Tensor, grid: list[int], coarse: list[int]) -> Tensor:
        """Attention of the cells, ``[B, Q, M]``, as that of the body tokens, ``[B, Q, N]``; it sums to 1 again.

        All body tokens of a cell get its attention. Divided among them, the few tokens of a cell at the skin would be
        the peak.
        """
        if self.pool == 1:
            return attention
        pool = self.pool
        inside = _volume(body.unsqueeze(2).to(attention.dtype), grid)
        # Without a body token in a cell its attention is zero or, in a scan without a body, spread over its tokens.
        inside = torch.where(inside.flatten(1).sum(1).view(-1, 1, 1, 1, 1) > 0, inside, torch.ones_like(inside))
        spread = attention.view(attention.shape[0], attention.shape[1], coarse[0], coarse[1], coarse[2])
        spread = spread.repeat_interleave(pool, 2).repeat_interleave(pool, 3).repeat_interleave(pool, 4)
        spread = (spread[:, :, : grid[0], : grid[1], : grid[2]] * inside).flatten(2)
        return spread / spread.sum(dim=2, keepdim=True).clamp(min=1e-12)


def cell_centres(grid: list[int], step_mm: list[float], body: Tensor) -> Tensor:
    """Distance of the cells of a grid from the middle of the body in mm, ``[B, M, 3]``.

    Args:
        grid: ``[gx, gy, gz]``.
        step_mm: Distance of two cells along X, Y, Z.
        body: Cells inside the body, bool ``[B, M]``.
    """
    axes = [torch.arange(grid[axis], device=body.device, dtype=torch.float32) * step_mm[axis] for axis in range(3)]
    x, y, z = torch.meshgrid(axes[0], axes[1], axes[2], indexing="ij")
    places = torch.stack([x.flatten(), y.flatten(), z.flatten()], dim=1).unsqueeze(0)
    inside = body.unsqueeze(2).to(torch.float32)
    return places - (places * inside).sum(1, keepdim=True) / inside.sum(1, keepdim=True).clamp(min=1)


def position_code(places_mm: Tensor, width: int, shortest_mm: float, longest_mm: float) -> Tensor:
    """Sine and cosine of places ``[B, M, 3]`` at wavelengths between two limits, ``[B, M, width]``; the rest is 0."""
    count = max(1, width // 6)
    waves = torch.linspace(math.log(shortest_mm), math.log(longest_mm), count, device=places_mm.device).exp()
    angles = (places_mm.unsqueeze(3) * (2 * math.pi) / waves).flatten(2)
    return F.pad(torch.cat([angles.sin(), angles.cos()], dim=2), [0, width - 6 * count])


def _volume(tokens: Tensor, grid: list[int]) -> Tensor:
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], grid[0], grid[1], grid[2])
