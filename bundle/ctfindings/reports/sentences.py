"""Sentences of a radiology report with their character offsets, for English and German prose."""

import re
import tomllib
from pathlib import Path
from typing import NamedTuple


class Sentence(NamedTuple):
    """One sentence, ``text == report[start:end]``, without surrounding whitespace, list number and bullet."""

    text: str
    start: int
    end: int


_TABLE: dict[str, list[str]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
_AFTER_ORDINAL = re.compile(rf"(?:bis|und|oder|u\.|-|–)?\s*(?:\d{{1,2}}\.\s*)?(?:{'|'.join(_TABLE['after_ordinal'])})")
_HEADING = re.compile(rf"(?:{'|'.join(_TABLE['sections'])})\s*(?::|$)", re.IGNORECASE)
_REQUEST = re.compile(rf"(?:{'|'.join(_TABLE['requests'])})\s*:", re.IGNORECASE)
_ON_LINE = re.compile(r"[ \t]*[^\s]")
_BELOW = re.compile(rf"\s*(?:\S.*\n)+?(?=[ \t]*\n\s*\S|(?:{'|'.join(_TABLE['sections'])})\s*:)", re.IGNORECASE)
_MARKER = re.compile(r"\s*(?:\(?\d{1,2}[.)](?!\d)|[-–•*·►]+(?=\s)|[\"“”]\s|\(?[a-z]\)(?=\s))\s*")
_NEW_LINE_STARTS = re.compile(r"\s*(?:[A-ZÄÖÜ\"“(\[]|\d{1,2}[.)](?!\d)|[-–•*·►]\s)")

_KNOWN = {name: frozenset(_TABLE[name]) for name in ("never", "may", "number")}
_STOP = re.compile(
    r"(?P<break>(?<!\s)\s*\n\s*)"  # Looking behind keeps long runs of spaces linear.
    r"|(?P<bullet>(?<=\s)(?:[\"“”](?=\s+[A-ZÄÖÜ])|[•·►](?=\s)))"
    r"|(?P<stop>[.!?…]+)(?P<close>[\"'”’»)\]]*)(?=\s|$)"
    r"|(?<=[^\W\d_])(?P<glued>[.?!])(?=[A-ZÄÖÜ][a-zäöüß]|[A-ZÄÖÜ]{2}|\d)"
    r"|(?<=[\d)\]%])(?P<glued_number>[.?!])(?=[A-ZÄÖÜ][a-zäöüß])"
)
_LAST_WORD = re.compile(r"[^\s(\[\"“,;:/]+$")
_NEXT = re.compile(r"\s*[\"'“‘(\[]*(\S)")


def split_sentences(text: str) -> list[Sentence]:
    """Splits a report into sentences, in order and without overlap.

    Decimals, measurements, abbreviations ("e.g.", "No. 3", "z.B.", "Z.n."), German ordinals ("5. Rippe") and initials
    do not end a sentence; a full stop without a following space ("observed.No") does. A line break ends a sentence
    before a list item, after a finished line, and before a capital; wrapped lines are joined. A section heading
    ("FINDINGS:") is a sentence of its own; a heading that names an organ ("Lungs: clear.") stays with what follows.
    Sentences exclude list numbers and bullets; a lone quotation mark between statements counts as a bullet.
    """
    sentences: list[Sentence] = []
    start = _skip_marker(text, 0)
    for match in _STOP.finditer(text):
        if match.end() <= start:
            continue
        if match["break"] is not None:
            cut = _line_ends(text, start, match.start(), match.end())
        else:
            cut = match["bullet"] is not None or _stop_ends(text, start, match)
        if cut:
            start = _close(text, start, match.start() if match["bullet"] else match.end(), sentences)
    _close(text, start, len(text), sentences)
    return sentences


def finding_sentences(text: str) -> list[Sentence]:
    """The sentences of ``split_sentences`` that may say what was found.

    Below a heading such as "Indication:" the next sentence of its line is left out, or the paragraph of its own that
    another one or a heading follows.
    """
    kept: list[Sentence] = []
    left_out_to, next_too = 0, False
    for sentence in split_sentences(text):
        if _HEADING.fullmatch(sentence.text):
            request = _REQUEST.fullmatch(sentence.text) is not None
            next_too = request and _ON_LINE.match(text, sentence.end) is not None
            left_out_to = _paragraph_end(text, sentence.end) if request and not next_too else 0
        elif next_too or sentence.start < left_out_to:
            next_too = False
            continue
        kept.append(sentence)
    return kept


def _paragraph_end(text: str, start: int) -> int:
    """Where the paragraph below a heading ends; 0 for the last one."""
    below = _BELOW.match(text, start)
    return below.end() if below else 0


def _close(text: str, start: int, end: int, sentences: list[Sentence]) -> int:
    """Adds ``text[start:end]``, with a section heading as a separate sentence; returns the start of the next one."""
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
    """Position after whitespace and one list number or bullet, unless the number is a German ordinal."""
    marker = _MARKER.match(text, position)
    if marker and not _AFTER_ORDINAL.match(text, marker.end()):
        return marker.end()
    return len(text) - len(text[position:].lstrip())


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
        # "(infection?) is seen" is doubt inside a sentence.
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
