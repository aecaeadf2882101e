"""From the token levels of a tower to a mask: a convolutional decoder of MONAI's UNETR blocks."""

from collections.abc import Sequence
from itertools import pairwise

from monai.networks.blocks import UnetResBlock, UnetrUpBlock
from torch import Tensor, nn

GROUPS = 8
"""Groups of channels that are normalised together, and the least number of channels."""


class SegmentationDecoder(nn.Module):
    """Fuses the levels of a tower from the coarsest to the finest, then doubles the grid until it is of single voxels.

    It sees no image, so a mask can only show what the tokens hold. UNETR (https://arxiv.org/abs/2103.10504) has the
    same blocks. A tower with one level has no fusion.

    Args:
        width: Width of the tokens.
        strides: Voxels of a token along X, Y, Z of each level, finest first; each is a multiple of the one before.
        classes: Number of masks C.
        channels: Channels of the token levels; halved at each step towards the voxels.
    """

    def __init__(self, width: int, strides: Sequence[Sequence[int]], classes: int, channels: int = 32) -> None:
        super().__init__()
        norm = ("group", {"num_groups": GROUPS})
        self.normalize = nn.ModuleList([nn.LayerNorm(width) for _ in strides])
        self.project = nn.ModuleList([nn.Linear(width, channels) for _ in strides])
        ratios = [[int(b) // int(a) for a, b in zip(fine, coarse, strict=True)] for fine, coarse in pairwise(strides)]
        self.fuse = nn.ModuleList(
            [UnetrUpBlock(3, channels, channels, 3, ratio, norm, res_block=True) for ratio in ratios]
        )
        *steps, last = _steps(strides[0]) or [(1, 1, 1)]
        refine: list[nn.Module] = []
        for step in steps:
            wide, channels = channels, max(channels // 2, GROUPS)
            refine.append(nn.ConvTranspose3d(wide, channels, kernel_size=step, stride=step))
            refine.append(UnetResBlock(3, channels, channels, kernel_size=3, stride=1, norm_name=norm))
        self.refine = nn.Sequential(*refine)
        # Convolutions on the grid of the voxels would take most of the time.
        self.head = nn.ConvTranspose3d(channels, classes, kernel_size=last, stride=last)
        nn.init.constant_(self.head.bias, -4.0)  # type: ignore[arg-type]  # Most voxels belong to no class.

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Logits ``[B, C, X, Y, Z]`` from levels ``[B, d, gx, gy, gz]``, finest first."""
        maps = [
            project(normalize(level.movedim(1, -1))).movedim(-1, 1)
            for level, normalize, project in zip(levels, self.normalize, self.project, strict=True)
        ]
        fused = maps[-1]
        for level in range(len(maps) - 2, -1, -1):
            fused = self.fuse[level](fused, maps[level])
        return self.head(self.refine(fused))


def token_volumes(levels: Sequence[Tensor], grids: Sequence[Sequence[int]]) -> list[Tensor]:
    """Levels of a tower, ``[B, N, d]`` each, as volumes ``[B, d, gx, gy, gz]``."""
    return [level.transpose(1, 2).unflatten(2, list(grid)) for level, grid in zip(levels, grids, strict=True)]


def _steps(stride: Sequence[int]) -> list[tuple[int, int, int]]:
    """Factors of each step from the tokens to the voxels: the smallest prime factor that remains along each axis."""
    rest = [int(size) for size in stride]
    steps: list[tuple[int, int, int]] = []
    while max(rest) > 1:
        x, y, z = (next((f for f in range(2, size + 1) if size % f == 0), 1) for size in rest)
        steps.append((x, y, z))
        rest = [size // factor for size, factor in zip(rest, (x, y, z), strict=True)]
    return steps
