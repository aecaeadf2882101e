"""RadFinder's image side: a window encoder, a combiner over the windows of a scan, and heads into the space of the
texts.

Ging et al., "Learning to Read Where to Look", MICCAI 2026, https://arxiv.org/abs/2603.02026, on the backbone SPECTRE.
Written from the published facts of the architecture; parameters carry the published names where a rename would say
nothing.

Shapes: W windows, d width of a token, E embedding, (Hp, Wp, Dp) windows of a scan, S depth positions of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from bundle.ctfindings.anatomy import ANATOMIES
from bundle.ctfindings.networks.image.image_encoder import ImageEmbedding
from bundle.ctfindings.published.radfinder.rotary import RotaryBlock, RotaryPosition


class WindowFeatures(NamedTuple):
    """What is kept of the windows of a scan; patch tokens are not.

    Attributes:
        cls: class tokens, ``[W, d]``.
        mean: means over the patch tokens, ``[W, d]``.
        depth: means over the patch tokens of each depth position, inferior to superior, ``[W, S, d]``.
    """

    cls: Tensor
    mean: Tensor
    depth: Tensor


class WindowEncoder(nn.Module):
    """A vision transformer over one window of a scan, with a class token and rotary positions.

    Args:
        window: voxels of a window along X, Y, Z.
        patch: voxels of a token along X, Y, Z.
        width: width of the tokens.
        depth: number of blocks.
        heads: attention heads.
        perceptron: width of the perceptron of a block.
        base: longest period of the rotary positions.
    """

    def __init__(
        self,
        window: Sequence[int] = (128, 128, 32),
        patch: Sequence[int] = (16, 16, 4),
        width: int = 1080,
        depth: int = 24,
        heads: int = 12,
        perceptron: int = 4320,
        base: float = 1000.0,
    ) -> None:
        super().__init__()
        if any(extent % edge for extent, edge in zip(window, patch, strict=True)):
            raise ValueError(
                f"window {tuple(window)} is not a multiple of patch {tuple(patch)} voxels along every axis"
            )
        self.window = (window[0], window[1], window[2])
        self.width = width
        self.grid = tuple(extent // edge for extent, edge in zip(window, patch, strict=True))
        # A row of evidence is a column of a window by a depth position.
        self.stride = (window[0], window[1], patch[2])
        self.multiple = self.window
        edges = (patch[0], patch[1], patch[2])
        self.embed = nn.Conv3d(1, width, kernel_size=edges, stride=edges)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.rope = RotaryPosition(width // heads, base)
        self.blocks = nn.ModuleList([RotaryBlock(width, heads, perceptron) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def tokens(self, windows: Tensor) -> Tensor:
        """``[W, 1, X, Y, Z]`` in [0, 1] to the class token and the patch tokens, depth fastest, ``[W, 1 + N, d]``."""
        patches = self.embed(windows).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        sine, cosine = self.rope(self.grid)
        for block in self.blocks:
            tokens = block(tokens, sine, cosine)
        normalized: Tensor = self.norm(tokens)
        return normalized

    def forward(self, windows: Tensor) -> WindowFeatures:
        """``[W, 1, X, Y, Z]`` in [0, 1] to what the combiner needs of them."""
        tokens = self.tokens(windows)
        patches = tokens[:, 1:].unflatten(1, self.grid)
        return WindowFeatures(tokens[:, 0], patches.mean(dim=(1, 2, 3)), patches.mean(dim=(1, 2)))


class ScanCombiner(nn.Module):
    """A transformer over the windows of a scan, or over the depth positions of all of them.

    Args:
        width: width of the tokens.
        depth: number of blocks.
        heads: attention heads.
        perceptron: width of the perceptron of a block.
        base: longest period of the rotary positions.
    """

    def __init__(
        self, width: int = 1080, depth: int = 4, heads: int = 12, perceptron: int = 4320, base: float = 100.0
    ) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.patch_proj = nn.Linear(2 * width, width)
        self.axis_patch_proj = nn.Linear(width, width)
        self.rope = RotaryPosition(width // heads, base)
        self.blocks = nn.ModuleList([RotaryBlock(width, heads, perceptron) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, tokens: Tensor, divisor: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Mixes projected tokens of scans of one grid.

        Args:
            tokens: ``[B, a, b, c, d]``.
            divisor: what the coordinates of the rotary positions are divided by, along the three axes.

        Returns:
            The class token ``[B, d]`` and the tokens ``[B, a, b, c, d]``.
        """
        grid = tuple(tokens.shape[1:4])
        mixed = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens.flatten(1, 3)], dim=1)
        sine, cosine = self.rope(grid, divisor)
        for block in self.blocks:
            mixed = block(mixed, sine, cosine)
        mixed = self.norm(mixed)
        return mixed[:, 0], mixed[:, 1:].unflatten(1, grid)


