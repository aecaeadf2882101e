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
            halved = _halved(image)
            for scan, patch in (
                (image, self.patch),
                (halved, self.patch // 2),
                (_box_mean(image), self.patch),
                (_box_mean(halved), self.patch // 2),
            ):
                found.append(self.windows(_highest(scan, patch)))
                found.append(self.windows(_lowest(scan, patch)))
            tissue = self.contrast(image).contiguous()
            coarse = _halved(tissue)
            for scan, distance, patch in (
                (tissue[:, :1], 1, self.patch),
                (coarse, 1, self.patch // 2),
                (coarse, 2, self.patch // 2),
                (_box_mean(coarse), 2, self.patch // 2),
            ):
                for contrast in roundness(scan, distance, self.directions):
                    found.append(_highest(contrast, patch))
            return torch.cat(found, dim=1).flatten(2).transpose(1, 2)


def roundness(scan: Tensor, distance: int, directions: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Contrast of each voxel with the mean of its two neighbours, in the direction where it is lowest.

    High inside a blob; near 0 in a vessel, which is as bright along its course, and in a fissure. It is the smallest
    curvature of the Hessian (Frangi et al., https://doi.org/10.1007/BFb0056195) as a finite difference. Without
    gradient.

    Args:
        scan: ``[B, C, X, Y, Z]``; the border is replicated.
        distance: Distance of the neighbours in voxels.
        directions: Steps along X, Y, Z, one for each line through a voxel.

    Returns:
        That of bright and that of dark blobs, ``[B, C, X, Y, Z]``; the first is negative where the neighbours in some
        direction are brighter, the second where they are darker.
    """
    x, y, z = scan.shape[2], scan.shape[3], scan.shape[4]
    padded = F.pad(scan, [distance] * 6, mode="replicate")
    # In place, because these passes over the scan are bound by memory.
    both = torch.empty_like(scan)
    brightest, darkest = torch.full_like(scan, -float("inf")), torch.full_like(scan, float("inf"))
    for step in directions:
        i, j, k = step[0] * distance, step[1] * distance, step[2] * distance
        ahead = padded[
            :, :, distance + i : distance + i + x, distance + j : distance + j + y, distance + k : distance + k + z
        ]
        behind = padded[
            :, :, distance - i : distance - i + x, distance - j : distance - j + y, distance - k : distance - k + z
        ]
        torch.add(ahead, behind, out=both)
        torch.maximum(brightest, both, out=brightest)
        torch.minimum(darkest, both, out=darkest)
    return brightest.div_(-2).add_(scan), darkest.div_(2).sub_(scan)


# Axis by axis, these take a quarter of the time of PyTorch's pooling on a CPU, or less.


def _box_mean(volume: Tensor) -> Tensor:
    """Mean over 3 x 3 x 3 cells; at the border over those that exist."""
    for axis in (2, 3, 4):
        size = volume.shape[axis]
        total = volume.clone()
        total.narrow(axis, 1, size - 1).add_(volume.narrow(axis, 0, size - 1))
        total.narrow(axis, 0, size - 1).add_(volume.narrow(axis, 1, size - 1))
        for end in (0, size - 1):
            total.narrow(axis, end, 1).mul_(3 / 2)
        volume = total
    return volume.div_(27)


def _halved(volume: Tensor) -> Tensor:
    """Mean over 2 x 2 x 2 voxels."""
    for axis in (2, 3, 4):
        pair = volume.unflatten(axis, (-1, 2))
        volume = pair.select(axis + 1, 0) + pair.select(axis + 1, 1)
    return volume.div_(8)


def _highest(volume: Tensor, patch: int) -> Tensor:
    """Maximum over each token, ``[B, C, X, Y, Z]`` to ``[B, C, gx, gy, gz]``."""
    for axis in (2, 3, 4):
        volume = volume.unflatten(axis, (-1, patch)).amax(axis + 1)
    return volume


def _lowest(volume: Tensor, patch: int) -> Tensor:
    for axis in (2, 3, 4):
        volume = volume.unflatten(axis, (-1, patch)).amin(axis + 1)
    return volume


def _mean_over_tokens(ramps: Tensor, patch: int) -> Tensor:
    """``[B, W, X, Y, Z]`` to ``[B, W, gx, gy, gz]``."""
    cells = ramps.permute(0, 2, 3, 4, 1).unflatten(3, (-1, patch)).mean(4)
    cells = cells.unflatten(2, (-1, patch)).mean(3)
    return cells.unflatten(1, (-1, patch)).mean(2).permute(0, 4, 1, 2, 3)
