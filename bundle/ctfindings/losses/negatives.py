"""Which captions are negatives of each other in the objectives over all anatomies."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bundle.ctfindings.anatomy import ANATOMY_NAMES


def anatomies_left(valid: Tensor, excluded: Sequence[str]) -> Tensor:
    """Valid (scan, anatomy) pairs (B, K) bool, without those of the excluded anatomies.

    Raises:
        ValueError: A name is not in the anatomy table.
    """
    unknown = sorted(set(excluded) - set(ANATOMY_NAMES))
    if unknown:
        raise ValueError(f"excluded: no anatomy {', '.join(unknown)}; choose of {', '.join(ANATOMY_NAMES)}")
    left = torch.tensor([name not in excluded for name in ANATOMY_NAMES[: valid.shape[1]]], device=valid.device)
    return valid & left


def other_anatomies(organ: Tensor, sentences: Tensor | None) -> Tensor:
    """Pairs of captions (A, A) bool of different anatomies that share no sentence.

    A report often says one sentence of two anatomies. Their captions then have words in common, and pushing them apart
    would ask the text encoder to tell a text from itself.

    Args:
        organ: Anatomy of each caption, (A,) integer.
        sentences: Identities of the sentences of each caption, (A, M) integer, 0 where it has fewer; None if unknown.
    """
    other = organ[:, None] != organ
    if sentences is None or sentences.numel() == 0:
        return other
    identity, number = torch.unique(sentences, return_inverse=True)
    said = sentences.new_zeros((len(sentences), len(identity)), dtype=torch.float32)
    said.scatter_(1, number, 1.0)
    said[:, identity == 0] = 0.0
    return other & ((said @ said.T) == 0)
