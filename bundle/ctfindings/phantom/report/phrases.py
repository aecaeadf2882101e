"""What a finding, its absence and its subtypes are called in the synthetic reports."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Wording:
    """How one finding is put into words; ``phrases.toml`` explains the slots.

    Attributes:
        place: domain of ``site_phrases.place`` that its ``{at}`` comes from.
        nouns: noun phrases for one occurrence, or for a diffuse change.
        several: noun phrases for more than one occurrence; empty where ``nouns`` serve.
        sentences: whole positive sentences, besides those that the frames make of the noun phrases.
        denials: what follows "no".
        normals: whole sentences that deny it.
        short: names for a summary.
        mention: probability that a report denies it when it is absent.
        kinds: noun phrases by subtype: further ones, or for medical material the only ones.
    """

    place: str
    denials: tuple[str, ...]
    normals: tuple[str, ...]
    short: tuple[str, ...]
    mention: float
    nouns: tuple[str, ...] = ()
    several: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()
    kinds: dict[str, list[str]] = field(default_factory=dict)


def _wording(entry: dict[str, Any]) -> Wording:
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}
    return Wording(**fields)


WORDINGS: dict[str, Wording] = {finding: _wording(entry) for finding, entry in _TABLE.items()}
"""Wordings by the CT-RATE name of the finding."""
