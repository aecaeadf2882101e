"""Sentence frames of the synthetic reports, and the sentences that concern no finding."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def _texts(entries: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(texts) for name, texts in entries.items()}


_FRAMES = _texts({name: value for name, value in _TABLE.items() if isinstance(value, list) and name != "grades"})
POSITIVE_FRAMES = _FRAMES["positive_frames"]
UNCERTAIN_FRAMES = _FRAMES["uncertain_frames"]
LARGEST_FRAMES = _FRAMES["largest_frames"]
IMPRESSION_FRAMES = _FRAMES["impression_frames"]
DENIAL_FRAMES = _FRAMES["denial_frames"]
JOINT_DENIAL_FRAMES = _FRAMES["joint_denial_frames"]
EFFUSION_DENIALS = _FRAMES["effusion_denials"]
NORMAL_FRAMES = _FRAMES["normal_frames"]
NORMAL_WITHOUT_ORGAN = _FRAMES["normal_without_organ"]
REMAINDER = _FRAMES["remainder"]
REGIONS: dict[str, tuple[str, ...]] = _texts(_TABLE["regions"])
HEADINGS: dict[str, tuple[str, ...]] = _texts(_TABLE["headings"])
NORMAL_IMPRESSIONS = _FRAMES["normal_impressions"]
QUIET_IMPRESSIONS = _FRAMES["quiet_impressions"]
"""For a report that omits all its positive findings: true whatever the labels are."""
SUMMARIES = _FRAMES["summaries"]
INCIDENTALS = _FRAMES["incidentals"]
TECHNIQUE = _FRAMES["technique"]
REFERENCES = _FRAMES["references"]
LEADING_REFERENCE: str = _TABLE["leading_reference"]
GRADES: tuple[dict[str, tuple[str, ...]], ...] = tuple(_texts(grade) for grade in _TABLE["grades"])
"""Words for a low, medium and high severity, by slot."""


def pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    """One of the wordings, each equally likely."""
    return options[int(rng.integers(len(options)))]


def listed(parts: Sequence[str], word: str) -> str:
    """Joins phrases with commas and a last ``and`` or ``or``."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + f" {word} {parts[-1]}"
