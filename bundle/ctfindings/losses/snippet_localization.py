"""The localization objective: where along the body axis does a sentence of the report refer to?"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss

_TRUNCATION = 3.0
"""Standard deviations after which the target is zero, as in the released code."""

_TOLERANCE_MM = 1e-3
"""Rounding of float32 millimetres; a bin on a limit counts as inside."""


class SnippetLocalizationLoss(_Loss):
    """Cross-entropy over the depth bins of a snippet's own scan, with a Gaussian target around the slice it refers to.

    Ging et al., "Learning to Read Where to Look" (RadFinder), MICCAI 2026, https://arxiv.org/abs/2603.02026. The target
    lies at the true z in mm, not at the nearest bin, and is renormalised after padding bins are masked; the released
    code blurs a one-hot bin and does not renormalise. Both agree where z is the centre of a bin far from padding. A
    snippet outside the bins of its scan (cut off by a crop) does not take part. Each rank takes the mean over its own
    snippets.

    Args:
        sigma_mm: Spread of the target in mm; 0 gives a one-hot target at the nearest bin.
        temperature: Divides the cosine similarity of a depth bin and the snippet.
    """

    inputs: tuple[str, ...] = ("depth", "depth_mm", "snippet", "target_mm")

    def __init__(self, sigma_mm: float = 24.0, temperature: float = 0.1) -> None:
        super().__init__()
        if not sigma_mm >= 0:
            raise ValueError(f"sigma_mm: expected a number of at least 0, got {sigma_mm}")
        if not temperature > 0:
            raise ValueError(f"temperature: expected a positive number, got {temperature}")
        self.sigma_mm = sigma_mm
        self.temperature = temperature

    def forward(self, depth: Tensor, depth_mm: Tensor, snippet: Tensor, target_mm: Tensor) -> Tensor:
        """The mean over the snippets that point into their scan; zero, without gradient, if there is none."""
        inside = points_into_scan(depth_mm, target_mm)
        if not inside.any():
            return depth.new_zeros(())
        depth, depth_mm, snippet, target_mm = depth[inside], depth_mm[inside], snippet[inside], target_mm[inside]
        padding = depth_mm.isnan()
        logits = torch.einsum("sde,se->sd", depth, snippet) / self.temperature
        log_probability = F.log_softmax(logits.masked_fill(padding, -torch.inf), dim=1)
        target = self.target(depth_mm, target_mm).to(logits.dtype)
        return -(target * log_probability.masked_fill(padding, 0.0)).sum(dim=1).mean()

    def target(self, depth_mm: Tensor, target_mm: Tensor) -> Tensor:
        """Target probability of each bin, (S, D); arguments as in `forward`, of snippets that point into their scan."""
        distance = (depth_mm - target_mm[:, None]).abs().nan_to_num(nan=torch.inf)
        nearest = distance.amin(dim=1, keepdim=True)
        if self.sigma_mm == 0:
            weights = F.one_hot(distance.argmin(dim=1), depth_mm.shape[1]).to(distance.dtype)
        else:
            # Subtracting the nearest bin avoids underflow for a small sigma; it cancels in the normalisation.
            exponent = (nearest.square() - distance.square()) / (2 * self.sigma_mm**2)
            weights = exponent.exp() * (distance <= nearest + _TRUNCATION * self.sigma_mm + _TOLERANCE_MM)
        return weights / weights.sum(dim=1, keepdim=True)


def points_into_scan(depth_mm: Tensor, target_mm: Tensor) -> Tensor:
    """Which snippets lie within half a bin of a depth bin of their scan, (S,) bool; arguments as in the loss."""
    if not depth_mm.numel():
        return torch.zeros(len(depth_mm), dtype=torch.bool, device=depth_mm.device)
    pitch = depth_mm.diff(dim=1).abs().nan_to_num(nan=0.0)
    half = pitch.amax(dim=1) / 2 if pitch.shape[1] else depth_mm.new_zeros(len(depth_mm))
    nearest = (depth_mm - target_mm[:, None]).abs().nan_to_num(nan=torch.inf).amin(dim=1)
    return nearest <= half + _TOLERANCE_MM
