"""Image towers: a chest CT becomes tokens at several levels on known grids, behind one interface."""

from collections.abc import Sequence

import torch
from monai.networks.blocks import ResidualUnit, TransformerBlock
from torch import Tensor, nn

from bundle.ctfindings.networks.image.hounsfield_windows import CHEST_WINDOWS, HounsfieldWindows
from bundle.ctfindings.networks.image.token_statistics import TokenStatistics

GROUPS = 8
"""Groups of channels that are normalised together. A norm of single channels would lose how much of a chest is air."""

STATISTICS_HIDDEN = 256
"""Width of the perceptron on the token statistics."""


class ConvolutionalTower(nn.Module):
    """A small tower for CPUs: a patch stem, residual convolutions on two grids, attention on the coarsest.

    The stem halves the grid until a token has ``patch`` voxels. Residual units before the last halving see the shapes
    that tell a nodule from a vessel. Every level is fused back into the finest grid, which gives its tokens context,
    and is added to the statistics of each token (``TokenStatistics``) with a gain that starts at zero: the statistics
    learn in minutes from large batches of tokens (``TokenWarmStart``), and the convolutions learn the rest.

    Args:
        hu_window: HU range that the pipeline maps to [0, 1].
        windows: HU ranges that become input channels, see ``HounsfieldWindows``.
        patch: Edge of a token of the finest level in voxels, a power of two.
        channels: Widths of the stem and of the fine, middle and coarse level; multiples of ``GROUPS`` but the last.
        blocks: Residual units after each halving of the stem but the last, and of the fine and middle level;
            transformer blocks of the coarse level.
        width: Width of the tokens of all levels.
        heads: Attention heads of the coarse level.

    Raises:
        ValueError: ``patch`` is not a power of two from 2 on, or there are not four ``channels`` and ``blocks``.
    """

    def __init__(
        self,
        hu_window: Sequence[float] = (-1000, 1000),
        windows: Sequence[Sequence[float]] = CHEST_WINDOWS,
        patch: int = 4,
        channels: Sequence[int] = (16, 48, 64, 128),
        blocks: Sequence[int] = (1, 1, 2, 2),
        width: int = 64,
        heads: int = 4,
    ) -> None:
        super().__init__()
        if patch < 2 or patch & (patch - 1):
            raise ValueError(f"patch: expected a power of two from 2 on, got {patch}")
        if len(channels) != 4 or len(blocks) != 4:
            raise ValueError(
                f"expected four channels and blocks (stem, fine, middle, coarse), got {channels} and {blocks}"
            )
        hidden, fine, middle, coarse = channels
        in_stem, in_fine, in_middle, in_coarse = blocks
        self.width = width
        self.stride = (patch, patch, patch)
        self.multiple = (4 * patch, 4 * patch, 4 * patch)
        self.windows = HounsfieldWindows(hu_window, windows)
        self.statistics = TokenStatistics(self.windows, hu_window, patch, STATISTICS_HIDDEN, width)
        self.stem = _stem(len(windows), hidden, fine, patch, in_stem)
        self.fine = nn.Sequential(*[_residual(fine) for _ in range(in_fine)])
        self.to_middle = nn.Conv3d(fine, middle, kernel_size=2, stride=2)
        self.middle = nn.Sequential(*[_residual(middle) for _ in range(in_middle)])
        self.to_coarse = nn.Conv3d(middle, coarse, kernel_size=2, stride=2)
        self.coarse = nn.ModuleList(
            [TransformerBlock(coarse, 2 * coarse, heads, use_flash_attention=True) for _ in range(in_coarse)]
        )
        self.position = nn.Linear(3, coarse)
        # Each level is normalised before it is added; otherwise the large features of the context drown the fine ones.
        self.project_fine = nn.Sequential(nn.LayerNorm(fine), nn.Linear(fine, width))
        self.project_middle = nn.Sequential(nn.LayerNorm(middle), nn.Linear(middle, width))
        self.project_coarse = nn.Sequential(nn.LayerNorm(coarse), nn.Linear(coarse, width))
        self.context_gain = nn.Parameter(torch.zeros(width))
        self.fuse = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())

    def forward(self, image: Tensor) -> tuple[list[Tensor], list[list[int]]]:
        """Tokens of a batch of scans.

        Args:
            image: ``[B, 1, X, Y, Z]`` in [0, 1]; extents are multiples of ``multiple``.

        Returns:
            Levels of tokens ``[B, N_l, width]``, finest first, and the grid ``[gx, gy, gz]`` of each.
        """
        ramps = self.windows(image)
        fine = self.fine(self.stem(ramps))
        middle = self.middle(self.to_middle(fine))
        coarse = self.to_coarse(middle)
        grids = [_grid(fine), _grid(middle), _grid(coarse)]
        context = coarse.flatten(2).transpose(1, 2) + self.position(_positions(grids[2], coarse))
        for block in self.coarse:
            context = block(context)
        tokens_coarse = self.project_coarse(context)
        tokens_middle = self.project_middle(middle.flatten(2).transpose(1, 2)) + _upsample(tokens_coarse, grids[2])
        learned = self.project_fine(fine.flatten(2).transpose(1, 2)) + _upsample(tokens_middle, grids[1])
        tokens_fine = self.statistics(self.statistics.features(image, ramps)) + self.context_gain * learned
        return [tokens_fine + self.fuse(tokens_fine), tokens_middle, tokens_coarse], grids

    def token_features(self, image: Tensor) -> Tensor:
        """Statistics of the finest tokens, ``[B, 1, X, Y, Z]`` to ``[B, N, F]``; no weight changes them."""
        return self.statistics.features(image, self.windows(image))

    def tokens_of_features(self, features: Tensor) -> Tensor:
        """Tokens of the finest level from their statistics alone, ``[B, N, F]`` to ``[B, N, width]``."""
        tokens: Tensor = self.statistics(features)
        return tokens + self.fuse(tokens)


