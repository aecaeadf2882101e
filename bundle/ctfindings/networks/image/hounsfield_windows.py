"""HU windows as input channels."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

CHEST_WINDOWS = (
    (-1000.0, -900.0),
    (-920.0, -650.0),
    (-700.0, -200.0),
    (-150.0, 50.0),
    (0.0, 80.0),
    (60.0, 250.0),
    (200.0, 600.0),
    (500.0, 1000.0),
)
"""HU ranges of air and emphysema, lung, ground glass, fat, fluid and muscle, contrast, calcium, bone and metal."""


class HounsfieldWindows(nn.Module):
    """Spreads one intensity channel over several HU windows, whose means over a patch are a histogram of its tissue.

    A threshold such as "air below -950 HU" is one number of such a histogram, and hard to learn from HU themselves.

    Args:
        hu_window: HU range that the pipeline maps to [0, 1].
        windows: HU ranges; each gives one channel, clipped and mapped to [-1, 1].
    """

    def __init__(self, hu_window: Sequence[float], windows: Sequence[Sequence[float]]) -> None:
        super().__init__()
        low, high = float(hu_window[0]), float(hu_window[1])
        span = high - low
        gain = [2 * span / (float(top) - float(bottom)) for bottom, top in windows]
        shift = [(2 * low - float(bottom) - float(top)) / (float(top) - float(bottom)) for bottom, top in windows]
        self.gain: Tensor
        self.shift: Tensor
        self.register_buffer("gain", torch.tensor(gain), persistent=False)
        self.register_buffer("shift", torch.tensor(shift), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """``[B, 1, X, Y, Z]`` in [0, 1] to ``[B, W, X, Y, Z]`` in [-1, 1], channels last in memory."""
        # In place after the first product: these are the largest tensors of the network.
        ramps = (image.permute(0, 2, 3, 4, 1) * self.gain).add_(self.shift).clamp_(-1.0, 1.0)
        return ramps.permute(0, 4, 1, 2, 3)
