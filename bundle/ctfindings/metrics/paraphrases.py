"""Paraphrases of findings, and how new their words are."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

NOVELTY_BANDS = {"novel": 0.2, "related": 0.5, "near duplicate": float("inf")}
"""Bands of the overlap with the nearest wording of the same finding in its table, by the limit of a band."""


def load_paraphrases(path: str | Path) -> dict[str, list[str]]:
    """Paraphrases by finding name from a JSON file of lists; keys that start with an underscore are comments.

    ValueError if the file is missing.
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