def _stem(windows: int, hidden: int, fine: int, patch: int, blocks: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = windows
    while patch > 2:
        halving = nn.Conv3d(width, hidden, kernel_size=2, stride=2)
        layers += [halving, nn.GELU(), *[_residual(hidden) for _ in range(blocks)]]
        width, patch = hidden, patch // 2
    layers.append(nn.Conv3d(width, fine, kernel_size=2, stride=2))
    return nn.Sequential(*layers).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


def _residual(channels: int) -> ResidualUnit:
    norm = ("GROUP", {"num_groups": GROUPS})
    return ResidualUnit(3, channels, channels, strides=1, subunits=1, norm=norm, act=("GELU", {}), bias=False)


def _grid(features: Tensor) -> list[int]:
    return [features.shape[2], features.shape[3], features.shape[4]]


def _positions(grid: list[int], like: Tensor) -> Tensor:
    """Centres of the cells of a grid in [-1, 1], ``[1, N, 3]``."""
    axes = [(torch.arange(n, device=like.device, dtype=like.dtype) + 0.5) * (2.0 / n) - 1.0 for n in grid]
    x, y, z = torch.meshgrid(axes[0], axes[1], axes[2], indexing="ij")
    return torch.stack([x.flatten(), y.flatten(), z.flatten()], dim=1).unsqueeze(0)


def _upsample(tokens: Tensor, grid: list[int]) -> Tensor:
    """Repeats every token of a grid over its 2 x 2 x 2 children, ``[B, N, d]`` to ``[B, 8 N, d]``."""
    batch, _, width = tokens.shape
    cells = tokens.view(batch, grid[0], 1, grid[1], 1, grid[2], 1, width)
    return cells.expand(batch, grid[0], 2, grid[1], 2, grid[2], 2, width).reshape(batch, -1, width)
