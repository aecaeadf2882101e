"""Pairs of an image and a caption of one anatomy: their rows, and which captions are positives or negatives."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.losses.gathering import gather_rows

PAIR_INPUTS: tuple[str, ...] = ("anatomy", "anatomy_valid", "caption", "caption_valid", "caption_id", "caption_normal")
"""Inputs of a loss over (scan, anatomy) pairs: the arguments of `gather_pairs`."""


class AnatomyPairs(NamedTuple):
    """Images and captions of the anatomies of all ranks' scans."""

    anatomy: Tensor  # (B, K, E): unit image embeddings
    caption: Tensor  # (B, K, E): unit text embeddings
    valid: Tensor  # bool (B, K): pairs that have both; other rows hold anything
    caption_id: Tensor  # integer (B, K): equal for captions of equal text
    caption_normal: Tensor  # bool (B, K): the caption reports nothing abnormal


def gather_pairs(
    anatomy: Tensor,
    anatomy_valid: Tensor,
    caption: Tensor,
    caption_valid: Tensor,
    caption_id: Tensor,
    caption_normal: Tensor,
) -> AnatomyPairs:
    """Joins the (scan, anatomy) pairs of all ranks, with the gradient rule of `gather_rows`; see ``step_keys``."""
    return AnatomyPairs(*gather_rows(anatomy, caption, anatomy_valid & caption_valid, caption_id, caption_normal))


def check_dimensions(dimensions: Sequence[int] | None) -> tuple[int, int] | None:
    """First dimension of the part and the one behind its last, or None for the whole.

    ValueError if they are not two rising numbers.
    """
    if dimensions is None:
        return None
    if len(dimensions) != 2 or not 0 <= dimensions[0] < dimensions[1]:
        raise ValueError(f"dimensions: expected the first and the end of a part, got {list(dimensions)}")
    return dimensions[0], dimensions[1]


def embedding_part(rows: Tensor, dimensions: tuple[int, int] | None) -> Tensor:
    """Unit vectors of a part of vectors (..., E); the vectors themselves for the whole."""
    return rows if dimensions is None else F.normalize(rows[..., dimensions[0] : dimensions[1]], dim=-1)


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


def anatomies_left(valid: Tensor, excluded: Sequence[str]) -> Tensor:
    """Valid (scan, anatomy) pairs (B, K) bool, without those of the excluded anatomies.

    ValueError if a name is not in the anatomy table.
    """
    unknown = sorted(set(excluded) - set(ANATOMY_NAMES))
    if unknown:
        raise ValueError(f"excluded: no anatomy {', '.join(unknown)}; choose from {', '.join(ANATOMY_NAMES)}")
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
