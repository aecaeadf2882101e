"""Mentions of the 18 findings in a report, and the labels that follow: 1 present, 0 denied, -1 unknown."""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType

from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.reports.assertion import Assertion, assertion, split_clauses
from bundle.ctfindings.reports.body_regions import nearest_region, regions
from bundle.ctfindings.reports.label_rules import RULES, denied_by_normal, without_not_normal
from bundle.ctfindings.reports.plain_text import plain

LABEL_OF_ASSERTION = {Assertion.ABSENT: 0, Assertion.HISTORICAL: -1, Assertion.UNCERTAIN: -1, Assertion.PRESENT: 1}
"""Label of each assertion. Doubt ("atelectasis?") and history ("status post") leave the label unknown."""

# Most clauses have none of these words and mention no finding.
_ANY_MENTION = re.compile("|".join(rule.mention.pattern for rules in RULES.values() for rule in rules))
_CACHED_SENTENCES = 1 << 16  # Reports repeat their normal sentences word for word.


@lru_cache(maxsize=_CACHED_SENTENCES)
def find_mentions(sentence: str, region: str | None = None) -> Mapping[str, Assertion]:
    """Strongest assertion of each finding that a sentence mentions, by CT-RATE name; cached, therefore read-only.

    ``region`` of ``body_regions`` holds for a sentence without one.
    """
    lowered = plain(sentence)
    clauses = clauses_with_region(lowered, region)
    return MappingProxyType(strongest(clause_mentions(lowered[start:end], held) for start, end, held in clauses))


def clauses_with_region(sentence: str, region: str | None = None) -> Iterator[tuple[int, int, str | None]]:
    """Start, end and region of each clause of a sentence in lower case.

    For a clause that names no region, the last one named earlier in the sentence holds, else ``region``.
    """
    for start, end in split_clauses(sentence):
        yield start, end, region
        region = carried_region(sentence[start:end], region)


@lru_cache(maxsize=_CACHED_SENTENCES)
def clause_mentions(clause: str, region: str | None = None) -> Mapping[str, Assertion]:
    """As ``find_mentions`` for one clause in lower case."""
    affirmed = without_not_normal(clause)
    said = dict.fromkeys(denied_by_normal(affirmed), Assertion.ABSENT)
    if not _ANY_MENTION.search(clause):
        return MappingProxyType(said)
    for finding, rules in RULES.items():
        for rule in rules:
            matches = list(rule.mention.finditer(clause))
            if not matches or (rule.near and not rule.near.search(clause)):
                continue
            if rule.unless and rule.unless.search(affirmed):
                continue
            for match in matches:
                if rule.not_in and (nearest_region(regions(clause), *match.span()) or region) in rule.not_in:
                    continue
                value = assertion(clause, *match.span())
                if value is Assertion.ABSENT or not rule.denial_only:
                    said[finding] = max(value, said.get(finding, value))
    return MappingProxyType(said)


def strongest(mentions: Iterable[Mapping[str, Assertion]]) -> dict[str, Assertion]:
    """The strongest assertion of each finding over several sentences or clauses."""
    said: dict[str, Assertion] = {}
    for sentence in mentions:
        for finding, value in sentence.items():
            said[finding] = max(value, said.get(finding, value))
    return said


def to_labels(said: Mapping[str, Assertion], policy: Mapping[Assertion, int], unmentioned: int = -1) -> list[int]:
    """The 18 labels in the order of the finding table: by ``policy``, or ``unmentioned`` without a mention."""
    return [policy[said[name]] if name in said else unmentioned for name in FINDING_NAMES]


def carried_region(sentence: str, before: str | None) -> str | None:
    """The region that holds for a following sentence without one: the last region of this sentence, or ``before``."""
    named = regions(plain(sentence))
    return named[-1][0] if named else before
