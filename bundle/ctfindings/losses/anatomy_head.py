"""The objective of the anatomy head: which anatomies does each token belong to?"""

import torch
from torch import Tensor
from torch.nn import functional as F

from bundle.ctfindings.losses.means import MeanLoss, with_counts

_SMOOTH = 1e-5
"""Added to the Dice numerator and denominator, in tokens, against 0/0."""


class AnatomyHeadLoss(MeanLoss):
    """Binary cross-entropy per token plus soft Dice per anatomy, independently for each of the overlapping anatomies.

    The Dice is the soft-label form of Wang et al., "Dice Semimetric Losses", MICCAI 2023,
    https://arxiv.org/abs/2303.16296, which is lowest at the true share when a token belongs to an anatomy in part.
    """

    inputs: tuple[str, ...] = ("anatomy_logits", "membership", "anatomy_known")

    def means(self, anatomy_logits: Tensor, membership: Tensor, anatomy_known: Tensor) -> Tensor:
        """The loss and its count of known anatomies, ``[1, 2]``."""
        if not anatomy_known.any():
            return anatomy_logits.new_zeros(1, 2)
        logits = anatomy_logits.transpose(1, 2)[anatomy_known]
        target = membership.transpose(1, 2)[anatomy_known].to(logits.dtype)
        probability = torch.sigmoid(logits)
        size = probability.sum(dim=1) + target.sum(dim=1)
        overlap = size - (probability - target).abs().sum(dim=1)
        dice = (overlap + _SMOOTH) / (size + _SMOOTH)
        mean = F.binary_cross_entropy_with_logits(logits, target) + (1 - dice).mean()
        return with_counts([mean], [anatomy_known.sum()])
