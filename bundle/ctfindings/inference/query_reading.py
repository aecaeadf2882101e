"""Free-text queries: how a query is asked, what its score is worth on a scan, and when it is worth nothing.

The score of a free text is not calibrated, and every text has one. So it is compared with what the same model says of
unrelated texts on the same scan, in the same anatomy.
"""

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from bundle.ctfindings.inference.findings_record import FindingAnswer, QueryAnswer
from bundle.ctfindings.reports import assertion
from bundle.ctfindings.reports.plain_text import plain, spelled_out
from bundle.ctfindings.reports.word_lists import read_alternatives

_PACKAGE = Path(__file__).resolve().parents[1]
_TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
_TRAINED_ON = ("findings.toml", "anatomy.toml", "phantom/report/phrases.toml", "phantom/report/sentence_frames.toml",
               "phantom/report/site_phrases.toml")  # fmt: skip

UNRELATED: tuple[str, ...] = tuple(_TABLE["unrelated"])
"""Texts that say nothing about a chest."""

STRONG, WEAK = 0.95, 0.8
"""A query stands out from this share of the unrelated texts on, and stands out weakly from the second on."""

IMPLAUSIBLE = 0.5
"""Words are nonsense if at most this share of their letters, three at a time, occurs in words that are known."""

_ABBREVIATION = re.compile(r"\b[A-Z]{2,5}\b")
_CUES = read_alternatives(assertion.__file__)
_LEAD = r"(?:there (?:is|are|was|were) )?"
_OF = r"(?:\s+(?:any|evidence|signs?|suspicion|indication)\b(?:\s+(?:of|for)\b)?)*"
_NEGATED = (
    rf"{_LEAD}(?:{_CUES['pre_negation']}|not|lacks|hardly any){_OF}\s+(?P<asked>.+)",
    rf"(?P<asked>.+?)[\s,:]+(?:(?:is|are|was|were)\s+)?"
    rf"(?:absent|negative|none|no|ruled out|excluded|resolved|not\s+(?:{_CUES['seen']})\w*)",
    r".*\bfree of\s+(?P<asked>.+)",
    r"(?P<asked>.+?)\s+not\s+(?P<rest>.+)",
)
"""Texts that deny one thing; what is asked is their named groups: "heart is enlarged" of "heart is not enlarged"."""
_DENIAL = re.compile(
    r"\b(?:no|not|none|nor|neither|never|without|lacks?|absent|absence|negative|free of|ruled out|excluded|resolved|"
    r"hardly|normal|unremarkable|clear|(?:is|are|was|were|do|does|did|ca|could|ai)n'?t)\b",
    re.IGNORECASE,
)
"""What the model does not understand: words that deny something, or call it normal."""


class QueryReading(NamedTuple):
    """How a free text is read."""

    text: str  # as it was written
    asked: str  # what is asked of the model: without a negation
    hints: tuple[str, ...]  # one sentence each, for the reader
    meaningful: bool  # False if its score means nothing

    @property
    def negated(self) -> bool:
        """Whether the text denies what is asked."""
        return self.asked != self.text


def read_query(text: str) -> QueryReading:
    """Reads one query of ``check_queries``."""
    asked, hints = _without_negation(text), []
    if asked != text:
        hints.append(f"A negation is not understood well, so it is asked as '{asked}'.")
    elif _DENIAL.search(text):
        hints.append("A denial or 'normal' is not understood; ask for one abnormality, such as 'enlarged heart'.")
    words = re.findall(r"[^\W\d_]+", plain(asked))
    unknown = [word for word in words if not _is_known(word)]
    if language := _language(words, unknown):
        hints.append(
            f"It seems to be {language}; write English, the language of the texts that the model was trained on."
        )
        return QueryReading(text, asked, tuple(hints), False)
    content = [word for word in words if word not in _TABLE["function"]]
    short = _ABBREVIATION.search(asked) is not None
    if not content or (not short and unknown and len(unknown) == len(content) and _plausible(unknown) <= IMPLAUSIBLE):
        hints.append(
            "None of its words is a word of radiology; write what to look for, such as 'fluid around the lung'."
        )
        return QueryReading(text, asked, tuple(hints), False)
    if unknown:
        shown = ", ".join(f"'{word}'" for word in dict.fromkeys(unknown))
        hint = f"The model may not know {shown}: not among the words of its training texts"
        hints.append(f"{hint}; write abbreviations out." if short else f"{hint}.")
    return QueryReading(text, asked, tuple(hints), True)


