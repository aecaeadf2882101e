"""The local objective: within one anatomy, which caption belongs to which scan?"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.modules.loss import _Loss

from bundle.ctfindings.losses.gathering import gather_rows
from bundle.ctfindings.losses.soft_targets import semantic_matrix, symmetric_cross_entropy


class LocalAnatomyLoss(_Loss):
    """Image-text contrast of each anatomy on its own, with disease-aware soft targets, over the joined batch of all ranks.

    Shui et al., "Large-scale and Fine-grained Vision-language Pre-training for Enhanced CT Image Understanding" (fVLM), ICLR 2025,
    https://arxiv.org/abs/2501.14548. An anatomy is left out while its captions are all positives of each other (all normal, all the same
    text, or one caption only), because then there is nothing to tell apart. Unlike in the released code, embeddings of other ranks carry
    gradient.

    Args:
        reduction_over_anatomies: "mean" over the anatomies that take part, so that the loss does not grow with their number; fVLM takes the
            "sum".

    Raises:
        ValueError: when the reduction is neither.

    Example:
        >>> import torch
        >>> rows = torch.eye(2)[:, None]
        >>> valid, normal = torch.ones(2, 1, dtype=torch.bool), torch.zeros(2, 1, dtype=torch.bool)
        >>> loss = LocalAnatomyLoss()(rows, valid, rows, valid, torch.tensor([[1], [2]]), normal, torch.tensor(1.0))
        >>> round(loss.item(), 4)
        0.3133
    """

    inputs: tuple[str, ...] = (
        "anatomy",
        "anatomy_valid",
        "caption",
        "caption_valid",
        "caption_id",
        "caption_normal",
        "temperature",
    )
    gathers = True

    def __init__(self, reduction_over_anatomies: Literal["sum", "mean"] = "mean") -> None:
        super().__init__()
        if reduction_over_anatomies not in ("sum", "mean"):
            raise ValueError(f"reduction_over_anatomies is {reduction_over_anatomies!r}; it can be 'sum' or 'mean'")
        self.reduction_over_anatomies = reduction_over_anatomies

    def forward(
        self,
        anatomy: Tensor,
        anatomy_valid: Tensor,
        caption: Tensor,
        caption_valid: Tensor,
        caption_id: Tensor,
        caption_normal: Tensor,
        temperature: Tensor,
    ) -> Tensor:
        """
        Args:
            anatomy: unit image embeddings of the anatomies, (B, K, E); the content of invalid rows does not matter.
            anatomy_valid: anatomies that the scan shows completely, (B, K) bool.
            caption: unit text embeddings of the anatomy captions, (B, K, E).
            caption_valid: anatomies that the report speaks of, (B, K) bool.
            caption_id: identity of the original caption text, (B, K) integer.
            caption_normal: captions that report no abnormality, (B, K) bool.
            temperature: divides the cosine similarities, a positive scalar.

        Returns:
            The mean or sum over anatomies; zero, without gradient, when no anatomy takes part.
        """
        valid = anatomy_valid & caption_valid
        anatomy, caption, valid, caption_id, caption_normal = gather_rows(anatomy, caption, valid, caption_id, caption_normal)
        terms = []
        for k in range(anatomy.shape[1]):
            rows = valid[:, k]
            positives = semantic_matrix(caption_id[rows, k], caption_normal[rows, k])
            if positives.all():
                continue
            similarity = anatomy[rows, k] @ caption[rows, k].T / temperature
            terms.append(symmetric_cross_entropy(similarity, positives))
        if not terms:
            return anatomy.new_zeros(())
        total = torch.stack(terms).sum()
        return total if self.reduction_over_anatomies == "sum" else total / len(terms)
