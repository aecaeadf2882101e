"""Wordings of a prompt that mean the same: one change at a time of a reference template, for measuring how far scores
move.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.findings import FINDING_ANATOMY, TEMPLATES, Finding, fill_template, finding_index

REFERENCE = next(template for template in TEMPLATES if template.id == "T3")
"""There is {a}. / There is no {a}."""

SYNONYMS = 3
"""How many of a finding's other names are tried; every finding of the table has at least so many."""


@dataclass(frozen=True)
class Wording:
    """A perturbation.

    Attributes:
        id: its name in records and figures.
        change: what it does, in words.
        pair: a finding to its positive and negative prompt.
    """

    id: str
    change: str
    pair: Callable[[Finding], tuple[str, str]]


def _filled(finding: Finding, phrase: str | None = None, suffix: str = "") -> tuple[str, str]:
    name = (finding.name if phrase is None else phrase) + suffix
    return fill_template(REFERENCE.positive, name), fill_template(REFERENCE.negative, name)


def _both(pair: tuple[str, str], change: Callable[[str], str]) -> tuple[str, str]:
    return change(pair[0]), change(pair[1])


def _with_article(finding: Finding) -> tuple[str, str]:
    name = finding.name.lower()
    article = "an" if name[0] in "aeiou" else "a"
    return f"There is {article} {name}.", f"There is not {article} {name}."


def _in_anatomy(finding: Finding) -> tuple[str, str]:
    anatomy = ANATOMY_NAMES[FINDING_ANATOMY[finding_index(finding.name)]]
    return _filled(finding, suffix=f" in the {'chest' if anatomy == 'thorax' else anatomy}")


def _synonym(number: int) -> Callable[[Finding], tuple[str, str]]:
    return lambda finding: _filled(finding, finding.synonyms[number])


WORDINGS: tuple[Wording, ...] = (
    Wording("lower case", "no capital", lambda finding: _both(_filled(finding), str.lower)),
    Wording("upper case", "capitals throughout", lambda finding: _both(_filled(finding), str.upper)),
    Wording(
        "no stop", "without the full stop", lambda finding: _both(_filled(finding), lambda text: text.removesuffix("."))
    ),
    Wording("article", "a or an before the name", _with_article),
    Wording("anatomy", "followed by 'in the' and the anatomy", _in_anatomy),
    *(Wording(f"synonym {number + 1}", "another name of the finding", _synonym(number)) for number in range(SYNONYMS)),
)
"""Case makes no difference to a text encoder that lower-cases; it is measured all the same. Synonyms are phrases that
the disease prompts of training use, the templates are not."""
