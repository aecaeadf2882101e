"""The observations of a report: single statements on the scan, the texts that pathology queries are aligned with.

The pathological observations of a report in PLACE (Wang et al., https://arxiv.org/abs/2506.10573), our reading of its
abstract, whose equations were not available.
"""

import re
import tomllib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from monai.transforms import Randomizable, Transform

from bundle.ctfindings.anatomy import THORAX, anatomy_index
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.reports.assertion import Assertion
from bundle.ctfindings.reports.body_regions import regions
from bundle.ctfindings.reports.captions import PlacedSentence, place_sentences
from bundle.ctfindings.reports.finding_mentions import clauses_with_region
from bundle.ctfindings.reports.statements import Kind, read_statement

_TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
_COMPARISON = re.compile(rf"\b(?:{'|'.join(_TABLE['comparison'])})")
_OUTSIDE = frozenset(_TABLE["outside"])


class Observation(NamedTuple):
    """One observation of a report."""

    text: str
    anatomy: int  # row of the anatomy table; -1 if it names several, none, or is normal and names only the thorax
    normal: bool  # it denies an abnormality or calls the anatomy normal
    findings: tuple[int, ...] = ()  # columns of the finding table that it states or, if normal, denies


@lru_cache(maxsize=1 << 14)
def read_observations(findings: str, impression: str = "") -> tuple[Observation, ...]:
    """The observations of a report in its order, those of the impression first, each text once.

    An observation is a sentence that states something abnormal, normal or absent; a sentence with more than one finding
    is divided into its clauses. Left out are remarks, headings, comparisons with an earlier examination, sentences on
    regions that a chest CT shows in part only (``observations.toml``), and normal ones without a region and a finding.
    """
    distinct: dict[str, Observation] = {}
    for sentence in place_sentences(findings, impression):
        for observation in _observations_of(sentence):
            distinct.setdefault(normalise(observation.text), observation)
    return tuple(distinct.values())


def normalise(text: str) -> str:
    """The text without what makes no other statement of it: case, blanks, the final stop."""
    return " ".join(text.lower().split()).rstrip(" .;,")


def _observations_of(sentence: PlacedSentence) -> Iterator[Observation]:
    lowered = sentence.text.lower()
    clauses = list(clauses_with_region(lowered, sentence.region)) if len(sentence.statement.mentions) > 1 else []
    for start, end, region in clauses if len(clauses) > 1 else [(0, len(lowered), sentence.region)]:
        text = sentence.text[start:end].strip()
        named = {name for name, _, _ in regions(text.lower())}
        if not text or text.endswith(":") or _COMPARISON.search(text.lower()) or (named and named <= _OUTSIDE):
            continue
        statement = read_statement(text, region)
        normal = statement.kind is Kind.NORMAL
        if statement.kind is Kind.ABNORMAL or (normal and (named or statement.mentions)):
            inherited = () if sentence.lost else sentence.anatomies
            anatomies = (() if normal else statement.abnormal) or statement.anatomies or inherited
            yield Observation(text, _row(anatomies, normal), normal, _columns(statement.mentions, normal))


def _row(anatomies: tuple[str, ...], normal: bool) -> int:
    row = anatomy_index(anatomies[0]) if len(anatomies) == 1 else -1
    # Bones, breast and chest wall are all thorax; two of them are normal in different ways.
    return -1 if normal and row == THORAX else row


def _columns(mentions: Mapping[str, Assertion], normal: bool) -> tuple[int, ...]:
    meant = (Assertion.ABSENT,) if normal else (Assertion.UNCERTAIN, Assertion.PRESENT)
    return tuple(column for column, name in enumerate(FINDING_NAMES) if mentions.get(name) in meant)


def check_observations(**splits: Sequence[Mapping[str, Any]]) -> None:
    """Refuses studies from whose reports nothing could be learned.

    Args:
        splits: Studies by name of their split; an empty split is passed over.

    Raises:
        ValueError: No report of a split states an observation that the rules read.
    """
    for split, studies in splits.items():
        if studies and not any(observations_of(study.get("report")) for study in studies):
            raise ValueError(
                f"{split}: no report states an observation that the rules can read, and PLACE learns from them alone; "
                "give English reports (docs/datalist.md), or choose another objective"
            )


def observations_of(report: Mapping[str, Any] | None) -> tuple[Observation, ...]:
    """The observations of the report of a study; without a report there are none."""
    given = report or {}
    return read_observations(str(given.get("findings") or ""), str(given.get("impression") or ""))


class RandObservationsd(Randomizable, Transform):
    """Draws observations of each report: adds ``observations``, a list of ``Observation``, to the study.

    Args:
        abnormal, normal: largest number of abnormal and of normal observations of a study; a report has a few of the
            first and many of the second, which other reports repeat word for word.
        draw: whether to draw them again at each access; otherwise the first ones are taken, as in validation.
    """

    keys = ("observations",)
    """What it changes: ``cached_dataset`` refuses random steps that change an image whose tokens are cached."""

    def __init__(self, abnormal: int = 12, normal: int = 4, draw: bool = True) -> None:
        self.limits = {False: abnormal, True: normal}
        self.draw = draw

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """A copy of the study with its observations; without a report there are none."""
        study = dict(data)
        study["observations"] = []
        found = observations_of(study.get("report"))
        for normal, limit in self.limits.items():
            kind = [observation for observation in found if observation.normal is normal]
            order = list(self.R.permutation(len(kind)) if self.draw else range(len(kind)))
            study["observations"] += [kind[index] for index in order[:limit]]
        return study
