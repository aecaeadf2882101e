"""Prompt perturbations: one change at a time of a reference template that keeps its meaning."""

from collections.abc import Callable
from dataclasses import dataclass

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.findings import FINDING_ANATOMY, TEMPLATES, Finding, fill_template, finding_index

REFERENCE = next(template for template in TEMPLATES if template.id == "T3")  # There is {a}. / There is no {a}.
SYNONYMS = 3  # Number of synonyms that are scored; every finding has at least as many


@dataclass(frozen=True)
class Perturbation:
    """A change of the reference prompts: its id, the change in words, and a finding's positive and negative prompt."""

    id: str
    change: str
    pair: Callable[[Finding], tuple[str, str]]


def _filled(finding: Finding, phrase: str | None = None, suffix: str = "") -> tuple[str, str]:
    name = (finding.name if phrase is None else phrase) + suffix
    return fill_template(REFERENCE.positive, name), fill_template(REFERENCE.negative, name)


def _changed(change: Callable[[str], str]) -> Callable[[Finding], tuple[str, str]]:
    def pair(finding: Finding) -> tuple[str, str]:
        positive, negative = _filled(finding)
        return change(positive), change(negative)

    return pair


def _with_article(finding: Finding) -> tuple[str, str]:
    name = finding.name.lower()
    article = "an" if name[0] in "aeiou" else "a"
    return f"There is {article} {name}.", f"There is not {article} {name}."


def _in_anatomy(finding: Finding) -> tuple[str, str]:
    anatomy = ANATOMY_NAMES[FINDING_ANATOMY[finding_index(finding.name)]]
    return _filled(finding, suffix=f" in the {'chest' if anatomy == 'thorax' else anatomy}")


def _synonym(index: int) -> Callable[[Finding], tuple[str, str]]:
    return lambda finding: _filled(finding, finding.synonyms[index])


PERTURBATIONS: tuple[Perturbation, ...] = (
    Perturbation("lower case", "no capital", _changed(str.lower)),
    Perturbation("upper case", "capitals throughout", _changed(str.upper)),
    Perturbation("no stop", "without the full stop", _changed(lambda text: text.removesuffix("."))),
    Perturbation("article", "a or an before the name", _with_article),
    Perturbation("anatomy", "followed by 'in the' and the anatomy", _in_anatomy),
    *(
        Perturbation(f"synonym {index + 1}", "another name of the finding", _synonym(index))
        for index in range(SYNONYMS)
    ),
)
"""A text encoder that lower-cases cannot see case. Training uses the synonyms in disease prompts, not the templates."""
