"""What the report rules match: lists of words in TOML files, and patterns that ignore case."""

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
