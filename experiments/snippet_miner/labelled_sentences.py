"""Labelled sentences: the slices they refer to, and how many of these the miner finds."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from bundle.ctfindings.files.csv_table import TableError, read_table
from bundle.ctfindings.reports.snippets.miner import mine_report

Pair = tuple[int | None, int]
"""Series (None if unknown) and image."""

COLUMNS = ("set", "language", "kind", "expected", "text")


class LabelledSentence(NamedTuple):
    """A sentence, or a few that belong together, and the slices it refers to according to a reader.

    Attributes:
        subset: Part of the labelled set.
        language: en or de.
        kind: Form of the reference, or what the sentence contains instead.
        expected: The slices; a range counts as its middle image.
        text: The sentence.
    """

    subset: str
    language: str
    kind: str
    expected: Counter[Pair]
    text: str


class Score(NamedTuple):
    """Pairs found and expected, wrong and missed; of references, not of sentences."""

    found: int
    wrong: int
    missed: int

    @property
    def precision(self) -> float:
        """Share of the mined pairs that are right; NaN when none was mined."""
        mined = self.found + self.wrong
        return self.found / mined if mined else float("nan")

    @property
    def recall(self) -> float:
        """Share of the expected pairs that were mined; NaN when none is expected."""
        expected = self.found + self.missed
        return self.found / expected if expected else float("nan")


def load_labelled_sentences(path: Path) -> list[LabelledSentence]:
    """Reads a labelled set: set, language, kind, expected ("3:45 3:50-52 :99", empty for none), text.

    Raises:
        TableError: when a column is missing or a pair cannot be read.
    """
    table = read_table(path)
    for name in COLUMNS:
        table.column(name, "a labelled set")
    sentences = []
    for row in table.rows:
        try:
            expected = Counter(map(_pair, row.values["expected"].split()))
        except ValueError as error:
            raise TableError(
                path, f"line {row.line}: {row.values['expected']!r} is not a list such as '3:45 3:50-52 :99'"
            ) from error
        subset, language, kind = (row.values[name] for name in COLUMNS[:3])
        sentences.append(LabelledSentence(subset, language, kind, expected, row.values["text"]))
    return sentences


def _pair(text: str) -> Pair:
    series, images = text.split(":")
    first, _, last = images.partition("-")
    return int(series) if series else None, (int(first) + int(last or first)) // 2


def score_sentences(sentences: Iterable[LabelledSentence]) -> Score:
    """Mines every sentence as its own report and counts pairs; both series and image have to be right."""
    found = wrong = missed = 0
    for sentence in sentences:
        mined = Counter((snippet.series, snippet.image) for snippet in mine_report([sentence.text]).snippets)
        right = sum((mined & sentence.expected).values())
        found += right
        wrong += sum(mined.values()) - right
        missed += sum(sentence.expected.values()) - right
    return Score(found, wrong, missed)
