"""The finding table: the 18 findings of CT-RATE in its column order, their anatomy, prompts and label-set mappings."""

from __future__ import annotations

from dataclasses import dataclass

from bundle.ctfindings.anatomy import anatomy_index


@dataclass(frozen=True)
class Finding:
    """One of the 18 findings.

    Attributes:
        name: the column name in CT-RATE's label table.
        anatomy: name of the anatomy whose embedding row answers for it.
        localized: whether the finding has a bounded site, so that the position of its evidence can be scored.
        positive: training prompts that state it, in three registers: presence, radiologist's phrase, image description.
        negative: training prompts that deny it, in the same order.
        radchestct: Rad-ChestCT abnormalities that make it positive, as in the literature ("standard").
        radchestct_extended: the clinically closer choice, where it differs; not comparable with published numbers.
    """

    name: str
    anatomy: str
    localized: bool
    positive: tuple[str, str, str]
    negative: tuple[str, str, str]
    radchestct: tuple[str, ...] = ()
    radchestct_extended: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Template:
    """A pair of zero-shot prompt templates; ``{a}`` is the finding in lower case."""

    id: str
    positive: str
    negative: str


# Templates of the RadFinder evaluation (T5 is fVLM's wording, T7 CT-CLIP's). They are for scoring: no training text uses them.
TEMPLATES: tuple[Template, ...] = (
    Template("T1", "{a}.", "No {a}."),
    Template("T2", "Findings are compatible with {a}.", "Findings are not compatible with {a}."),
    Template("T3", "There is {a}.", "There is no {a}."),
    Template("T4", "{a} is seen.", "{a} is not seen."),
    Template("T5", "{a}.", "Not {a}."),
    Template("T6", "{a} is observed.", "{a} is not observed."),
    Template("T7", "{a} is present.", "{a} is not present."),
)


def fill_template(template: str, phrase: str) -> str:
    """Puts a phrase into a template: lower case inside, capital at the start of the sentence."""
    text = template.format(a=phrase[:1].lower() + phrase[1:])
    return text[:1].upper() + text[1:]


# PROMPT BANK
FINDINGS: tuple[Finding, ...] = (
    Finding(
        "Medical material",
        "thorax",
        False,
        ("Foreign material of medical origin is in the chest", "An implanted device or indwelling catheter", "A dense metallic object with streak artefacts"),
        ("The chest is free of medical devices", "Without implants, lines or tubes", "No metallic object and no streak artefact anywhere"),
        ("catheter_or_port", "tracheal_tube", "chest_tube", "breast_implant", "pacemaker_or_defib", "stent", "clip", "staple", "gi_tube", "hardware", "suture"),
    ),
)

FINDING_NAMES: tuple[str, ...] = tuple(finding.name for finding in FINDINGS)
FINDING_ANATOMY: tuple[int, ...] = tuple(anatomy_index(finding.anatomy) for finding in FINDINGS)
"""For each finding the row of its anatomy in ``ANATOMIES``."""


def finding_index(name: str) -> int:
    """Column of a finding by its CT-RATE name, in any case.

    Raises:
        ValueError: when the name is not in the table.
    """
    lowered = [known.lower() for known in FINDING_NAMES]
    if name.lower() not in lowered:
        raise ValueError(f"finding {name!r} is unknown; known are {', '.join(FINDING_NAMES)}")
    return lowered.index(name.lower())
