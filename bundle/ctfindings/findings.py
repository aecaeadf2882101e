"""The finding table: the 18 findings of CT-RATE in its column order, their anatomy, prompts and label-set mappings."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bundle.ctfindings.anatomy import anatomy_index

_TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


REGISTERS = ("presence", "phrase", "image")
"""How a training prompt speaks: it states the presence, says a radiologist's phrase, or describes the image."""


@dataclass(frozen=True)
class Finding:
    """One of the 18 findings.

    Attributes:
        name: the column name in CT-RATE's label table.
        code: its code value, scheme and meaning in DICOM.
        radlex: its RadLex id and preferred name; None without a verified one.
        anatomy: the anatomy whose embedding row is scored for it.
        localized: whether the finding has a bounded site, so that the position of its evidence can be scored.
        positive, negative: training prompts that state or deny it, one for each of ``REGISTERS``.
        synonyms: other noun phrases for it, used in training with ``TRAINING_TEMPLATES``.
        radchestct: Rad-ChestCT abnormalities that make it positive, as in the literature ("standard").
        radchestct_extended: the clinically closer choice, where it differs; not comparable with published numbers.
        dense: whether it consists of calcium or metal, and cannot be seen in a scan whose HU were clipped.
    """

    name: str
    code: tuple[str, str, str]
    anatomy: str
    localized: bool
    positive: tuple[str, str, str]
    negative: tuple[str, str, str]
    synonyms: tuple[str, ...]
    radchestct: tuple[str, ...]
    radchestct_extended: tuple[str, ...] | None = None
    dense: bool = False
    radlex: tuple[str, str] | None = None


@dataclass(frozen=True)
class Template:
    """A pair of zero-shot prompt templates; ``{a}`` is the finding in lower case."""

    id: str
    positive: str
    negative: str


TEMPLATES: tuple[Template, ...] = tuple(Template(id, **pair) for id, pair in _TABLE["scoring_templates"].items())
"""Scoring templates of the RadFinder evaluation; no training text uses them."""

TRAINING_TEMPLATES: tuple[tuple[str, str], ...] = tuple((yes, no) for yes, no in _TABLE["training_templates"])
"""Positive and negative presence statements for training."""


def fill_template(template: str, phrase: str) -> str:
    """Puts a phrase into a template: lower case inside, capital at the start of the sentence."""
    text = template.format(a=phrase[:1].lower() + phrase[1:])
    return text[:1].upper() + text[1:]


def _frozen(value: Any) -> Any:
    """Lists of the table as tuples, and prompts by register as the tuple of them."""
    listed = [value[register] for register in REGISTERS] if isinstance(value, dict) else value
    return tuple(listed) if isinstance(listed, list) else listed


def _finding(**entry: Any) -> Finding:
    return Finding(**{name: _frozen(value) for name, value in entry.items()})


FINDINGS: tuple[Finding, ...] = tuple(_finding(**entry) for entry in _TABLE["finding"])
FINDING_NAMES: tuple[str, ...] = tuple(finding.name for finding in FINDINGS)
FINDING_ANATOMY: tuple[int, ...] = tuple(anatomy_index(finding.anatomy) for finding in FINDINGS)
"""For each finding the row of its anatomy in ``ANATOMIES``."""


def finding_index(name: str) -> int:
    """Column of a finding by its CT-RATE name, in any case; ``ValueError`` if the table does not have it."""
    lowered = [known.lower() for known in FINDING_NAMES]
    if name.lower() not in lowered:
        raise ValueError(f"finding {name!r} is unknown; known are {', '.join(FINDING_NAMES)}")
    return lowered.index(name.lower())


def _without(*names: str) -> tuple[str, ...]:
    return tuple(name for name in FINDING_NAMES if name not in names)


_NO_ORGAN_IN_FVLM = ("Medical material", "Lymphadenopathy")
_MERGED_OR_DROPPED_IN_RADCHESTCT = ("Coronary artery wall calcification", "Mosaic attenuation pattern")
LABEL_SETS: dict[str, tuple[str, ...]] = {
    "ctrate18": FINDING_NAMES,
    "ctrate16_fvlm": _without(*_NO_ORGAN_IN_FVLM),
    "radchest16": _without(*_MERGED_OR_DROPPED_IN_RADCHESTCT),
    "radchest14": _without(*_NO_ORGAN_IN_FVLM, *_MERGED_OR_DROPPED_IN_RADCHESTCT),
}
"""Sets of findings to average over; report the name of the set with the number. ``radchest16`` is CT-CLIP's external
protocol, ``radchest14`` its intersection with ``ctrate16_fvlm``."""


@cache
def training_wordings(finding: Finding) -> tuple[tuple[str, str], ...]:
    """Pairs of a positive and a negative training text: the prompt bank, and the training templates over all names."""
    phrases = (finding.name, *finding.synonyms)
    filled = tuple(
        (fill_template(yes, phrase), fill_template(no, phrase)) for phrase in phrases for yes, no in TRAINING_TEMPLATES
    )
    return tuple(zip(finding.positive, finding.negative, strict=True)) * 4 + filled
