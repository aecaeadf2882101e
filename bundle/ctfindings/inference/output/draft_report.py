"""The draft report: the present findings of a record as sentences by anatomy; nothing that the record does not hold."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.inference.findings_record import FindingAnswer, FindingsRecord
from bundle.ctfindings.inference.output.console_table import printable

NOT_ASSESSED = "Not assessed"
NOTHING = "No finding at or above its threshold"
TITLE = "DRAFT REPORT - composed by a program, not read by a radiologist"


@dataclass(frozen=True)
class DraftReport:
    """The two parts of a report, each a list of sentences."""

    findings: dict[str, list[str]]  # by anatomy, those for which the record has a finding
    impression: list[str]

    @property
    def text(self) -> str:
        """Findings and impression as running text, as reports of a data set are."""
        return " ".join([*(sentence for spoken in self.findings.values() for sentence in spoken), *self.impression])


def compose_report(answers: Sequence[FindingAnswer]) -> DraftReport:
    """Sentences from the answers about one scan: present findings by falling probability, with side, slice and extent.

    An anatomy without a present finding says so, and one that was not assessed says why instead.
    """
    ordered = sorted(answers, key=lambda answer: -answer.probability)
    named = [name for name in ANATOMY_NAMES if any(answer.anatomy == name for answer in answers)]
    findings = {name: _of_anatomy([answer for answer in ordered if answer.anatomy == name]) for name in named}
    impression = [f"{_phrase(answer)}." for answer in ordered if answer.present]
    if not impression:
        assessed = sum(answer.present is not None for answer in answers)
        impression = [f"{NOTHING} ({assessed} assessed)." if assessed else f"{NOT_ASSESSED}."]
    return DraftReport(findings, impression)


def format_draft(record: FindingsRecord) -> str:
    """The draft of a record as plain text, with what a reader has to know around it."""
    draft = compose_report(record.findings)
    lines = [TITLE, record.disclaimer, ""]
    if record.notice:
        lines += [record.notice, ""]
    model = record.model
    lines += [f"Scan: {printable(record.scan.file)}", f"Made: {record.created} by {model.bundle} {model.version}", ""]
    # Anatomies with the same sentences share a line.
    alike: dict[str, list[str]] = {}
    for name, said in draft.findings.items():
        alike.setdefault(" ".join(said), []).append(name)
    titles = {said: ", ".join(names).capitalize() + " (each)" * (len(names) > 1) for said, names in alike.items()}
    lines += ["FINDINGS", *(f"{title}: {said}" for said, title in titles.items()), ""]
    lines += [
        "IMPRESSION",
        *([record.notice] if record.notice else []),
        *(f"{number}. {said}" for number, said in enumerate(draft.impression, start=1)),
        "",
    ]
    lines += ["LIMITS", f"The model answers for {len(record.findings)} findings. Nothing else of the scan was read."]
    lines += map(printable, record.warnings)
    return "\n".join(lines) + "\n"


def _of_anatomy(answers: Sequence[FindingAnswer]) -> list[str]:
    present = [_sentence(answer) for answer in answers if answer.present]
    assessed = [answer for answer in answers if answer.present is not None]
    if assessed and not present:
        present = [f"{NOTHING} ({len(assessed)} assessed)."]
    reasons = Counter(answer.not_assessed for answer in answers if answer.present is None)
    # Not by name: a reader that overlooks the beginning would take the name for a finding.
    part = {reason: f" ({count} of {len(answers)})" if assessed else "" for reason, count in reasons.items()}
    return present + [f"{NOT_ASSESSED}{part[reason]}{f': {reason}' if reason else ''}." for reason in reasons]


def _phrase(answer: FindingAnswer) -> str:
    """The finding and the place of its strongest evidence, which does not say that other places are free of it."""
    place = answer.evidence if answer.evidence and answer.evidence.extent == "focal" else None
    if place is None:
        return answer.name
    if place.region:
        return f"{answer.name}, strongest in the {place.region}"
    return f"{answer.name}, strongest {place.place}" if place.side else answer.name


def _sentence(answer: FindingAnswer) -> str:
    """The finding, its place and its probability."""
    parts = [_phrase(answer)]
    if place := answer.evidence:
        if place.extent != "focal":
            share = "" if place.share is None else f" over {place.share:.0%} of the {answer.anatomy}"
            parts.append(f"evidence {place.extent}{share}")
        parts.append(f"image {place.image} (z {place.z_mm:.0f} mm)")
    parts.append(f"probability {answer.probability:.2f}{' (borderline)' * answer.borderline}")
    return f"{', '.join(parts)}."