def _without_negation(text: str) -> str:
    """What a text denies, if it denies one thing and says nothing else; otherwise the text."""
    said = spelled_out(text).rstrip(" .!?")
    for pattern in _NEGATED:
        if match := re.fullmatch(pattern, said, re.IGNORECASE):
            asked = " ".join(match.groupdict().values())
            return text if _DENIAL.search(asked) else asked
    return text


def in_words(reading: QueryReading, answer: QueryAnswer, findings: Sequence[FindingAnswer]) -> QueryAnswer:
    """The answer with what it is worth in one or two sentences.

    Args:
        reading: of its text.
        answer: to what was asked.
        findings: of the same scan.
    """
    if not reading.meaningful:
        meaning = "The score means nothing, and no place is shown."
        return replace(answer, text=reading.text, asked=reading.asked, meaning=meaning, hints=reading.hints)
    if answer.not_assessed:
        meaning = f"Not assessed: {answer.not_assessed}, so the score says nothing about it."
        return replace(answer, text=reading.text, asked=reading.asked, meaning=meaning, hints=reading.hints)
    share = answer.percentile or 0.0
    count = f"stronger than {round(share * len(UNRELATED))} of {len(UNRELATED)} unrelated texts on this scan"
    word = "Stands out" if share >= STRONG else "Stands out weakly" if share >= WEAK else "Does not stand out"
    sentences = [f"{word}: {count}{'' if share >= STRONG else ', which does not rule it out'}."]
    if reading.negated:
        sentences.append(f"This {'does not confirm' if share >= STRONG else 'does not decide'} '{reading.text}'.")
    # Only focal evidence has a side, and only the lung is paired: the right ventricle may lie left of the midline.
    place = answer.evidence if answer.anatomy == "lung" else None
    side = place.side if place is not None and place.extent == "focal" else None
    if (named := _named_side(reading.asked)) and side not in (None, named):
        found_at = "near the midline" if side == "midline" else f"on the {side}"
        sentences.append(f"Its strongest place is {found_at}, not on the {named}.")
    if answer.nearest_findings:
        name = answer.nearest_findings[0].name
        found = next((each for each in findings if each.name == name), None)
        number = "" if found is None or found.present is None else f", probability {found.probability:.2f}"
        sentences.append(f"Nearest finding: {name}{'' if found is None else f' ({found.result}{number})'}.")
    return replace(answer, text=reading.text, asked=reading.asked, meaning=" ".join(sentences), hints=reading.hints)


def _named_side(text: str) -> str | None:
    """The one side that a text names."""
    sides = set(re.findall(r"\b(?:left|right)\b", plain(text)))
    return sides.pop() if len(sides) == 1 else None


@cache
def _known_words() -> frozenset[str]:
    """Words of the tables that training texts are made of, of radiology, and those that say nothing alone."""
    texts = [tomllib.loads((_PACKAGE / name).read_text(encoding="utf-8")) for name in _TRAINED_ON]
    return frozenset([*_words(texts), *_TABLE["radiology"], *_TABLE["function"]])


@cache
def _triples() -> frozenset[str]:
    return frozenset(part for word in _known_words() if len(word) > 2 for part in _split(word))


def _split(word: str) -> list[str]:
    """The word with its ends marked, three characters at a time."""
    marked = f"^{word}$"
    return [marked[index : index + 3] for index in range(len(word))]


def _plausible(words: Sequence[str]) -> float:
    parts = [part for word in words for part in _split(word)]
    return sum(part in _triples() for part in parts) / len(parts)


def _is_known(word: str) -> bool:
    """Whether a word or its singular is known."""
    stems = [word, word.removesuffix("s"), word.removesuffix("es"), f"{word.removesuffix('ies')}y", f"{word}s"]
    return any(stem in _known_words() for stem in stems)


def _language(words: Sequence[str], unknown: Sequence[str]) -> str:
    """A language other than English that the words are of; empty if they are of none."""
    if any(ord(letter) > 0x24F for word in words for letter in word):
        return "written in another alphabet"
    counts = {name: sum(word in listed for word in words) for name, listed in _TABLE["languages"].items()}
    name, most = max(counts.items(), key=lambda item: item[1])
    return name if most and most >= len(words) - len(unknown) else ""


def _words(value: Any) -> Iterator[str]:
    """The words of all texts in a TOML table."""
    if isinstance(value, str):
        yield from re.findall(r"[a-z]+", value.lower())
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _words(each)
