"""Retrieval of a scan by the captions of its anatomies. Shapes: Q studies, K anatomies, E embedding."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from bundle.ctfindings.metrics.classification import FloatArray, IntArray


def drop_sentences(sentences: Sequence[str], keep: float, generator: np.random.Generator) -> str:
    """A text with a random share of its sentences in their order, rounded up to at least one."""
    count = max(1, math.ceil(keep * len(sentences)))
    kept = np.sort(generator.permutation(len(sentences))[:count])
    return " ".join(sentences[index] for index in kept)


def report_similarity(
    reports: ArrayLike, reports_valid: ArrayLike, scans: ArrayLike, scans_valid: ArrayLike
) -> FloatArray:
    """Mean cosine of a report and a scan over the anatomies that both have, [Q, Q]; -1 if they share none.

    Rows are unit embeddings, [Q, K, E]. Valid anatomies, [Q, K], have a caption or lie in the field of view.
    """
    said, shown = (np.asarray(values, dtype=bool) for values in (reports_valid, scans_valid))
    text = np.where(said[..., None], np.asarray(reports, dtype=np.float64), 0.0)
    image = np.where(shown[..., None], np.asarray(scans, dtype=np.float64), 0.0)
    common = said.astype(np.float64) @ shown.T.astype(np.float64)
    total = np.einsum("ake,bke->ab", text, image, optimize=True)
    similarity = np.full(total.shape, -1.0)
    np.divide(total, common, out=similarity, where=common > 0)
    return similarity


def rank_of_own(similarity: ArrayLike, own: ArrayLike | None = None) -> IntArray:
    """Rank of each query's own item in its row of a similarity matrix [Q, G], from 1, [Q].

    A tie counts against the query. `own` is the index of the own items, [Q]; by default query i belongs to item i.
    """
    # Rounded so that equal texts tie whatever the order of summation.
    matrix = np.round(np.asarray(similarity, dtype=np.float64), 9)
    index = np.arange(len(matrix))
    ranks: IntArray = (matrix >= matrix[index, index if own is None else np.asarray(own)][:, None]).sum(axis=1)
    return ranks
