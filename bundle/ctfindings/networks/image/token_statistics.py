"""Token statistics at several scales, without learned weights: tissue, brightest, darkest and roundest spots."""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.ctfindings.networks.image.hounsfield_windows import HounsfieldWindows
from bundle.ctfindings.networks.image.standardization import RunningStandardization

LIMIT = 20.0
"""Features are clipped to this many standard deviations: most tokens have no calcium, so one that has is far away."""

CONTRAST_WINDOWS = ((-1000.0, 200.0), (-150.0, 150.0), (100.0, 1000.0))
"""HU ranges in which round spots are measured: in lung, in fat among vessels and nodes, and in bone and calcium."""


class TokenStatistics(nn.Module):
    """Features of each token that a convolution learns late, and a perceptron on them.

    A calcification is a bright voxel; a nodule stays bright when the scan is blurred, a vessel does not (scale space,
    Lindeberg, https://doi.org/10.1023/A:1008045108935). The features are, in every HU window: the maximum and minimum
    over the token of the scan averaged over boxes of 1, 2, 3 and 6 voxels; and the mean over the token and over its
    3 x 3 x 3 neighbourhood. In ``CONTRAST_WINDOWS``: the highest bright and dark ``roundness`` at distances of 2 to 4
    voxels, and of 1 in the lung. All are standardised over the training tokens.

    Args:
        windows: HU windows of the tower.
        hu_window: HU range that the pipeline maps to [0, 1].
        patch: Edge of a token in voxels, a multiple of 2.
        hidden: Width of the perceptron.
        width: Width of the tokens.
    """

    def __init__(
        self, windows: HounsfieldWindows, hu_window: Sequence[float], patch: int, hidden: int, width: int
    ) -> None:
        super().__init__()
        self.windows = windows
        self.contrast = HounsfieldWindows(hu_window, CONTRAST_WINDOWS)
        self.patch = patch
        # One of each pair of opposite directions to the 26 neighbours of a voxel.
        self.directions = [list(step) for step in itertools.product((-1, 0, 1), repeat=3) if step > (0, 0, 0)]
        features = 10 * windows.gain.shape[0] + 2 * (1 + 3 * len(CONTRAST_WINDOWS))
        # No weight changes the features, so every batch counts alike.
        self.standardize = RunningStandardization(1, features, momentum=0.0, limit=LIMIT)
        self.perceptron = nn.Sequential(nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, features: Tensor) -> Tensor:
        """Features ``[B, N, F]`` to tokens ``[B, N, width]``."""
        tokens = features.reshape(-1, 1, features.shape[2])
        standard = self.standardize(tokens, torch.ones(tokens.shape[0], 1, dtype=torch.bool, device=features.device))
        return self.perceptron(standard.reshape(features.shape))

    def features(self, image: Tensor, ramps: Tensor) -> Tensor:
        """The features before standardisation.

        Args:
            image: ``[B, 1, X, Y, Z]`` in [0, 1], extents multiples of ``patch`` and at least three times it.
            ramps: ``windows(image)``, ``[B, W, X, Y, Z]``.

        Returns:
            ``[B, N, F]``, tokens in C order of the grid, F = 10 W + 20.
        """
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
            tissue = self.contrast(image).contiguous()
            coarse = F.avg_pool3d(tissue, 2)
            for scan, distance, patch in (
                (tissue[:, :1], 1, self.patch),
                (coarse, 1, self.patch // 2),
                (coarse, 2, self.patch // 2),
                (_box_mean(coarse), 2, self.patch // 2),
            ):
                for signed in (scan, -scan):
                    found.append(F.max_pool3d(roundness(signed, distance, self.directions), patch))
            return torch.cat(found, dim=1).flatten(2).transpose(1, 2)


def roundness(scan: Tensor, distance: int, directions: list[list[int]]) -> Tensor:
    """Contrast of each voxel with the mean of its two neighbours, in the direction where it is lowest.

    High inside a blob; near 0 in a vessel, which is as bright along its course, and in a fissure. It is the smallest
    curvature of the Hessian (Frangi et al., https://doi.org/10.1007/BFb0056195) as a finite difference.

    Args:
        scan: ``[B, C, X, Y, Z]``; the border is replicated.
        distance: Distance of the neighbours in voxels.
        directions: Steps along X, Y, Z, one for each line through a voxel.

    Returns:
        ``[B, C, X, Y, Z]``; negative where the neighbours in some direction are brighter.
    """
    x, y, z = scan.shape[2], scan.shape[3], scan.shape[4]
    padded = F.pad(scan, [distance] * 6, mode="replicate")
    brightest = torch.full_like(scan, -float("inf"))
    for step in directions:
        i, j, k = step[0] * distance, step[1] * distance, step[2] * distance
        ahead = padded[
            :, :, distance + i : distance + i + x, distance + j : distance + j + y, distance + k : distance + k + z
        ]
        behind = padded[
            :, :, distance - i : distance - i + x, distance - j : distance - j + y, distance - k : distance - k + z
        ]
        brightest = torch.maximum(brightest, ahead + behind)
    return scan - brightest / 2


def _box_mean(volume: Tensor) -> Tensor:
    """Mean over 3 x 3 x 3 cells; at the border over those that exist."""
    return F.avg_pool3d(volume, 3, 1, 1, False, False)


def _mean_over_tokens(ramps: Tensor, patch: int) -> Tensor:
    """``[B, W, X, Y, Z]`` to ``[B, W, gx, gy, gz]``, axis by axis: four times as fast as ``avg_pool3d`` on a CPU."""
    cells = ramps.permute(0, 2, 3, 4, 1).unflatten(3, (-1, patch)).mean(4)
    cells = cells.unflatten(2, (-1, patch)).mean(3)
    return cells.unflatten(1, (-1, patch)).mean(2).permute(0, 4, 1, 2, 3)
