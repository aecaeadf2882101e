"""The disease prompt objective: does the scan fit the statement or the denial of each finding?"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss


class DiseasePromptLoss(_Loss):
    """Binary cross-entropy on the similarity to a positive minus that to a negative prompt, over known labels.

    Ging et al., "Learning to Read Where to Look" (RadFinder), MICCAI 2026, https://arxiv.org/abs/2603.02026. The
    network draws the wording for each scan and finding, and gives the difference as one logit. Each rank takes the mean
    over its own known entries.

    Args:
        pos_weight: Weight of the positives of each finding, negatives / positives in the training set, C values; None
            for equal weights.
        cap: Largest ``pos_weight``, so that a rare finding does not dominate the gradient.
    """

    inputs: tuple[str, ...] = ("finding_logits_drawn", "labels")
    pos_weight: Tensor | None

    def __init__(self, pos_weight: Sequence[float] | None = None, cap: float = 20.0) -> None:
        super().__init__()
        weights = None if pos_weight is None else torch.tensor(pos_weight, dtype=torch.float32)
        if weights is not None and not (weights >= 0).all():
            raise ValueError(f"pos_weight: expected numbers of at least 0, got {list(pos_weight or ())}")
        # A setting, not state: a checkpoint loads with another one.
        self.register_buffer("pos_weight", None if weights is None else weights.clamp(max=cap), persistent=False)

    def forward(self, finding_logits_drawn: Tensor, labels: Tensor) -> Tensor:
        """The mean weighted loss over known entries; zero, without gradient, if none is known.

        ValueError if the weights are those of another number of findings.
        """
        if self.pos_weight is not None and self.pos_weight.numel() != labels.shape[1]:
            raise ValueError(f"pos_weight has {self.pos_weight.numel()} values for {labels.shape[1]} findings")
        known = labels != -1
        if not known.any():
            return finding_logits_drawn.new_zeros(())
        logits, present = finding_logits_drawn[known], labels[known]
        # The trainer moves the network to its device, not the loss.
        weight = None if self.pos_weight is None else self.pos_weight.to(known.device).expand(known.shape)[known]
        return F.binary_cross_entropy_with_logits(logits, present.to(logits.dtype), pos_weight=weight)
