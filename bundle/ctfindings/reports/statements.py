"""Whether a sentence of a report states an abnormality, and of which anatomy."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.findings import FINDINGS
from bundle.ctfindings.reports.assertion import Assertion, assertion
from bundle.ctfindings.reports.body_regions import REGION_ANATOMY, nearest_region, regions
from bundle.ctfindings.reports.finding_mentions import clause_mentions, clauses_with_region, find_mentions
from bundle.ctfindings.reports.label_rules import without_not_normal
from bundle.ctfindings.reports.plain_text import plain
from bundle.ctfindings.reports.word_lists import read_alternatives


class Kind(Enum):
    """Kind of a sentence: an abnormality, something normal or absent, a remark on the examination, or other."""

    ABNORMAL = "abnormal"
    NORMAL = "normal"
    REMARK = "remark"
    OTHER = "other"


@dataclass(frozen=True)
class Statement:
    """The content of one sentence.

    Attributes:
        kind: kind of the sentence as a whole.
        anatomies: anatomies that it names, in the order of the anatomy table.
        abnormal: anatomies of which it states an abnormality.
        mentions: assertion of each finding of the table that it mentions.
    """

    kind: Kind
    anatomies: tuple[str, ...]
    abnormal: tuple[str, ...]
    mentions: Mapping[str, Assertion]


_ANATOMY_OF = {finding.name: finding.anatomy for finding in FINDINGS}
_WORDS = read_alternatives(__file__)
_ABNORMAL = re.compile(rf"\b(?:{_WORDS['abnormal']})")
_NORMAL = re.compile(rf"\b(?:{_WORDS['normal']})\b")
_LACKS = re.compile(rf"\b(?:{_WORDS['lacks']})\b")
_REMARK = re.compile(rf"\b(?:{_WORDS['remark']})")
_FINDS_NORMAL = re.compile(rf"\b(?:{_WORDS['finds_normal']})")


@lru_cache(maxsize=1 << 16)
def read_statement(sentence: str, region: str | None = None) -> Statement:
    """Reads one sentence; ``region`` of ``body_regions`` holds for a sentence without one.

    A finding of the table makes its own anatomy abnormal; other pathology makes the nearest named region abnormal, or
    ``region`` when the sentence names none. Doubt ("atelectasis?") counts as abnormal; denial and history do not.
    """
    lowered = plain(sentence)
    mentions = find_mentions(sentence, region)
    named = {REGION_ANATOMY[name] for name, _, _ in regions(lowered)}
    abnormal: set[str] = set()
    stated = denied = False
    for start, end, held in clauses_with_region(lowered, region):
        clause = lowered[start:end]
        # "Evaluation in terms of pneumonia is recommended" states no pneumonia.
        enough = Assertion.PRESENT if "recommend" in clause else Assertion.UNCERTAIN
        found = {_ANATOMY_OF[finding] for finding, said in clause_mentions(clause, held).items() if said >= enough}
        if found:
            abnormal |= found
            stated = True
            continue
        for match in _ABNORMAL.finditer(clause):
            said = assertion(clause, *match.span())
            denied |= said is Assertion.ABSENT
            if said < enough:
                continue
            stated = True
            nearest = nearest_region(regions(clause), *match.span()) or nearest_region(regions(lowered), start, end)
            if nearest := nearest or region:
                abnormal.add(REGION_ANATOMY[nearest])
    return Statement(
        _kind(lowered, stated, denied, mentions), _in_order(named | abnormal), _in_order(abnormal), mentions
    )


def _kind(lowered: str, stated: bool, denied: bool, mentions: Mapping[str, Assertion]) -> Kind:
    if stated:
        return Kind.ABNORMAL
    if _REMARK.search(lowered) and not _FINDS_NORMAL.search(lowered):
        return Kind.REMARK
    denies = bool(mentions) and max(mentions.values()) is Assertion.ABSENT
    denies = denies or (denied and _LACKS.search(lowered) is not None)
    return Kind.NORMAL if denies or _NORMAL.search(without_not_normal(lowered)) else Kind.OTHER


def _in_order(names: set[str]) -> tuple[str, ...]:
    return tuple(name for name in ANATOMY_NAMES if name in names)
