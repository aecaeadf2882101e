"""Sentence frames of the synthetic reports, and the sentences that concern no finding."""

import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
FRAMES: dict[str, list[str]] = _TABLE["frames"]
"""Frames and whole sentences by purpose."""
REGIONS: dict[str, list[str]] = _TABLE["regions"]
HEADINGS: dict[str, list[str]] = _TABLE["headings"]
LEADING_REFERENCE: str = _TABLE["leading_reference"]
GRADES: list[dict[str, list[str]]] = _TABLE["grades"]
"""Words for a low, medium and high severity, by slot."""


def pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    """One of the wordings, each equally likely."""
    return options[int(rng.integers(len(options)))]


def listed(parts: Sequence[str], word: str) -> str:
    """Joins phrases with commas and a last ``and`` or ``or``."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + f" {word} {parts[-1]}"
