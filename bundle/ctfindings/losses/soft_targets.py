"""Which captions mean the same, and the soft contrastive targets that follow from it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def semantic_matrix(text_id: Tensor, normal: Tensor, anatomy: Tensor | None = None) -> Tensor:
    """Pairs of captions that count as positives of each other: itself, both normal, or the same text.

    The disease-aware targets of fVLM (Shui et al., ICLR 2025, https://arxiv.org/abs/2501.14548), with which a normal
    caption is no negative of another normal one.

    Args:
        text_id: identity of each caption's original text, before any augmentation, (A,) integer.
        normal: whether the caption reports no abnormality, (A,) bool.
        anatomy: the anatomy each caption speaks of, (A,) integer; when given, only captions of one anatomy can be
            positives.

    Returns:
        (A, A) bool, symmetric, true on the diagonal.
    """
    positives = (text_id[:, None] == text_id) | (normal[:, None] & normal)
    return positives if anatomy is None else positives & (anatomy[:, None] == anatomy)


def row_normalise(positives: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Spreads the probability of each row evenly over its positives.

    Args:
        positives: (A, A) bool with at least one positive in each row, as `semantic_matrix` gives.
        dtype: of the result.

    Returns:
        (A, A) of that dtype; rows sum to one.
    """
    weights = positives.to(dtype)
    return weights / weights.sum(dim=1, keepdim=True)


def symmetric_cross_entropy(similarity: Tensor, positives: Tensor) -> Tensor:
    """Mean of the image-to-text and the text-to-image cross-entropy against the row-normalised positives.

    Args:
        similarity: image rows against text columns, already divided by the temperature, (A, A).
        positives: (A, A) bool, symmetric.

    Returns:
        The mean over rows and both directions, a scalar.
    """
    targets = row_normalise(positives, similarity.dtype)
    return (F.cross_entropy(similarity, targets) + F.cross_entropy(similarity.T, targets)) / 2
