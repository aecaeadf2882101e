"""The overlap of words by hand, and the rules the committed list was written under."""

from pathlib import Path

import pytest

from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.metrics.paraphrases import (
    content_words,
    highest_overlap,
    load_paraphrases,
    novelty_band,
)

PARAPHRASES = Path(__file__).parents[2] / "docs" / "evaluation" / "paraphrases.json"


def test_overlap_is_that_of_content_words() -> None:
    assert content_words("There are Nodules in the lung.") == {"nodule", "lung"}
    others = [content_words("a nodule"), content_words("nodules of the left lung")]
    assert highest_overlap("Lung nodule", others) == pytest.approx(2 / 3)
    assert highest_overlap("the", [frozenset()]) == highest_overlap("nodule", []) == 0
    assert [novelty_band(overlap) for overlap in (0.19, 0.2, 0.5, 1)] == ["novel", "related", *["near duplicate"] * 2]


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
