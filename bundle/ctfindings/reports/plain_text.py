"""Report text in plain form: typographic characters as in ASCII, answers of templates as ``finding: answer``."""

import html
import re
import tomllib
import unicodedata
from pathlib import Path

from bundle.ctfindings.reports.word_lists import ignoring_case

_TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
_ASCII = str.maketrans({sign: rule["to"] for rule in _TABLE["ascii"] for sign in rule["of"]})
_TEMPLATES = [
    (ignoring_case(pattern.replace("@answer", _TABLE["answer"])), replacement)
    for pattern, replacement in _TABLE["templates"]
]
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
