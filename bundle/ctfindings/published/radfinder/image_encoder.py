"""RadFinder's image encoder: a window encoder, a combiner over the windows of a scan, and heads into the text space.

Ging et al., "Learning to Read Where to Look", MICCAI 2026, https://arxiv.org/abs/2603.02026, on the backbone SPECTRE.
Written from the published facts of the architecture.

Shapes: B batch, W windows, (Hp, Wp, Dp) windows of a scan, S depths of a window, d width of a token, E embedding.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from bundle.ctfindings.anatomy import ANATOMIES
from bundle.ctfindings.files.progress import progress_bar
from bundle.ctfindings.networks.image.image_encoder import ImageEmbedding, no_observations
from bundle.ctfindings.published.radfinder.rotary_transformer import RotaryTransformer


class WindowFeatures(NamedTuple):
    """Class tokens ``[W, d]`` of windows, and means of their patch tokens: of all, and by depth ``[W, S, d]``."""

    cls: Tensor
    mean: Tensor
    depth: Tensor


class WindowEncoder(RotaryTransformer):
    """A vision transformer over one window of a scan.

    Args:
        window: Voxels of a window along X, Y, Z, a multiple of ``patch``.
        patch: Voxels of a token along X, Y, Z.
    """

    def __init__(
        self,
        window: Sequence[int] = (128, 128, 32),
        patch: Sequence[int] = (16, 16, 4),
        width: int = 1080,
        depth: int = 24,
        heads: int = 12,
        perceptron: int = 4320,
    ) -> None:
        super().__init__(width, depth, heads, perceptron, base=1000.0)
        self.multiple = (window[0], window[1], window[2])
        self.grid = tuple(extent // edge for extent, edge in zip(window, patch, strict=True))
        # A row of evidence is a window column at a depth position.
        self.stride = (window[0], window[1], patch[2])
        edges = (patch[0], patch[1], patch[2])
        self.embed = nn.Conv3d(1, width, kernel_size=edges, stride=edges)

    def tokens(self, windows: Tensor) -> Tensor:
        """Class and patch tokens ``[W, 1 + N, d]``, depth fastest, of windows ``[W, 1, X, Y, Z]`` in [0, 1]."""
        return self.mix(self.embed(windows).flatten(2).transpose(1, 2), self.grid)

    def forward(self, windows: Tensor) -> WindowFeatures:
        """Features of windows ``[W, 1, X, Y, Z]`` in [0, 1]."""
        tokens = self.tokens(windows)
        patches = tokens[:, 1:].unflatten(1, self.grid)
        return WindowFeatures(tokens[:, 0], patches.mean(dim=(1, 2, 3)), patches.mean(dim=(1, 2)))


class ScanCombiner(RotaryTransformer):
    """A transformer over the windows of a scan, or over the depth positions of all of its windows."""

    def __init__(self, width: int = 1080, depth: int = 4, heads: int = 12, perceptron: int = 4320) -> None:
        super().__init__(width, depth, heads, perceptron, base=100.0)
        self.patch_proj = nn.Linear(2 * width, width)
        self.axis_patch_proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, divisor: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Class token ``[B, d]`` and mixed tokens ``[B, a, b, c, d]`` of projected ones; ``divisor`` as in ``mix``."""
        grid = tuple(tokens.shape[1:4])
        mixed = self.mix(tokens.flatten(1, 3), grid, divisor)
        return mixed[:, 0], mixed[:, 1:].unflatten(1, grid)


class ProjectionHead(nn.Module):
    """A perceptron of three layers and a linear map with weight norm; the output is not normalized."""

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
        """Projects ``[..., features]`` to ``[..., E]``."""
        return cast(Tensor, self.last_layer(self.layers(features)))


class DepthEmbedding(NamedTuple):
    """Rows ``[B, S Dp, E]`` along the body axis, not normalized, from these features of the combiner.

    Attributes:
        cls: Class token, ``[B, d]``.
        tokens: A token for each window column and depth position, ``[B, Hp, Wp, S Dp, d]``.
        mean: Their mean over the columns, ``[B, S Dp, d]``.
    """

    cls: Tensor
    tokens: Tensor
    mean: Tensor
    rows: Tensor


