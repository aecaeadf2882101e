"""Paraphrases of findings: how new their words are, and the rank of the finding that one means.

Shapes: P paraphrases, C findings, E embedding.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from bundle.ctfindings.metrics.caption_retrieval import rank_of_own
from bundle.ctfindings.metrics.classification import FloatArray, IntArray

NOVELTY_BANDS = {"novel": 0.2, "related": 0.5, "near duplicate": float("inf")}
"""Bands of the overlap with the nearest training text, by the limit that a band stays below."""


def load_paraphrases(path: str | Path) -> dict[str, list[str]]:
    """Paraphrases by finding name from a JSON file of lists; keys that start with an underscore are comments.

    Raises:
        ValueError: the file is missing.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: file not found; give the JSON file of paraphrases, or null to skip them")
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    return {name: list(texts) for name, texts in content.items() if not name.startswith("_")}


def content_words(text: str) -> frozenset[str]:
    """The words of a text without stop words, in lower case and without a plural s."""
    words = re.findall(r"[a-z]+", text.lower())
    return frozenset(word.removesuffix("s") for word in words if word not in ENGLISH_STOP_WORDS)


def highest_overlap(text: str, others: Iterable[frozenset[str]]) -> float:
    """Largest Jaccard index, 0..1, of the content words of a text and those of other texts; 0 without others."""
    words = content_words(text)
    return max((len(words & other) / len(words | other) for other in others if words | other), default=0.0)


def novelty_band(overlap: float) -> str:
    """The band of ``NOVELTY_BANDS`` that an overlap belongs to."""
    return next(band for band, limit in NOVELTY_BANDS.items() if overlap < limit)


def rank_of_finding(queries: ArrayLike, bank: ArrayLike, targets: ArrayLike) -> IntArray:
    """Rank of the right finding of each query by cosine similarity, [P]; 1 is best.

    A tie counts against the query, so a collapsed text space ranks last, not first. Embeddings of the paraphrases,
    [P, E], and of the findings, [C, E], may have any length. Targets are the indices of the right findings, [P].

    Raises:
        ValueError: shapes do not fit, an embedding is zero or not finite, or a target is not in 0..C-1.
    """
    asked, findings = _unit(queries, "query"), _unit(bank, "bank")
    target = np.asarray(targets, dtype=np.int64)
    if asked.shape[1] != findings.shape[1] or target.shape != (len(asked),):
        raise ValueError(
            f"queries {asked.shape}, bank {findings.shape} and targets {target.shape} must be [P, E], [C, E] and [P]"
        )
    if target.size and not (target.min() >= 0 and target.max() < len(findings)):
        raise ValueError(
            f"targets span {target.min()}..{target.max()}; expected indices of the {len(findings)} findings"
        )
    return rank_of_own(asked @ findings.T, target)


def paraphrase_accuracy(ranks: ArrayLike, within: int = 1) -> float:
    """Share of paraphrases whose finding ranks among the first `within`; NaN without paraphrases."""
    array = np.asarray(ranks)
    return float((array <= within).mean()) if array.size else float("nan")


def _unit(embeddings: ArrayLike, what: str) -> FloatArray:
    array = np.asarray(embeddings, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"{what} embeddings have shape {array.shape}; expected two axes")
    length = np.linalg.norm(array, axis=1, keepdims=True)
    wrong = ~np.isfinite(length) | (length == 0)
    if wrong.any():
        raise ValueError(f"{what} embedding {int(np.argmax(wrong))} is zero or not finite")
    unit: FloatArray = array / length
    return unit
