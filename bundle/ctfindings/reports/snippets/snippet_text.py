"""The text of a snippet: a part of a report without slice references and statements on earlier studies."""

import re
from collections.abc import Sequence

from bundle.ctfindings.reports.word_lists import ignoring_case, read_alternatives

_WORDS = read_alternatives(__file__)
_LEAD = ignoring_case(rf"(?:\s*[,;–-]?\s*\b(?:(?:best |well )?(?:{_WORDS['see']})|{_WORDS['lead_in']})(?=\s|$))+\s*$")
_PRIOR_TEXT = ignoring_case(rf"\s*[(,;–-]+\s*(?:and\s+|was\s+|it was\s+)?(?:{_WORDS['prior']})[^,;.()]*(?P<closed>\))?")
_EMPTY_BRACKET = ignoring_case(
    r"\s*[(\[]\s*(?:(?:[,;/:&+–-]|\b(?:and|und|see|siehe|on|in|auf|image|bild|arrow|pfeil)\b)\s*)*[)\]]"
)
_BRACKET_EDGE = re.compile(r"([(\[])\s*[,;:/]\s*|\s*[,;:/]\s*([)\]])")
# "Lungs: 4 mm nodule": the label of a paragraph is not part of the statement; "Lymph nodes: left hilum" keeps its noun.
_ORGAN = f"(?:{_WORDS['organ']})"
_LABEL = ignoring_case(rf"^\W*{_ORGAN}(?:(?:\s*[,/&]\s*|\s+(?:and|und)\s+){_ORGAN}){{0,3}}\s*:+\s*(?=\S+\s+\S)")
_WORD = re.compile(r"[^\W\d_]{3,}")
_NO_CONTENT = re.compile(_WORDS["no_content"])


def without_stretches(text: str, start: int, end: int, stretches: Sequence[tuple[int, int]]) -> str:
    """``text[start:end]`` without references, their lead-in, empty brackets and clauses on earlier studies.

    Args:
        stretches: offsets of the references, in order; one that crosses ``start`` or ``end`` stays.
    """
    pieces: list[str] = []
    position = start
    for first, last in stretches:
        if position <= first and last <= end:
            pieces.append(_LEAD.sub("", text[position:first]))
            position = last
    pieces.append(text[position:end])
    return tidy(" ".join(pieces))


def tidy(text: str) -> str:
    """Repairs brackets, whitespace, punctuation and the capital of a sentence after parts were removed."""
    for _ in range(2):
        text = _EMPTY_BRACKET.sub("", text)
        text = _BRACKET_EDGE.sub(lambda found: found[1] or found[2] or "", text)
    text = _PRIOR_TEXT.sub(lambda found: ")" if found["closed"] and "(" not in found[0] else "", text)
    if text.count("(") != text.count(")"):
        text = text.replace("(", ", ").replace(")", "")
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"\s+([.,;:)])", r"\1", text).replace("::", ":")
    text = _LABEL.sub("", text)
    text = re.sub(r"[,;:–-]+\s*(?=[.;,])|(?<=[;,])[;,]+", "", text)
    text = re.sub(r"^[\s,;:.)–-]+|[\s,;:(–-]+$", "", text)
    text = re.sub(
        r"^(?:and|und|sowie)\s+|\s+(?:and|und|on|in|at|auf|see|siehe|at the level of)(?=\.?$)",
        "",
        text,
        flags=re.IGNORECASE,
    )
    return text[:1].upper() + text[1:]


def word_count(text: str) -> int:
    """Number of words of at least three letters."""
    return len(_WORD.findall(text))


def has_content(text: str) -> bool:
    """Whether a text says more than "unchanged" or "see image"."""
    return any(not _NO_CONTENT.fullmatch(word.lower()) for word in _WORD.findall(text))
