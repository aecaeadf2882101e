"""The regions of the body that a sentence of a report names, and the anatomy of each."""

import re
import tomllib
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

_TABLE: dict[str, dict] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
_WORDS = {region: "|".join(entry["words"]) for region, entry in _TABLE.items()}
_PATTERN = re.compile(r"\b(?:" + "|".join(f"(?P<{region}>{words})" for region, words in _WORDS.items()) + ")")

REGION_ANATOMY: dict[str, str] = {region: entry["anatomy"] for region, entry in _TABLE.items()}
"""The anatomy of each region. A region of the thorax has no mask of its own."""


@lru_cache(maxsize=1 << 16)
def regions(text: str) -> tuple[tuple[str, int, int], ...]:
    """Mentions of regions in a text in lower case, in order, as (region, start, end)."""
    return tuple((match.lastgroup or "", match.start(), match.end()) for match in _PATTERN.finditer(text))


def nearest_region(mentions: Sequence[tuple[str, int, int]], start: int, end: int) -> str | None:
    """The region whose words are nearest to ``[start, end)``, the earlier of two; None without mentions."""
    # Mentions are in order and do not overlap: the nearest one is the last that starts before, or the next one.
    after = bisect_right(mentions, start, key=lambda mention: mention[1])
    best, distance = None, 10**9
    for region, first, last in mentions[max(0, after - 1) : after + 1]:
        gap = max(first - end, start - last, 0)
        if gap < distance:
            best, distance = region, gap
    return best
