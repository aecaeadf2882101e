"""Report text in plain form: typographic characters as in ASCII, answers of templates as ``finding: answer``."""

from __future__ import annotations

import html
import re
import unicodedata

from bundle.ctfindings.reports.word_lists import ignoring_case

_ASCII = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc\u00b4`", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u00ab\u00bb", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
        **dict.fromkeys("\u2610\u25a1\u25a2", "[ ]"),
        **dict.fromkeys("\u2611\u2612\u25a0", "[x]"),
        **dict.fromkeys("\u2713\u2714", "yes"),
        **dict.fromkeys("\u2717\u2718", "no"),
        **dict.fromkeys("\u00a1\u00bf", ""),
        "\u3002": ". ",
        "\u3001": ", ",
    }
)
_ANSWER = r"(?:yes|no|none|nil|absent|present|positive|negative|true|false)"
_TEMPLATES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (ignoring_case(pattern), replacement)
    for pattern, replacement in (
        (r"</?[a-z][^<>\n]{0,200}>", "\n"),  # markup
        (r"\bw/o\b", "without"),
        (r"\bneg\.?(?=[ \t]+for\b)", "negative"),
        (r"\bln(s?)\b(?=[ \t]+(?:enlarge|\w+megal|swell|patho|size|up to))", r"lymph node\1"),
        (r"\*\*|__", ""),
        (rf"([:=-][ \t]*)[\"']({_ANSWER})[\"']", r"\1\2"),
        (rf"(?<![ \t])[ \t]*(?:=>|->|>>|\u2192)[ \t]*({_ANSWER})\b", r": \1"),
        (r"(\w)-[ \t]*\n[ \t]*(?=[a-z])", r"\1"),  # a word divided at the end of a line
        (r"(?<=[a-z])_(?=[a-z])", " "),
        (r"(?<![ \t:]):?[ \t]*\[x\][ \t]*(yes|no)[ \t]*\[[ \t]?\][ \t]*(?:yes|no)\b", r": \1"),
        (r"(?<![ \t:]):?[ \t]*\[[ \t]?\][ \t]*(?:yes|no)[ \t]*\[x\][ \t]*(yes|no)\b", r": \1"),
        (r"(?<=[^\n])(?<![ \t])[ \t]*(\[[ \tx]?\])", r"\n\1"),  # each box of a form on its own line
        (r"\(\+\)", ": yes"),
        (r"\(-\)", ": no"),
        (rf'"([\w ]+)"[ \t]*:[ \t]*"?({_ANSWER})\b"?', r"\1: \2"),
        (rf"(?<![ \t])[ \t]*[(\[][ \t]*({_ANSWER})[ \t]*[)\]]", r": \1"),
        (rf"\?[ \t]*(?:a(?:nswer)?[ \t]*:|[-:])?[ \t\"']*({_ANSWER})\b", r": \1"),  # "Effusion? No."
        (rf"(?<![ \t.])[ \t]*\.{{3,}}[ \t]*({_ANSWER})\b", r": \1"),  # "Effusion ..... no"
        (rf"(?<=\w):?[ \t]*\n[ \t]*({_ANSWER})[ \t]*\.?[ \t]*(?=\n|$)", r": \1."),  # on a line of its own
        (rf"(?<![ \t])[ \t]*[|\t][ \t]*({_ANSWER})[ \t]*(?:\||(?=\n|$))", r": \1; "),
        (r":[ \t]*y(?=[ \t]*(?:[.,;|/\n]|$))(?!/)", ": yes"),
        (r":[ \t]*n(?=[ \t]*(?:[.,;|\n]|$))", ": no"),
        (r"[ \t]*[|\t][ \t]*y[ \t]*(?=\||\n|$)", ": yes; "),
        (r"[ \t]*[|\t][ \t]*n[ \t]*(?=\||\n|$)", ": no; "),
    )
)
# A line of a form whose boxes stand behind the names: "Emphysema [ ]  Consolidation [x]".
_BOXES_BEHIND = re.compile(r"^(?![ \t]*\[)(?:[^\[\]\n]+\[[ \txX]?\])+[ \t]*$", re.MULTILINE)
_BOX = re.compile(r"([^\[\]\n]+?):?[ \t]*\[([ \txX]?)\][ \t]*")
_SHORT_NOT = re.compile(r"\b(\w+?)n't\b", re.IGNORECASE)
_JOINED_NON = re.compile(r"\bnon(?=enlarged|dilated|thickened|pathologic)", re.IGNORECASE)
_WHOLE = {"ca": "can", "wo": "will", "ai": "is"}


def _in_ascii(text: str) -> str:
    if text.isascii():
        return text
    text = "".join(sign for sign in text if unicodedata.category(sign) != "Cf").translate(_ASCII)
    return unicodedata.normalize("NFKC", text).translate(_ASCII)


def normalized(text: str) -> str:
    """A report with typographic characters as in ASCII and template answers in one form.

    Ligatures, full-width letters and spaces become plain ones, invisible characters are removed, words divided at the
    end of a line are joined, and "Effusion? No", "Effusion (no)" and "Effusion | no |" become "Effusion: no".
    """
    text = _in_ascii(html.unescape(text))
    text = _BOXES_BEHIND.sub(lambda line: _BOX.sub(_answered, line[0]), text)
    for pattern, replacement in _TEMPLATES:
        text = pattern.sub(replacement, text)
    return text


def _answered(box: re.Match[str]) -> str:
    return f"{box[1].strip()}: {'yes' if box[2].strip() else 'no'}.\n"


def plain(text: str) -> str:
    """``spelled_out`` in lower case."""
    return spelled_out(text).lower()


def spelled_out(text: str) -> str:
    """``text`` in ASCII where it can be, with "not" written out: "isn't" becomes "is not"."""
    text = _in_ascii(text)
    if "'" in text:
        text = _SHORT_NOT.sub(lambda match: f"{_WHOLE.get(match[1].lower(), match[1])} not", text)
    return _JOINED_NON.sub("non-", text)