class ProjectionHead(nn.Module):
    """A perceptron of three layers and a linear map whose rows have a learned length; its result is not normalized.

    Args:
        features: width of the input.
        embedding: size E of the shared space.
        hidden: width of the perceptron.
        bottleneck: width before the last map.
    """

    def __init__(self, features: int, embedding: int = 512, hidden: int = 2048, bottleneck: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        last = nn.utils.parametrizations.weight_norm(nn.Linear(bottleneck, embedding, bias=False))
        # As published: the lengths of the rows are fixed.
        last.parametrizations.weight.original0.requires_grad_(False)
        self.last_layer = last

    def forward(self, features: Tensor) -> Tensor:
        """``[..., features]`` to ``[..., E]``."""
        projected: Tensor = self.last_layer(self.layers(features))
        return projected


class DepthEmbedding(NamedTuple):
    """Rows along the body axis, before normalization.

    Attributes:
        cls: class token of this pass of the combiner, ``[B, d]``.
        tokens: a token for each window column and depth position, ``[B, Hp, Wp, S Dp, d]``.
        mean: their mean over the columns, ``[B, S Dp, d]``.
        rows: ``[B, S Dp, E]``.
    """

    cls: Tensor
    tokens: Tensor
    mean: Tensor
    rows: Tensor


class RadFinderImageEncoder(nn.Module):
    """Scores a scan as RadFinder does: windows of the whole scan, a combiner over them, two heads.

    Args:
        tower: the window encoder.
        combiner: mixes what it says of the windows.
        embedding: size E of the shared space.
        hidden: width of the heads' perceptrons.
        bottleneck: width before the heads' last map.
        windows_at_once: windows in a pass of the encoder; more need more memory.
        progress: whether a bar counts the windows of a scan.
    """

    def __init__(
        self,
        tower: WindowEncoder,
        combiner: ScanCombiner,
        embedding: int = 512,
        hidden: int = 2048,
        bottleneck: int = 256,
        windows_at_once: int = 1,
        progress: bool = True,
    ) -> None:
        super().__init__()
        self.tower = tower
        self.combiner = combiner
        self.embedding = embedding
        self.multiple = tower.multiple
        self.depth_patch = tower.stride[2]
        self.windows_at_once = windows_at_once
        self.progress = progress
        self.retrieval_head = ProjectionHead(2 * tower.width, embedding, hidden, bottleneck)
        self.disease_head = ProjectionHead(2 * tower.width, embedding, hidden, bottleneck)

    def windows(self, image: Tensor) -> tuple[WindowFeatures, tuple[int, int, int]]:
        """Features of the windows of one scan ``[1, 1, X, Y, Z]``, the last axis fastest, and its grid of windows.

        Raises:
            ValueError: when an extent is not a multiple of the window.
        """
        edges = self.tower.window
        if any(size % edge for size, edge in zip(image.shape[2:], edges, strict=True)):
            raise ValueError(
                f"an image of {' x '.join(map(str, image.shape[2:]))} voxels is not whole windows of {edges} voxels"
            )
        x, y, z = (size // edge for size, edge in zip(image.shape[2:], edges, strict=True))
        blocks = image[0, 0].unflatten(2, (z, edges[2])).unflatten(1, (y, edges[1])).unflatten(0, (x, edges[0]))
        places = [(i, j, k) for i in range(x) for j in range(y) for k in range(z)]
        parts = []
        bar = tqdm(range(0, len(places), self.windows_at_once), desc="windows", disable=not self.progress, leave=False)
        for start in bar:
            chunk = places[start : start + self.windows_at_once]
            parts.append(self.tower(torch.stack([blocks[i, :, j, :, k, :] for i, j, k in chunk]).unsqueeze(1)))
        return WindowFeatures(*(torch.cat(feature) for feature in zip(*parts, strict=True))), (x, y, z)

    def global_features(self, cls: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """The global path: class token ``[B, d]`` and tokens ``[B, Hp, Wp, Dp, d]`` of the combiner over windows.

        Args:
            cls: class tokens of the windows, ``[B, Hp, Wp, Dp, d]``.
            mean: means over their patch tokens, ``[B, Hp, Wp, Dp, d]``.
        """
        mixed: tuple[Tensor, Tensor] = self.combiner(
            self.combiner.patch_proj(torch.cat([cls, mean], dim=-1)), cls.shape[1:4]
        )
        return mixed

    def pooled(self, cls: Tensor, tokens: Tensor) -> Tensor:
        """The input of both heads: class token, and mean over the windows, ``[B, 2 d]``."""
        return torch.cat([cls, tokens.mean(dim=(1, 2, 3))], dim=-1)

    def depth_features(self, depth: Tensor) -> DepthEmbedding:
        """The depth path: a row for each depth position of a scan.

        The rotary positions are divided by the grid of windows, so that those of depth run beyond 1.

        Args:
            depth: depth means of the windows, ``[B, Hp, Wp, Dp, S, d]``.
        """
        cls, tokens = self.combiner(self.combiner.axis_patch_proj(depth).flatten(3, 4), depth.shape[1:4])
        mean = tokens.mean(dim=(1, 2))
        rows = self.disease_head(torch.cat([cls.unsqueeze(1).expand(-1, mean.shape[1], -1), mean], dim=-1))
        return DepthEmbedding(cls, tokens, mean, rows)

    def encode_scan(self, image: Tensor, anatomy: Tensor | None = None, known: Tensor | None = None) -> ImageEmbedding:
        """Encodes one scan, window by window.

        RadFinder has one row for the whole scan: every anatomy gets it.

        Args:
            image: ``[1, 1, X, Y, Z]`` in [0, 1], whole windows.
            anatomy: ignored; RadFinder looks at the whole scan.
            known: ignored.
        """
        features, grid = self.windows(image)
        cls, mean, depth = (feature.unflatten(0, grid).unsqueeze(0) for feature in features)
        disease = F.normalize(self.disease_head(self.pooled(*self.global_features(cls, mean))), dim=-1)
        along = self.depth_features(depth)
        # The row of a window column at a depth: as that of the depth, with the column's own token instead of the mean.
        own = torch.cat([along.cls[:, None, None, None].expand_as(along.tokens), along.tokens], dim=-1)
        field = F.normalize(self.disease_head(own), dim=-1).flatten(1, 3)
        members = torch.ones(1, field.shape[1], len(ANATOMIES), dtype=torch.bool, device=image.device)
        return ImageEmbedding(
            anatomy=disease.unsqueeze(1).expand(-1, len(ANATOMIES), -1),
            anatomy_valid=members[:, 0],
            depth=F.normalize(along.rows, dim=-1),
            pathology=field.new_zeros(1, 0, field.shape[2]),
            field=field,
            membership=members,
            anatomy_logits=torch.zeros(members.shape, device=image.device),
            grid=[int(size) for size in along.tokens.shape[1:4]],
        )

    def forward(
        self, image: Tensor, membership: Tensor | None = None, membership_known: Tensor | None = None
    ) -> ImageEmbedding:
        """As ``encode_scan``; one scan at a time."""
        return self.encode_scan(image)
