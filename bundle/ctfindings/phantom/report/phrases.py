"""What a finding, its absence and its subtypes are called in the synthetic reports."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

_TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Wording:
    """How one finding is put into words; ``phrases.toml`` explains the fields and the slots."""

    place: str
    denials: Sequence[str]
    normals: Sequence[str]
    short: Sequence[str]
    mention: float
    nouns: Sequence[str] = ()
    several: Sequence[str] = ()
    sentences: Sequence[str] = ()
    kinds: dict[str, list[str]] = field(default_factory=dict)


WORDINGS: dict[str, Wording] = {finding: Wording(**entry) for finding, entry in _TABLE.items()}
"""Wordings by the CT-RATE name of the finding."""
