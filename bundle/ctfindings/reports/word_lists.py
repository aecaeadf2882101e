"""Lists of words in the TOML file beside a module, as alternatives of its regular expressions."""

from __future__ import annotations

import tomllib
from pathlib import Path


def read_alternatives(module_file: str) -> dict[str, str]:
    """The lists by name, each joined with "|".

    Args:
        module_file: ``__file__`` of the module; the table has the same name and the ending ``.toml``.
    """
    table = tomllib.loads(Path(module_file).with_suffix(".toml").read_text(encoding="utf-8"))
    return {name: "|".join(words) for name, words in table.items()}