class RadFinderImageEncoder(nn.Module):
    """Encodes a scan like RadFinder: windows over the whole scan, a combiner, two heads of type ``ProjectionHead``.

    ``windows_at_once`` is the number of windows per pass of the tower; more need more memory.
    """

    def __init__(
        self,
        tower: WindowEncoder,
        combiner: ScanCombiner,
        embedding: int = 512,
        hidden: int = 2048,
        bottleneck: int = 256,
        windows_at_once: int = 1,
    ) -> None:
        super().__init__()
        self.tower, self.combiner, self.embedding = tower, combiner, embedding
        self.multiple = tower.multiple
        self.depth_patch = tower.stride[2]
        self.windows_at_once = windows_at_once
        self.retrieval_head = ProjectionHead(2 * tower.width, embedding, hidden, bottleneck)
        self.disease_head = ProjectionHead(2 * tower.width, embedding, hidden, bottleneck)

    def windows(self, image: Tensor) -> tuple[WindowFeatures, tuple[int, int, int]]:
        """Features of the windows of one scan ``[1, 1, X, Y, Z]``, the last axis fastest, and the grid of windows.

        Raises ``ValueError`` if an extent is not a multiple of the window.
        """
        edges, sizes = self.multiple, image.shape[2:]
        if any(size % edge for size, edge in zip(sizes, edges, strict=True)):
            raise ValueError(
                f"expected a scan of whole windows of {' x '.join(map(str, edges))} voxels, "
                f"found {' x '.join(map(str, sizes))} voxels"
            )
        blocks = image[0, 0]
        for axis, edge in enumerate(edges):
            blocks = blocks.unfold(axis, edge, edge)
        grid = (blocks.shape[0], blocks.shape[1], blocks.shape[2])
        places = list(np.ndindex(*grid))
        parts = []
        for start in progress_bar(range(0, len(places), self.windows_at_once), "windows", leave=False):
            chunk = [blocks[place] for place in places[start : start + self.windows_at_once]]
            parts.append(self.tower(torch.stack(chunk).unsqueeze(1)))
        return WindowFeatures(*(torch.cat(feature) for feature in zip(*parts, strict=True))), grid

    def global_features(self, cls: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Class token ``[B, d]`` and tokens ``[B, Hp, Wp, Dp, d]`` of the combiner over windows.

        Its inputs, ``[B, Hp, Wp, Dp, d]``, are class tokens of the windows and means of their patch tokens.
        """
        projected = self.combiner.patch_proj(torch.cat([cls, mean], dim=-1))
        return cast(tuple[Tensor, Tensor], self.combiner(projected, cls.shape[1:4]))

    def pooled(self, cls: Tensor, tokens: Tensor) -> Tensor:
        """Input of both heads: class token and mean over the windows, ``[B, 2 d]``."""
        return torch.cat([cls, tokens.mean(dim=(1, 2, 3))], dim=-1)

    def depth_features(self, depth: Tensor) -> DepthEmbedding:
        """A row for each depth position of a scan, from the depth means of its windows ``[B, Hp, Wp, Dp, S, d]``.

        The rotary positions are divided by the grid of windows, so those of depth exceed 1.
        """
        cls, tokens = self.combiner(self.combiner.axis_patch_proj(depth).flatten(3, 4), depth.shape[1:4])
        mean = tokens.mean(dim=(1, 2))
        rows = self.disease_head(torch.cat([cls.unsqueeze(1).expand(-1, mean.shape[1], -1), mean], dim=-1))
        return DepthEmbedding(cls, tokens, mean, rows)

    def encode_scan(
        self, image: Tensor, anatomy: Tensor | None = None, known: Tensor | None = None, body: Tensor | None = None
    ) -> ImageEmbedding:
        """Encodes one scan ``[1, 1, X, Y, Z]`` in [0, 1] of whole windows; masks are ignored.

        RadFinder has one row for the whole scan, which every anatomy gets.
        """
        features, grid = self.windows(image)
        cls, mean, depth = (feature.unflatten(0, grid).unsqueeze(0) for feature in features)
        disease = F.normalize(self.disease_head(self.pooled(*self.global_features(cls, mean))), dim=-1)
        along = self.depth_features(depth)
        # A window column at a depth: like the row of the depth, with the column's own token instead of the mean.
        own = torch.cat([along.cls[:, None, None, None].expand_as(along.tokens), along.tokens], dim=-1)
        field = F.normalize(self.disease_head(own), dim=-1).flatten(1, 3)
        members = torch.ones(1, field.shape[1], len(ANATOMIES), dtype=torch.bool, device=image.device)
        anatomy = disease.unsqueeze(1).expand(-1, len(ANATOMIES), -1)
        return ImageEmbedding(
            anatomy=anatomy,
            anatomy_valid=members[:, 0],
            depth=F.normalize(along.rows, dim=-1),
            field=field,
            membership=members,
            anatomy_logits=torch.zeros(members.shape, device=image.device),
            grid=[int(size) for size in along.tokens.shape[1:4]],
            **no_observations(anatomy, field.shape[1]),
        )

    def forward(self, image: Tensor) -> ImageEmbedding:
        """Same as ``encode_scan``; one scan at a time."""
        return self.encode_scan(image)


def radfinder_image_encoder(windows_at_once: int = 1) -> RadFinderImageEncoder:
    """RadFinder's image encoder without weights; ``windows_at_once`` as for ``RadFinderImageEncoder``."""
    with no_init_weights():
        return RadFinderImageEncoder(WindowEncoder(), ScanCombiner(), windows_at_once=windows_at_once)
