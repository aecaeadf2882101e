"""Ranks of paraphrases by hand, and the rules the committed list was written under."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.metrics.paraphrases import (
    content_words,
    highest_overlap,
    load_paraphrases,
    novelty_band,
    paraphrase_accuracy,
    rank_of_finding,
)

PARAPHRASES = Path(__file__).parents[2] / "docs" / "evaluation" / "paraphrases.json"


def test_rank_is_by_cosine_and_ignores_length() -> None:
    bank = [[1.0, 0.0], [0.0, 5.0], [-1.0, 0.0]]
    # (2, 1) is nearest to the first row, then the second, then the third; (1, 3) to the second.
    assert rank_of_finding([[2, 1], [2, 1], [2, 1], [0.1, 0.3]], bank, [0, 1, 2, 1]).tolist() == [1, 2, 3, 1]


def test_a_collapsed_text_space_ranks_last_not_first() -> None:
    assert rank_of_finding(np.ones((2, 4)), np.ones((18, 4)), [0, 17]).tolist() == [18, 18]


def test_accuracy_is_the_share_within_the_first_ranks() -> None:
    assert paraphrase_accuracy([1, 2, 1, 7]) == 0.5
    assert paraphrase_accuracy([1, 2, 1, 7], within=3) == 0.75
    assert np.isnan(paraphrase_accuracy([]))


def test_overlap_is_that_of_content_words() -> None:
    assert content_words("There are Nodules in the lung.") == {"nodule", "lung"}
    others = [content_words("a nodule"), content_words("nodules of the left lung")]
    assert highest_overlap("Lung nodule", others) == pytest.approx(2 / 3)
    assert highest_overlap("the", [frozenset()]) == highest_overlap("nodule", []) == 0
    assert [novelty_band(overlap) for overlap in (0.19, 0.2, 0.5, 1)] == ["novel", "related", *["near duplicate"] * 2]


def test_embeddings_that_cannot_be_ranked_are_refused() -> None:
    with pytest.raises(ValueError, match="query embedding 1 is zero"):
        rank_of_finding([[1, 0], [0, 0]], np.eye(2), [0, 1])
    with pytest.raises(ValueError, match="indices of the 2 findings"):
        rank_of_finding([[1, 0]], np.eye(2), [2])
    with pytest.raises(ValueError, match=r"must be \[P, E\]"):
        rank_of_finding([[1, 0, 0]], np.eye(2), [0])


def test_the_list_has_five_paraphrases_of_every_finding_and_each_only_once() -> None:
    paraphrases = load_paraphrases(PARAPHRASES)
    assert list(paraphrases) == list(FINDING_NAMES)
    assert min(len(texts) for texts in paraphrases.values()) >= 5
    texts = [text.lower() for group in paraphrases.values() for text in group]
    assert len(texts) >= 90 and len(set(texts)) == len(texts)


def test_no_paraphrase_gives_away_the_name_of_any_finding() -> None:
    for texts in load_paraphrases(PARAPHRASES).values():
        for text in texts:
            named = [name for name in FINDING_NAMES if name.lower() in text.lower()]
            assert not named, f"'{text}' names {named}"
