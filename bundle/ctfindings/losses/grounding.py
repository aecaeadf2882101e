"""The grounding objective: the tokens that agree with a finding's prompt are those where the finding is."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss


class GroundingLoss(_Loss):
    """Token-wise cross-entropy between the evidence of a finding and its mask, balanced between inside and outside.

    For a scan with the finding and a mask of it: the mean of ``softplus(-z)`` over the tokens of the mask plus the mean of
    ``softplus(z)`` over all others. For a scan without the finding: the mean of ``softplus(z)`` over all tokens. A scan with the
    finding but without a mask of it, or with an unknown label, does not take part. This objective is ours; none of the papers has
    masks of findings. Each rank takes the mean over its own scans and findings.

    Example:
        >>> import torch
        >>> z, tokens = torch.zeros(1, 4, 1), torch.tensor([[[True], [False], [False], [False]]])
        >>> round(GroundingLoss()(z, tokens, torch.tensor([[1]])).item(), 4)
        1.3863
    """

    inputs: tuple[str, ...] = ("token_logits_drawn", "finding_tokens", "labels")

    def forward(self, token_logits_drawn: Tensor, finding_tokens: Tensor, labels: Tensor) -> Tensor:
        """
        Args:
            token_logits_drawn: evidence logit of each token for the drawn wording of each finding, (B, N, C).
            finding_tokens: tokens that a finding's mask touches, bool (B, N, C).
            labels: 1, 0 or -1, (B, C).

        Returns:
            The mean over the scans and findings that take part; zero, without gradient, when none does.
        """
        marked = finding_tokens.any(dim=1)
        present, absent = (labels == 1) & marked, labels == 0
        taking_part = present | absent
        if not taking_part.any():
            return token_logits_drawn.new_zeros(())
        inside = finding_tokens & present.unsqueeze(1)
        # softplus(-z) is softplus(z) - z: one pass over the largest tensor of the step.
        softplus = F.softplus(token_logits_drawn)
        miss = ((softplus - token_logits_drawn) * inside).sum(1) / inside.sum(1).clamp(min=1)
        outside = ~inside
        false_alarm = (softplus * outside).sum(1) / outside.sum(1).clamp(min=1)
        return (miss + false_alarm)[taking_part].mean()
