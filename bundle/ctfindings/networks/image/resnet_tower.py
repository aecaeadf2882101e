"""The inflated 3D ResNet-152 of Merlin and Astra as an image tower, built from MONAI's ``ResNet``."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from monai.networks.nets.resnet import ResNet, ResNetBottleneck
from torch import Tensor, nn


class ResNetTower(nn.Module):
    """Tokens of the third and fourth stage of a 3D ResNet, joined and reduced to one width by a linear map.

    The network is that of Merlin (https://arxiv.org/abs/2406.06512) and Astra (https://arxiv.org/abs/2605.31437). It
    reads the axes Z, X, Y; its third stage has a token for 16 x 16 x 8 voxels along X, Y, Z, the fourth for 32 x 32 x
    16. Its strided convolutions centre token i at voxel 16 i and not in the middle of a block of 16 voxels. Images
    therefore have a border of half a token on every side, which the network does not see: token i then lies in the
    middle of block i, as in the other towers. The last block along each axis repeats the token before it.

    The published network is frozen: it stays in evaluation mode and gets no gradient. The linear map is trained.

    Args:
        width: Width of the tokens after the linear map.
        blocks: Blocks of the four stages.
        channels: Channels inside the blocks of the four stages; a stage has four times as many outputs.
    """

    def __init__(
        self, width: int = 64, blocks: Sequence[int] = (3, 8, 36, 3), channels: Sequence[int] = (64, 128, 256, 512)
    ) -> None:
        super().__init__()
        self.width = width
        self.stride = (16, 16, 8)
        self.multiple = self.stride
        self.border = [8, 8, 4]
        self.network = ResNet(
            ResNetBottleneck,
            list(blocks),
            list(channels),
            spatial_dims=3,
            n_input_channels=3,
            conv1_t_size=(3, 7, 7),  # type: ignore[arg-type]
            conv1_t_stride=(1, 2, 2),  # type: ignore[arg-type]
            no_max_pool=False,
            feed_forward=False,
            bias_downsample=False,
        )
        self.network.requires_grad_(False).eval()
        self.loaded = False  # Whether the network has weights of a checkpoint; training cannot give it any.
        self.reduce = nn.Linear(4 * (channels[2] + channels[3]), width)

    def load_network(self, state: Mapping[str, Tensor]) -> None:
        """Loads all tensors of the network; RuntimeError if they do not fit."""
        self.network.load_state_dict(state)
        self.loaded = True

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        self.loaded = self.loaded or any(key.startswith(f"{prefix}network.") for key in state_dict)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def train(self, mode: bool = True) -> Self:
        """Switches the mode of all but the frozen network."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, image: Tensor) -> tuple[list[Tensor], list[list[int]]]:
        """Tokens of a batch of scans.

        Args:
            image: ``[B, 1, X, Y, Z]`` in [0, 1] with the border; extents are multiples of ``multiple``.

        Returns:
            One level of tokens ``[B, N, width]`` and its grid ``[gx, gy, gz]``.
        """
        third, fourth = self.features(image)
        return self.tokens(third, fourth)

    @torch.no_grad()
    def features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs of the third and fourth stage for images with the border; these are what a cache keeps.

        Returns:
            ``[B, C3, X / 16 - 1, Y / 16 - 1, Z / 8 - 1]``, and ``[B, C4, ...]`` on half of that grid, rounded up.
        """
        x, y, z = self.border
        inner = image[:, :, x : image.shape[2] - x, y : image.shape[3] - y, z : image.shape[4] - z]
        network = self.network
        cells = inner.permute(0, 1, 4, 2, 3).expand(-1, 3, -1, -1, -1)
        cells = network.maxpool(network.act(network.bn1(network.conv1(cells))))
        third = network.layer3(network.layer2(network.layer1(cells)))
        fourth = network.layer4(third)
        return third.permute(0, 1, 3, 4, 2), fourth.permute(0, 1, 3, 4, 2)

    def tokens(self, third: Tensor, fourth: Tensor) -> tuple[list[Tensor], list[list[int]]]:
        """Level and grid of ``forward`` from ``features``."""
        tokens, grid = joined_tokens(third, fourth)
        return [self.reduce(tokens)], [grid]


def joined_tokens(third: Tensor, fourth: Tensor) -> tuple[Tensor, list[int]]:
    """The tokens of both stages on the grid of the image, before the linear map.

    Token i of the third stage lies at index i / 2 of the fourth, which is interpolated there linearly.

    Args:
        third: ``[B, C3, x, y, z]``.
        fourth: ``[B, C4, ...]`` on half of that grid, rounded up.

    Returns:
        ``[B, N, C3 + C4]`` in C order, and the grid ``[x + 1, y + 1, z + 1]``.
    """
    spread = on_grid_of_third(fourth, third.shape[2:])
    grid = [third.shape[2] + 1, third.shape[3] + 1, third.shape[4] + 1]
    return as_tokens(torch.cat([third, spread.to(third.dtype)], dim=1)), grid


def as_tokens(cells: Tensor) -> Tensor:
    """Cells ``[B, C, x, y, z]`` as tokens ``[B, N, C]`` in C order; the last one along each axis is repeated."""
    return F.pad(cells, [0, 1, 0, 1, 0, 1], mode="replicate").flatten(2).transpose(1, 2)


def on_grid_of_third(fourth: Tensor, shape: Sequence[int]) -> Tensor:
    """The fourth stage ``[B, C, ...]`` at the tokens of the third, ``[B, C, *shape]``."""
    for axis, size in enumerate(shape, start=2):
        fourth = _doubled(fourth, axis, size)
    return fourth


def _doubled(cells: Tensor, axis: int, size: int) -> Tensor:
    """Linear interpolation of cells along an axis at the indices 0, 1/2, 1, ... of ``size`` points."""
    index = torch.arange(size, device=cells.device)
    last = cells.shape[axis] - 1
    below, above = (index // 2).clamp(max=last), ((index + 1) // 2).clamp(max=last)
    return (cells.index_select(axis, below) + cells.index_select(axis, above)) / 2
