"""What a token holds at several scales, without anything learned: a histogram of its tissue, and its brightest and darkest spots."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.ctfindings.networks.hounsfield_windows import HounsfieldWindows
from bundle.ctfindings.networks.standardization import RunningStandardization

LIMIT = 20.0
"""Standard deviations to which a feature is clipped: most tokens have no calcium at all, so one that has is far from the mean."""


class TokenStatistics(nn.Module):
    """Features of each token that a convolution learns late: the extremes over the token of the scan at several scales.

    A calcification is a bright voxel; a nodule stays bright when the scan is blurred, the vessel beside it does not (a scale space, as
    in Lindeberg, https://doi.org/10.1023/A:1008045108935). So the scan is averaged over boxes of 1, 2, 3 and 6 voxels, and the largest
    and the smallest value of each inside the token are spread over the HU windows. Beside them stand the mean of each window over the
    token and over its 3 x 3 x 3 neighbourhood. All are standardised over the tokens seen in training, and pass a small perceptron.

    Args:
        windows: the HU windows of the tower.
        patch: edge of a token in voxels, even.
        width: width of the tokens that come out.
    """

    def __init__(self, windows: HounsfieldWindows, patch: int, width: int) -> None:
        super().__init__()
        self.windows = windows
        self.patch = patch
        features = 10 * windows.gain.shape[0]
        self.standardize = RunningStandardization(1, features, limit=LIMIT)
        self.perceptron = nn.Sequential(nn.Linear(features, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, image: Tensor, ramps: Tensor) -> Tensor:
        """
        Args:
            image: ``[B, 1, X, Y, Z]`` in [0, 1], extents multiples of ``patch`` and at least three times it.
            ramps: ``windows(image)``, ``[B, W, X, Y, Z]``.

        Returns:
            ``[B, N, width]``, tokens in C order of the grid.
        """
        features = self.features(image, ramps)
        tokens = features.reshape(-1, 1, features.shape[2])
        standard = self.standardize(tokens, torch.ones(tokens.shape[0], 1, dtype=torch.bool, device=image.device))
        output: Tensor = self.perceptron(standard.reshape(features.shape))
        return output

    def features(self, image: Tensor, ramps: Tensor) -> Tensor:
        """The statistics before they are standardised, ``[B, N, 10 W]``; arguments as in ``forward``."""
        with torch.no_grad():
            mean = _mean_over_tokens(ramps, self.patch)
            found = [mean, _box_mean(mean)]
            halved = F.avg_pool3d(image, 2)
            for scan, patch in (
                (image, self.patch),
                (halved, self.patch // 2),
                (_box_mean(image), self.patch),
                (_box_mean(halved), self.patch // 2),
            ):
                found.append(self.windows(F.max_pool3d(scan, patch)))
                found.append(self.windows(-F.max_pool3d(-scan, patch)))
            return torch.cat(found, dim=1).flatten(2).transpose(1, 2)


def _box_mean(volume: Tensor) -> Tensor:
    """Mean over 3 x 3 x 3 cells; at the border over those that exist."""
    return F.avg_pool3d(volume, 3, 1, 1, False, False)


def _mean_over_tokens(ramps: Tensor, patch: int) -> Tensor:
    """``[B, W, X, Y, Z]`` to ``[B, W, gx, gy, gz]``. One axis after the other over channels that are last in memory: four times as fast as
    ``avg_pool3d`` on a CPU."""
    cells = ramps.permute(0, 2, 3, 4, 1).unflatten(3, (-1, patch)).mean(4)
    cells = cells.unflatten(2, (-1, patch)).mean(3)
    return cells.unflatten(1, (-1, patch)).mean(2).permute(0, 4, 1, 2, 3)
