"""Retrieval judged by labels: an item is relevant if its findings agree with those of the query.

Exact recall punishes a scan for reports that say the same, as most normal ones do. Shapes: N items, C findings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.classification import FloatArray

JACCARD = 0.5  # Least overlap of the positive findings of two items that agree
CUTOFFS = (1, 5, 10)


def agreement(labels: ArrayLike) -> dict[str, NDArray[np.bool_]]:
    """Which items agree, [N, N] each: ``equal`` sets of positive findings, or a ``jaccard`` index of `JACCARD`.

    Labels are 1, 0 or -1, [N, C]; unknown counts as absent. Two items without a finding agree.
    """
    positive = (np.asarray(labels) == 1).astype(np.int64)
    shared, sizes = positive @ positive.T, positive.sum(axis=1)
    union = sizes[:, None] + sizes[None, :] - shared
    return {"equal": union == shared, "jaccard": shared >= JACCARD * union}


def label_precision(similarity: ArrayLike, labels: ArrayLike, bootstrap: Bootstrap) -> dict[str, Any]:
    """Share of relevant items among the first k, by kind of `agreement` and k of `CUTOFFS`, with intervals and chance.

    Args:
        similarity: of query i (row) and item j (column), [N, N]; item i belongs to query i, and counts.
        labels: of the items.
        bootstrap: by patient of the queries.
    """
    scores = np.asarray(similarity, dtype=np.float64)
    order = np.argsort(-scores, axis=1, kind="stable")
    used = [k for k in CUTOFFS if k < len(scores)]
    return {
        kind: _precision(np.take_along_axis(relevant, order, axis=1), used, bootstrap)
        for kind, relevant in agreement(labels).items()
    }


def _precision(relevant: NDArray[np.bool_], cutoffs: Sequence[int], bootstrap: Bootstrap) -> dict[str, Any]:
    """From the relevance of the items of each query in the order of the ranks."""
    at: FloatArray = np.stack([relevant[:, :k].mean(axis=1) for k in cutoffs], axis=1)
    found = bootstrap.interval(lambda weights: weights @ at / weights.sum(axis=1, keepdims=True))
    chance = float(relevant.mean())
    return {str(k): found.entry(i) | {"chance": chance} for i, k in enumerate(cutoffs)}
