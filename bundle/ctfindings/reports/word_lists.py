"""What the report rules match: lists of words in TOML files, patterns that ignore case, and plain text."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path


def read_alternatives(module_file: str) -> dict[str, str]:
    """The lists of the TOML file beside a module (its ``__file__``) by name, each joined with "|"."""
    table = tomllib.loads(Path(module_file).with_suffix(".toml").read_text(encoding="utf-8"))
    return {name: "|".join(words) for name, words in table.items()}


def ignoring_case(pattern: str) -> re.Pattern[str]:
    """A compiled pattern that ignores case."""
    return re.compile(pattern, re.IGNORECASE)


_PLAIN = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201b\u02bc\u00b4`", "'"),
        **dict.fromkeys("\u201c\u201d\u201e", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"),
        **dict.fromkeys("\u00a0\u2007\u202f\u2009", " "),
    }
)


def plain(text: str) -> str:
    """``text`` in lower case with typographic apostrophes, quotation marks, hyphens and spaces as in ASCII."""
    return text.lower().translate(_PLAIN)
