"""The words of a snippet: a stretch of a report without its slice references and without what is said of earlier
studies.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_LEAD_IN = (
    r"(?:\s*[,;–-]?\s*\b(?:(?:best |well )?(?:see|siehe|s\.|vgl\.|cf\.|e\.g\.,?|z\.\s?b\.|for example|zum beispiel|i\.e\.)|"
    r"on|in|at|from|between|zwischen|auf|an|am|im|in der|auf den|auf dem|auf der|den|dem|der|the|axial|arrow|pfeil)(?=\s|$))+\s*$"
)
_LEAD = re.compile(_LEAD_IN, re.IGNORECASE)
_PRIOR_TEXT = re.compile(
    r"\s*[(,;–-]+\s*(?:and\s+|was\s+|it was\s+)?(?:previously|formerly|prior|compared (?:with|to)|in comparison (?:with|to)|"
    r"zuvor|vormals|ehemals|vorher|vu\b|in der voruntersuchung|im vergleich zu|gegenüber)[^,;.()]*(?P<closed>\))?",
    re.IGNORECASE,
)
_EMPTY_BRACKET = re.compile(
    r"\s*[(\[]\s*(?:(?:[,;/:&+–-]|\b(?:and|und|see|siehe|on|in|auf|image|bild|arrow|pfeil)\b)\s*)*[)\]]", re.IGNORECASE
)
_BRACKET_EDGE = re.compile(r"([(\[])\s*[,;:/]\s*|\s*[,;:/]\s*([)\]])")
_NO_CONTENT = frozenset(
    [
        "unchanged",
        "stable",
        "unverändert",
        "stabil",
        "known",
        "bekannt",
        "see",
        "siehe",
        "arrow",
        "pfeil",
        "also",
        "auch",
        "with",
    ]
    + ["image", "bild", "series", "serie"]
)
# "Lungs: 4 mm nodule": the label of a paragraph is no part of the statement; "Lymph nodes: left hilum" would lose its
# noun.
_ORGAN = (
    r"(?:general|findings?|befund|lungs?|lungen?|lung parenchyma|parenchyma|parenchym|airways|atemwege|pleurae?|mediastinum|hila|hili|"
    r"heart|cardiac|herz|pericardium|perikard|great vessels|vessels|vasculature|gefäße|aorta|devices|support (?:devices|material)|"
    r"lines|tubes|"
    r"o?esophagus|ösophagus|bones|skeleton|knochen|skelett|chest wall|thoraxwand|thorax|upper abdomen|abdomen|oberbauch|thyroid|"
    r"schilddrüse|soft tissues?|weichteile|lymph nodes(?=\s*:.*(?:nodes?|adenopath)))"
)
_LABEL = re.compile(
    rf"^\W*{_ORGAN}(?:(?:\s*[,/&]\s*|\s+(?:and|und)\s+){_ORGAN}){{0,3}}\s*:+\s*(?=\S+\s+\S)",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_]{3,}")


def without_stretches(text: str, start: int, end: int, stretches: Sequence[tuple[int, int]]) -> str:
    """``text[start:end]`` without some stretches of it, the words that led to them, empty brackets, and clauses on
    earlier studies.

    Args:
        stretches: offsets of the references, in order; those that reach out of ``start`` to ``end`` are left alone.
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
    """A sentence from which pieces were taken: brackets, blanks and punctuation in order, a capital in front."""
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
    """Words of at least three letters."""
    return len(_WORD.findall(text))


def has_content(text: str) -> bool:
    """Whether a text says more than "unchanged" or "see image"."""
    return any(word.lower() not in _NO_CONTENT for word in _WORD.findall(text))
