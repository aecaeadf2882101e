"""Does a report, or a part of it, find its scan by its anatomies? Similarity by anatomy rows, ranks, and reports with
sentences left out.

Shapes: Q studies, K anatomies, E embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from bundle.ctfindings.metrics.classification import FloatArray, IntArray


def drop_sentences(sentences: Sequence[str], keep: float, generator: np.random.Generator) -> str:
    """A text of a random share of its sentences in their order, at least one of them.

    Args:
        sentences: of the text; one or more.
        keep: share of the sentences that stays, rounded up.
        generator: draws which.
    """
    count = max(1, math.ceil(keep * len(sentences)))
    kept = np.sort(generator.permutation(len(sentences))[:count])
    return " ".join(sentences[index] for index in kept)


def report_similarity(
    reports: ArrayLike, reports_valid: ArrayLike, scans: ArrayLike, scans_valid: ArrayLike
) -> FloatArray:
    """Mean cosine of a report and a scan over the anatomies that both have, [Q, Q]; -1 where they have none in common.

    Args:
        reports: unit caption rows, [Q, K, E].
        reports_valid: anatomies that a report speaks of, [Q, K].
        scans: unit image rows, [Q, K, E].
        scans_valid: anatomies that a scan shows, [Q, K].
    """
    said, shown = (np.asarray(values, dtype=bool) for values in (reports_valid, scans_valid))
    text = np.where(said[..., None], np.asarray(reports, dtype=np.float64), 0.0)
    image = np.where(shown[..., None], np.asarray(scans, dtype=np.float64), 0.0)
    common = said.astype(np.float64) @ shown.T.astype(np.float64)
    total = np.einsum("ake,bke->ab", text, image, optimize=True)
    similarity = np.full(total.shape, -1.0)
    np.divide(total, common, out=similarity, where=common > 0)
    return similarity


def rank_of_own(similarity: ArrayLike) -> IntArray:
    """Rank of the diagonal of a similarity matrix within its row, from 1, [Q]; what is as similar counts as ahead of
    it.
    """
    # Rounded, so that equal texts tie whatever order the products were summed in.
    matrix = np.round(np.asarray(similarity, dtype=np.float64), 9)
    ranks: IntArray = (matrix >= np.diagonal(matrix)[:, None]).sum(axis=1)
    return ranks
