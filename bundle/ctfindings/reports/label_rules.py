"""Rules that find mentions of the 18 findings in a report."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from bundle.ctfindings.findings import FINDING_NAMES

_TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class MentionRule:
    """Words that mention a finding within one clause.

    Attributes:
        mention: words whose assertion counts.
        near: words that the clause must also contain.
        unless: words with which the clause does not mean the finding.
        not_in: regions in which the words mean something else; the region nearest to the mention decides.
        denial_only: whether the words only count when they are negated.
    """

    mention: re.Pattern[str]
    near: re.Pattern[str] | None
    unless: re.Pattern[str] | None
    not_in: frozenset[str]
    denial_only: bool


def _words(entries: list[str]) -> list[str]:
    """The entries with each "@name" replaced by the list of that name."""
    return [word for entry in entries for word in (_TABLE["lists"][entry[1:]] if entry[0] == "@" else [entry])]


def _pattern(entries: list[str] | None) -> re.Pattern[str] | None:
    return re.compile("|".join(_words(entries))) if entries else None


def _rule(entry: dict) -> MentionRule:
    return MentionRule(
        mention=re.compile(rf"\b(?:{'|'.join(_words(entry['mention']))})"),
        near=_pattern(entry.get("near")),
        unless=_pattern(entry.get("unless")),
        not_in=frozenset(_words(entry.get("not_in", []))),
        denial_only=entry.get("denial_only", False),
    )


RULES: dict[str, tuple[MentionRule, ...]] = {
    name: tuple(_rule(entry) for entry in _TABLE["rule"] if entry["finding"] == name) for name in FINDING_NAMES
}
"""Rules of each finding by its CT-RATE name; one match is enough."""

_NOT_NORMAL = re.compile(_TABLE["not_normal"])
_NORMAL_STATEMENTS: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = tuple(
    (re.compile(entry["statement"]), tuple(entry["denies"])) for entry in _TABLE["normal"]
)


def without_not_normal(clause: str) -> str:
    """A clause in lower case without what says "not normal": "the heart size is not normal" is no normal statement."""
    return _NOT_NORMAL.sub(lambda found: found[0] if found["denied"] else "", clause)


def denied_by_normal(affirmed: str) -> set[str]:
    """The findings that a clause denies by calling a region normal; ``affirmed`` is from ``without_not_normal``."""
    return {finding for statement, denied in _NORMAL_STATEMENTS if statement.search(affirmed) for finding in denied}
