"""Sentences of a radiology report with their character offsets, for English and German prose."""

from __future__ import annotations

import re
from typing import NamedTuple


class Sentence(NamedTuple):
    """One sentence.

    Attributes:
        text: the sentence without surrounding blanks, list numbers and bullets.
        start: offset of its first character in the report.
        end: offset after its last character; ``report[start:end] == text``.
    """

    text: str
    start: int
    end: int


# Abbreviations after which a full stop ends nothing, whatever follows; written without the last full stop, in lower
# case.
_ABBREVIATIONS = (
    "e.g i.e eg ie approx appr vs cf viz incl resp dr prof mr mrs ms st max min avg temp pos neg lat ant post sup inf z.b d.h u.a "
    "o.g s.o s.u i.s i.v i.m z.n v.a m.e s.a st.p bzw ggf evtl vgl sog inkl exkl zzgl entspr insb insbes vermutl ausgepr fragl "
    "vorbek mind jeweil art aa vv nn lig"
)
# Abbreviations that may also end a sentence: they do in front of a capital.
_MAY_END = "etc usw bds li re ca fr al pat dd n.b z.t o.b o.a o.ä u.ä a.p p.a lab clin corr"
# Abbreviations only in front of a number: "No. 3", "Nr. 4", "im. 45".
_BEFORE_NUMBER = "no nr nos fig abb tab pp p im img bd ser se serie sl seg segm th lw bw hw c l t vol ver grd"

# What follows a German ordinal: "5. Rippe", "3. Mai".
_AFTER_ORDINAL = re.compile(
    r"(?:bis|und|oder|u\.|-|–)?\s*(?:\d{1,2}\.\s*)?(?:Rippe|ICR|Interkostal|BWK|LWK|HWK|BW|LW|HW|Brustwirbel|Lendenwirbel|Halswirbel|Wirbel|"
    r"Segment|Ordnung|Grad|Tag|Woche|Monat|Lebensjahr|postop|Zehe|Finger|Strahl|Januar|Februar|März|April|Mai\b|Juni|Juli|August|"
    r"September|Oktober|November|Dezember)"
)
_SECTION = (
    r"findings?|impressions?|conclusions?|technique|comparison|clinical (?:information|history|data|details|indication)|indication|history|"
    r"procedure|examination|opinion|summary|recommendations?|befund|beurteilung|klinische (?:angaben|information|fragestellung)|"
    r"fragestellung|technik|voraufnahmen?|vergleich|methodik|zusammenfassung|anamnese|rechtfertigende indikation"
)
_HEADING = re.compile(rf"(?:{_SECTION})\s*(?::|$)", re.IGNORECASE)
_MARKER = re.compile(r"\s*(?:\(?\d{1,2}[.)](?!\d)|[-–•*·►]+(?=\s)|[\"“”]\s|\(?[a-z]\)(?=\s))\s*")
_NEW_LINE_STARTS = re.compile(r"\s*(?:[A-ZÄÖÜ\"“(\[]|\d{1,2}[.)](?!\d)|[-–•*·►]\s)")

_KNOWN = {
    name: frozenset(words.split())
    for name, words in (("never", _ABBREVIATIONS), ("may", _MAY_END), ("number", _BEFORE_NUMBER))
}
_STOP = re.compile(
    r"(?P<break>\s*\n\s*)"
    r"|(?P<bullet>(?<=\s)(?:[\"“”](?=\s+[A-ZÄÖÜ])|[•·►](?=\s)))"
    r"|(?P<stop>[.!?…]+)(?P<close>[\"'”’»)\]]*)(?=\s|$)"
    r"|(?<=[^\W\d_])(?P<glued>[.?!])(?=[A-ZÄÖÜ][a-zäöüß]|[A-ZÄÖÜ]{2}|\d)"
    r"|(?<=[\d)\]%])(?P<glued_number>[.?!])(?=[A-ZÄÖÜ][a-zäöüß])"
)
_LAST_WORD = re.compile(r"[^\s(\[\"“,;:/]+$")
_NEXT = re.compile(r"\s*[\"'“‘(\[]*(\S)")


