"""Which captions mean the same, and the soft contrastive targets that follow from it."""

from __future__ import annotations

import torch
from torch import Tensor


def semantic_matrix(text_id: Tensor, normal: Tensor, anatomy: Tensor | None = None) -> Tensor:
    """Pairs of captions that are positives of each other: both normal, or the same text.

    The disease-aware targets of fVLM (Shui et al., ICLR 2025, https://arxiv.org/abs/2501.14548).

    Args:
        text_id: Identity of each caption's text before augmentation, (A,) integer.
        normal: Whether the caption reports no abnormality, (A,) bool.
        anatomy: Anatomy of each caption, (A,) integer; if given, only captions of one anatomy can be positives.

    Returns:
        (A, A) bool, symmetric, true on the diagonal.
    """
    positives = (text_id[:, None] == text_id) | (normal[:, None] & normal)
    return positives if anatomy is None else positives & (anatomy[:, None] == anatomy)


def row_normalise(positives: Tensor, dtype: torch.dtype) -> Tensor:
    """Spreads each row of (A, A) booleans evenly over its positives; each row has at least one and sums to one."""
    weights = positives.to(dtype)
    return weights / weights.sum(dim=1, keepdim=True)
