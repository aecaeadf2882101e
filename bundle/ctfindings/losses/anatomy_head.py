"""The anatomy head's objective: which anatomies does each token of the image belong to?"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss

from bundle.ctfindings.losses.means import with_counts


class AnatomyHeadLoss(_Loss):
    """Binary cross-entropy per token plus soft Dice per anatomy; anatomies overlap, so each is a question of its own.

    The Dice is the soft-label form of Wang et al., "Dice Semimetric Losses", MICCAI 2023,
    https://arxiv.org/abs/2303.16296: the usual one for binary membership, and lowest at the true share when a token
    belongs to an anatomy in part. (MONAI's ``DiceLoss`` with ``soft_label=True`` is the same; written out, the losses
    load without MONAI.)

    Args:
        smooth: added to the Dice numerator and denominator, in tokens, so that an anatomy the scan does not contain
            gives no 0/0.

    Example:
        >>> import torch
        >>> logits, membership = torch.zeros(1, 4, 1), torch.tensor([[[1.0], [1.0], [0.0], [0.0]]])
        >>> loss = AnatomyHeadLoss()(logits, membership, torch.ones(1, 1, dtype=torch.bool))
        >>> round(loss.item(), 3)
        1.193
    """

    inputs: tuple[str, ...] = ("anatomy_logits", "membership", "anatomy_known")

    def __init__(self, smooth: float = 1e-5) -> None:
        super().__init__()
        self.smooth = smooth

    def forward(self, anatomy_logits: Tensor, membership: Tensor, anatomy_known: Tensor) -> Tensor:
        """
        Args:
            anatomy_logits: the head's answer for each token and anatomy, (B, N, K).
            membership: whether, or by which share in [0, 1], the token belongs to the anatomy, (B, N, K) bool or float.
            anatomy_known: anatomies that were segmented in the scan, (B, K) bool; the others do not count.

        Returns:
            The mean over the known anatomies of all scans; zero, without gradient, when none is known.
        """
        return self.means(anatomy_logits, membership, anatomy_known)[0, 0]

    def means(self, anatomy_logits: Tensor, membership: Tensor, anatomy_known: Tensor) -> Tensor:
        """The loss, and the number of known anatomies it is the mean over (``CompositeLoss.condense``), ``[1, 2]``."""
        if not anatomy_known.any():
            return anatomy_logits.new_zeros(1, 2)
        logits = anatomy_logits.transpose(1, 2)[anatomy_known]
        target = membership.transpose(1, 2)[anatomy_known].to(logits.dtype)
        probability = torch.sigmoid(logits)
        size = probability.sum(dim=1) + target.sum(dim=1)
        overlap = size - (probability - target).abs().sum(dim=1)
        dice = (overlap + self.smooth) / (size + self.smooth)
        mean = F.binary_cross_entropy_with_logits(logits, target) + (1 - dice).mean()
        return with_counts([mean], [anatomy_known.sum()])
