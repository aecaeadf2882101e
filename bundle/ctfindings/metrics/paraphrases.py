"""Free-text understanding: does a paraphrase find the finding it means? Shapes: P paraphrases, C findings, E embedding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from bundle.ctfindings.metrics.classification import FloatArray, IntArray


def load_paraphrases(path: str | Path) -> dict[str, list[str]]:
    """Paraphrases by finding name from a JSON of lists; keys that start with an underscore are remarks and are left
    out.
    """
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    return {name: list(texts) for name, texts in content.items() if not name.startswith("_")}


def rank_of_finding(query_embeddings: ArrayLike, bank: ArrayLike, targets: ArrayLike) -> IntArray:
    """Rank of the right finding of each query by cosine similarity to the bank, [P]; 1 is best.

    A tie counts against the query, so a text space that collapsed to a point gets the last rank and not the first.

    Args:
        query_embeddings: embeddings of the paraphrases, of any length, [P, E].
        bank: embedding of each finding, [C, E].
        targets: index of the finding each paraphrase means, [P].

    Raises:
        ValueError: shapes do not fit, an embedding is zero or not finite, or a target is not in 0..C-1.
    """
    queries, findings = _unit(query_embeddings, "query"), _unit(bank, "bank")
    target = np.asarray(targets, dtype=np.int64)
    if queries.shape[1] != findings.shape[1] or target.shape != (len(queries),):
        raise ValueError(
            f"queries {queries.shape}, bank {findings.shape} and targets {target.shape} must be [P, E], [C, E] and [P]"
        )
    if target.size and not (target.min() >= 0 and target.max() < len(findings)):
        raise ValueError(
            f"targets span {target.min()}..{target.max()}; indices of the {len(findings)} findings are expected"
        )
    # Rounded, so that two equal bank rows tie whatever order the products were summed in.
    cosine = np.round(queries @ findings.T, 9)
    ranks: IntArray = (cosine >= cosine[np.arange(len(queries)), target][:, None]).sum(axis=1)
    return ranks


def paraphrase_accuracy(ranks: ArrayLike, within: int = 1) -> float:
    """Share of paraphrases whose finding ranks among the first `within`; NaN for none."""
    array = np.asarray(ranks)
    return float((array <= within).mean()) if array.size else float("nan")


def _unit(embeddings: ArrayLike, what: str) -> FloatArray:
    array = np.asarray(embeddings, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"{what} embeddings have shape {array.shape}; two axes are expected")
    length = np.linalg.norm(array, axis=1, keepdims=True)
    if not np.isfinite(length).all() or (length == 0).any():
        raise ValueError(
            f"{what} embedding {int(np.argmax(~np.isfinite(length) | (length == 0)))} is zero or not finite"
        )
    unit: FloatArray = array / length
    return unit
