"""The disease prompt objective: does the scan fit the statement or the denial of each finding?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss


class DiseasePromptLoss(_Loss):
    """Binary cross-entropy on the similarity to a positive minus that to a negative prompt of each finding, over known
    labels.

    Ging et al., "Learning to Read Where to Look" (RadFinder), MICCAI 2026, https://arxiv.org/abs/2603.02026. The
    network draws the wording anew for each scan and finding, and gives the difference as one logit. Each rank takes the
    mean over its own known entries.

    Args:
        pos_weight: weight of each finding's positives, negatives / positives in the training set, C values; None weighs
            them alike.
        cap: largest ``pos_weight`` used, so that a rare finding does not rule the gradient.
        finding_weight: weight of each finding, C values; None weighs them alike. (RadFinder gives the 18 of CT-RATE 5
            and its other 319 1.)

    Raises:
        ValueError: when a weight is negative or not a number.

    Example:
        >>> import torch
        >>> loss = DiseasePromptLoss()(torch.zeros(2, 3), torch.tensor([[1, 0, -1], [-1, -1, 1]]))
        >>> round(loss.item(), 4)
        0.6931
    """

    inputs: tuple[str, ...] = ("finding_logits_drawn", "labels")
    pos_weight: Tensor | None
    finding_weight: Tensor | None

    def __init__(
        self,
        pos_weight: Sequence[float] | None = None,
        cap: float = 20.0,
        finding_weight: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        # Settings, not state: a checkpoint keeps loading when they change.
        capped = None if pos_weight is None else _weights("pos_weight", pos_weight).clamp(max=cap)
        self.register_buffer("pos_weight", capped, persistent=False)
        weight = None if finding_weight is None else _weights("finding_weight", finding_weight)
        self.register_buffer("finding_weight", weight, persistent=False)

    def forward(self, finding_logits_drawn: Tensor, labels: Tensor) -> Tensor:
        """
        Args:
            finding_logits_drawn: logit of the drawn positive against the drawn negative wording of each finding, (B,
                C).
            labels: 1 present, 0 absent, -1 unknown, (B, C).

        Returns:
            The weighted loss summed over known entries, divided by their number; zero, without gradient, when none is
            known.

        Raises:
            ValueError: when a label is none of the three, or the number of findings is not that of the weights.
        """
        allowed = (labels == 1) | (labels == 0) | (labels == -1)
        if not allowed.all():
            wrong = sorted(set(labels[~allowed].tolist()))
            raise ValueError(f"labels hold {wrong[:5]}; a label is 1 (present), 0 (absent) or -1 (unknown)")
        for name, weights in (("pos_weight", self.pos_weight), ("finding_weight", self.finding_weight)):
            if weights is not None and weights.numel() != labels.shape[1]:
                raise ValueError(
                    f"{name} has {weights.numel()} values for {labels.shape[1]} findings; give one for each"
                )
        known = labels != -1
        if not known.any():
            return finding_logits_drawn.new_zeros(())
        logits = finding_logits_drawn[known]
        return F.binary_cross_entropy_with_logits(
            logits,
            labels[known].to(logits.dtype),
            weight=_of_entries(self.finding_weight, known),
            pos_weight=_of_entries(self.pos_weight, known),
        )


def _weights(name: str, values: Sequence[float]) -> Tensor:
    weights = torch.tensor(values, dtype=torch.float32)
    if not (weights >= 0).all():
        raise ValueError(f"{name} is {list(values)}; every weight must be a number of at least 0")
    return weights


def _of_entries(weights: Tensor | None, known: Tensor) -> Tensor | None:
    """The weight of each known entry, in the order of boolean indexing."""
    # The trainer moves the network to its device, not the loss.
    return None if weights is None else weights.to(known.device).expand(known.shape)[known]
