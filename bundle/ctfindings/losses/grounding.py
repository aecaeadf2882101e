"""The grounding objective: the tokens that agree with the prompt of a finding lie inside its mask."""

import torch
from torch import Tensor
from torch.nn import functional as F

from bundle.ctfindings.losses.means import MeanLoss, with_counts


class GroundingLoss(MeanLoss):
    """Token-wise cross-entropy between the evidence of a finding and its mask, inside the finding's anatomy.

    The mean of ``softplus(-z)`` over the tokens of the mask, averaged over the findings that are present, plus ``w``
    times the mean of ``softplus(z)`` over the anatomy's other tokens, averaged over the findings that are present or
    absent. The balance of tokens inside and outside a lesion is therefore the same for any size of the lesion and any
    rate of the finding. A scan is scored by its strongest tokens: among thousands, few false alarms hide a small
    lesion, so a weight above 1 ranks scans better. A scan with the finding but without its mask, or with an unknown
    label, does not take part. This objective is ours; none of the papers has masks of findings. Each rank takes the
    means over its own scans and findings.

    Args:
        false_alarm_weight: w.
    """

    inputs: tuple[str, ...] = ("token_logits_drawn", "finding_tokens", "anatomy_tokens", "labels")
    empty_if_absent = ("finding_tokens",)

    def __init__(self, false_alarm_weight: float = 1.0) -> None:
        super().__init__()
        if not false_alarm_weight > 0:
            raise ValueError(f"false_alarm_weight: expected a positive number, got {false_alarm_weight}")
        self.false_alarm_weight = false_alarm_weight

    def means(
        self, token_logits_drawn: Tensor, finding_tokens: Tensor | None, anatomy_tokens: Tensor, labels: Tensor
    ) -> Tensor:
        """The means over misses and weighted false alarms with their counts, ``[2, 2]``; None: scans without masks."""
        if finding_tokens is None:
            finding_tokens = torch.zeros_like(anatomy_tokens, dtype=torch.bool)
        present, absent = (labels == 1) & finding_tokens.any(dim=1), labels == 0
        taking_part = present | absent
        if not taking_part.any():
            return token_logits_drawn.new_zeros(2, 2)
        inside = finding_tokens & present.unsqueeze(1)
        outside = anatomy_tokens & ~inside
        # softplus(-z) is softplus(z) - z: one pass over the largest tensor of the step.
        softplus = F.softplus(token_logits_drawn)
        false_alarm = (softplus * outside).sum(1) / outside.sum(1).clamp(min=1)
        miss = ((softplus - token_logits_drawn) * inside).sum(1) / inside.sum(1).clamp(min=1)
        missed = miss[present].mean() if present.any() else miss.new_zeros(())
        false_alarms = self.false_alarm_weight * false_alarm[taking_part].mean()
        return with_counts([missed, false_alarms], [present.sum(), taking_part.sum()])
