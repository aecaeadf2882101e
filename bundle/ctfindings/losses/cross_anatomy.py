"""The cross-anatomy objective: a caption of one anatomy must not fit the image of another."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss

from bundle.ctfindings.losses.gathering import gather_rows
from bundle.ctfindings.losses.pairs import (
    PAIR_INPUTS,
    anatomies_left,
    check_dimensions,
    embedding_part,
    gather_pairs,
    other_anatomies,
    semantic_matrix,
)


class CrossAnatomyLoss(_Loss):
    """Image-text contrast over all anatomies at once, over the joined batch of all ranks: the global term of CA-GCL.

    CA-GCL, https://arxiv.org/abs/2605.13544; our reading of its abstract, since its equations were not available. All
    valid (scan, anatomy) pairs form one list. Positives are pairs of one anatomy that are the same, both normal, or of
    equal text. `AnatomyPrototypeLoss` is the alternative for small batches.

    Each positive pair is contrasted with pairs of other anatomies only, so that the loss does not compete with
    `LocalAnatomyLoss`, and not with captions that share a sentence with its own. The caption of the thorax consists of
    the sentences of the others, so it does not take part.

    Args:
        excluded: Names of the anatomies that do not take part.
        dimensions: First and end of the part of the embedding that is contrasted; None for the whole.
    """

    inputs: tuple[str, ...] = (*PAIR_INPUTS, "caption_sentences", "temperature_global")
    gathers = True

    def __init__(self, excluded: Sequence[str] = ("thorax",), dimensions: Sequence[int] | None = None) -> None:
        super().__init__()
        self.excluded = tuple(excluded)
        self.dimensions = check_dimensions(dimensions)

    def forward(self, temperature_global: Tensor, caption_sentences: Tensor | None = None, **rows: Tensor) -> Tensor:
        """The mean over pairs with a negative and both directions; zero, without gradient, if there is no negative.

        Without ``caption_sentences``, captions of two anatomies are always negatives. The rows are the arguments of
        `gather_pairs`.
        """
        pairs = gather_pairs(**rows)
        sentences = None if caption_sentences is None else gather_rows(caption_sentences)[0]
        valid = anatomies_left(pairs.valid, self.excluded)
        organ = valid.nonzero()[:, 1]
        other = other_anatomies(organ, None if sentences is None else sentences[valid])
        if not other.any():
            return pairs.anatomy.new_zeros(())
        image, text = (embedding_part(rows[valid], self.dimensions) for rows in (pairs.anatomy, pairs.caption))
        similarity = image @ text.T / temperature_global
        positives = semantic_matrix(pairs.caption_id[valid], pairs.caption_normal[valid], organ)
        weights = F.normalize(positives.to(similarity.dtype), p=1, dim=1)
        return (_against_others(similarity, weights, other) + _against_others(similarity.T, weights, other)) / 2


def _against_others(similarity: Tensor, weights: Tensor, other: Tensor) -> Tensor:
    """Mean over rows a and positives p of ``-log(exp(S_ap) / (exp(S_ap) + sum over other anatomies b of exp(S_ab)))``.

    Args:
        similarity: S, (A, A).
        weights: Row-normalised positives, (A, A).
        other: Negatives, (A, A) bool; rows without one are left out.
    """
    rows = other.any(dim=1)
    similarity, weights = similarity[rows], weights[rows]
    negatives = similarity.masked_fill(~other[rows], -torch.inf).logsumexp(dim=1, keepdim=True)
    return (weights * F.softplus(negatives - similarity)).sum(dim=1).mean()
