"""The text separation objective: captions of different anatomies must not collapse onto one point."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss

from bundle.ctfindings.losses.gathering import gather_rows


class TextSeparationLoss(_Loss):
    """Pushes text embeddings of different anatomies apart, over the joined batch of all ranks.

    For each caption, ``log(1 + mean over captions b of other anatomies of exp((cos - margin) / temperature))``; the
    mean over captions. Our reading of CA-GCL's abstract (https://arxiv.org/abs/2605.13544), whose equations were not
    available. It only repels: pulling the captions of an anatomy together would erase what they say about disease.

    Args:
        margin: Cosine similarity below which the repulsion fades.
        temperature: Divides the cosine similarity minus the margin.

    Raises:
        ValueError: The temperature is not positive.

    Example:
        >>> import torch
        >>> loss = TextSeparationLoss()(torch.eye(2)[None], torch.ones(1, 2, dtype=torch.bool))
        >>> round(loss.item(), 4)
        0.6931
    """

    inputs: tuple[str, ...] = ("caption", "caption_valid")
    gathers = True

    def __init__(self, margin: float = 0.0, temperature: float = 0.1) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature: expected a positive number, got {temperature}")
        self.margin = margin
        self.temperature = temperature

    def forward(self, caption: Tensor, caption_valid: Tensor) -> Tensor:
        """The mean over captions; zero, without gradient, if fewer than two anatomies have a caption.

        Args:
            caption: Unit text embeddings of the captions, (B, K, E); invalid rows may hold anything.
            caption_valid: Anatomies with a caption, (B, K) bool.
        """
        caption, valid = gather_rows(caption, caption_valid)
        organ = valid.nonzero()[:, 1]
        other = organ[:, None] != organ
        if not other.any():
            return caption.new_zeros(())
        text = caption[valid]
        repulsion = ((text @ text.T - self.margin) / self.temperature).masked_fill(~other, -math.inf)
        mean = repulsion.logsumexp(dim=1) - other.sum(dim=1).to(text.dtype).log()
        return F.softplus(mean).mean()
