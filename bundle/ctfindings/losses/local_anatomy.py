"""The local objective: within one anatomy, which caption belongs to which scan?"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss

from bundle.ctfindings.losses.pairs import PAIR_INPUTS, check_dimensions, embedding_part, gather_pairs, semantic_matrix


class LocalAnatomyLoss(_Loss):
    """Image-text contrast within each anatomy, with disease-aware soft targets, over the joined batch of all ranks.

    Shui et al., "Large-scale and Fine-grained Vision-language Pre-training for Enhanced CT Image Understanding" (fVLM),
    ICLR 2025, https://arxiv.org/abs/2501.14548. An anatomy is left out if its captions are all positives of each other
    (all normal, all the same text, or a single caption). Unlike in the released code, embeddings of other ranks carry
    gradient, and an anatomy takes part if any of it lies in the crop, not only if the crop holds the whole of it.

    Args:
        reduction_over_anatomies: "mean" over the anatomies that take part, or "sum" as in fVLM.
        dimensions: First and end of the part of the embedding that is contrasted; None for the whole.
    """

    inputs: tuple[str, ...] = (*PAIR_INPUTS, "temperature")
    gathers = True

    def __init__(
        self, reduction_over_anatomies: Literal["sum", "mean"] = "mean", dimensions: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.dimensions = check_dimensions(dimensions)
        if reduction_over_anatomies not in ("sum", "mean"):
            raise ValueError(f"reduction_over_anatomies: expected 'sum' or 'mean', got {reduction_over_anatomies!r}")
        self.reduction_over_anatomies = reduction_over_anatomies

    def forward(self, temperature: Tensor, **rows: Tensor) -> Tensor:
        """The mean or sum over anatomies; zero, without gradient, if no anatomy takes part.

        The rows are the arguments of `gather_pairs`.
        """
        pairs = gather_pairs(**rows)
        image, text = (embedding_part(rows, self.dimensions) for rows in (pairs.anatomy, pairs.caption))
        terms = []
        for k in range(pairs.valid.shape[1]):
            scans = pairs.valid[:, k]
            positives = semantic_matrix(pairs.caption_id[scans, k], pairs.caption_normal[scans, k])
            if positives.all():
                continue
            similarity = image[scans, k] @ text[scans, k].T / temperature
            targets = F.normalize(positives.to(similarity.dtype), p=1, dim=1)
            terms.append((F.cross_entropy(similarity, targets) + F.cross_entropy(similarity.T, targets)) / 2)
        if not terms:
            return pairs.anatomy.new_zeros(())
        total = torch.stack(terms).sum()
        return total if self.reduction_over_anatomies == "sum" else total / len(terms)