def split_sentences(text: str) -> list[Sentence]:
    """Cuts a report into sentences.

    Decimals, measurements, abbreviations ("e.g.", "No. 3", "z.B.", "Z.n."), German ordinals ("5. Rippe") and initials
    hold together. A full stop without a blank behind it ("observed.No") cuts. A line break cuts before a list item,
    after a finished line, and before a capital; a line that was only wrapped is joined. A section heading ("FINDINGS:")
    is a sentence of its own, a heading that names an organ ("Lungs: clear.") stays with what follows it. List numbers
    and bullets belong to no sentence; a lone quotation mark between statements counts as a bullet.

    Args:
        text: the report; any length, also empty.

    Returns:
        The sentences in order, without overlap.
    """
    sentences: list[Sentence] = []
    start = _skip_marker(text, 0)
    for match in _STOP.finditer(text):
        if match.end() <= start:
            continue
        if match["bullet"] is not None:
            cut = True
        elif match["break"] is not None:
            cut = _line_ends(text, start, match.start(), match.end())
        else:
            cut = _stop_ends(text, start, match)
        if cut:
            start = _close(text, start, match.start() if match["bullet"] else match.end(), sentences)
    _close(text, start, len(text), sentences)
    return sentences


def _close(text: str, start: int, end: int, sentences: list[Sentence]) -> int:
    """Adds ``text[start:end]``, a leading section heading apart, and returns where the next sentence starts."""
    heading = _HEADING.match(text, start, end)
    if heading and text[heading.end() : end].strip():
        _add(text, start, heading.end(), sentences)
        start = _skip_marker(text, heading.end())
    _add(text, start, end, sentences)
    return _skip_marker(text, end)


def _add(text: str, start: int, end: int, sentences: list[Sentence]) -> None:
    piece = text[start:end]
    stripped = piece.strip()
    if any(character.isalnum() for character in stripped):
        first = start + len(piece) - len(piece.lstrip())
        sentences.append(Sentence(stripped, first, first + len(stripped)))


def _skip_marker(text: str, position: int) -> int:
    """Position after blanks and one list number or bullet, unless the number is a German ordinal."""
    marker = _MARKER.match(text, position)
    if marker and not _AFTER_ORDINAL.match(text, marker.end()):
        return marker.end()
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _line_ends(text: str, start: int, end: int, after: int) -> bool:
    """Whether a line break ends the sentence, or only wraps it."""
    if text.count("\n", end, after) > 1 or end <= start:
        return True
    if text[end - 1] in ".!?:" and _last_word(text, start, end).lower().rstrip(".") not in _KNOWN["never"]:
        return True
    return text[end - 1] not in ",;-–(" and _NEW_LINE_STARTS.match(text, after) is not None


def _stop_ends(text: str, start: int, match: re.Match[str]) -> bool:
    """Whether a full stop, question or exclamation mark ends the sentence."""
    stop = match["stop"] or match["glued"] or match["glued_number"]
    at = match.start()
    following = _NEXT.match(text, match.end())
    next_character = following[1] if following else ""
    if not next_character:
        return True
    if "?" in stop or "!" in stop:
        # "(infection?) is seen": a doubt inside a sentence.
        inside = text.count("(", start, match.end()) > text.count(")", start, match.end())
        return not inside and not next_character.islower()
    word = _last_word(text, start, at).lower()
    bare = word.rstrip(".")
    if bare in _KNOWN["never"] or (bare in _KNOWN["number"] and next_character.isdigit()):
        return False
    if bare in _KNOWN["may"]:
        return next_character.isupper() and match["glued"] is None
    if bare.isdigit() and len(bare) <= 2 and _AFTER_ORDINAL.match(text, match.end() + 1):
        return False
    if len(bare) == 1 and bare.isalpha():
        # An initial or a Latin abbreviation ("V. cava", "J. S. Smith"); "Stanford type A. The aorta" ends.
        return next_character.isupper() and match["stop"] is not None and text[match.end() + 2 : match.end() + 3] != "."
    if match["glued"] is not None and len(bare) < 3:
        return bare in ("mm", "cm", "ml", "hu", "vc", "ac")
    return True


def _last_word(text: str, start: int, end: int) -> str:
    found = _LAST_WORD.search(text, max(start, end - 24), end)
    return found[0] if found else ""
