"""Folds of findings that a training never learns about, and the datalists that leave them out."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from bundle.ctfindings.data.study_record import PATH_KEYS
from bundle.ctfindings.files.atomic_write import write_text
from bundle.ctfindings.findings import FINDING_NAMES, FINDINGS
from bundle.ctfindings.reports.captions import read_report
from bundle.ctfindings.reports.finding_mentions import clause_mentions, find_mentions
from bundle.ctfindings.reports.plain_text import plain
from bundle.ctfindings.reports.sentences import split_sentences

Regime = Literal["unseen", "unlabelled"]
REGIMES: dict[Regime, str] = {
    "unseen": "no label, mask, prompt, synonym or sentence of the finding",
    "unlabelled": "its sentences stay in the reports; no label, mask, prompt or synonym",
}

FOLDS: tuple[tuple[str, ...], ...] = (
    ("Medical material", "Arterial wall calcification", "Coronary artery wall calcification"),
    ("Cardiomegaly", "Pericardial effusion", "Pleural effusion"),
    ("Lung nodule", "Lung opacity", "Consolidation"),
    ("Emphysema", "Mosaic attenuation pattern", "Hiatal hernia"),
    ("Bronchiectasis", "Peribronchial thickening", "Interlobular septal thickening"),
    ("Atelectasis", "Pulmonary fibrotic sequela", "Lymphadenopathy"),
)
"""Findings that leave the training together. Most are neighbours in meaning, so that none speaks for another; medical
material, hiatal hernia and lymphadenopathy have no neighbour among the 18."""

TRAINED_ON = ("training", "validation")
"""Splits that the training reads; labels of the others only score it."""


def withhold(datalist: Path, held_out: Sequence[str], regime: Regime, output: Path) -> Path:
    """Writes a datalist whose training and validation know nothing of some findings.

    Their labels become -1, which also keeps their masks out of every objective. In the regime ``unseen``, sentences
    that name one of them leave the reports and the snippets, and the captions are read anew from what remains.

    Args:
        datalist: JSON file.
        held_out: Names of findings.
        regime: One of ``REGIMES``.
        output: File to write.
    """
    content = json.loads(datalist.read_text(encoding="utf-8"))
    reduced = {
        split: [_study(study, datalist.parent, held_out if split in TRAINED_ON else (), regime) for study in studies]
        for split, studies in content.items()
        if isinstance(studies, list)
    }
    write_text(output, json.dumps({"name": f"without {', '.join(held_out)}", **reduced}))
    return output.resolve()


def names_finding(sentence: str, findings: Sequence[str]) -> bool:
    """Whether a sentence names one of the findings, by the rules of the report reader or by one of their wordings."""
    text = plain(sentence)
    if {*clause_mentions(text), *find_mentions(sentence)} & set(findings):
        return True
    return any(
        phrase.lower() in text
        for finding in FINDINGS
        if finding.name in findings
        for phrase in (finding.name, *finding.synonyms)
    )


def _study(study: Mapping[str, Any], folder: Path, held_out: Sequence[str], regime: Regime) -> dict[str, Any]:
    placed: dict[str, Any] = {
        key: str((folder / value).resolve()) if key in PATH_KEYS else value for key, value in study.items()
    }
    if not held_out:
        return placed
    labels = zip(FINDING_NAMES, placed["labels"], strict=True)
    placed["labels"] = [-1 if name in held_out else label for name, label in labels]
    if regime == "unlabelled":
        return placed
    report = {section: _without(text, held_out) for section, text in placed.get("report", {}).items()}
    captions = read_report(report.get("findings", ""), report.get("impression", "")).captions
    placed["report"] = report
    placed["captions"] = {name: vars(caption) for name, caption in captions.items()}
    placed["snippets"] = [each for each in placed.get("snippets", ()) if not names_finding(each["text"], held_out)]
    return placed


def _without(text: str, held_out: Sequence[str]) -> str:
    """A section without the sentences that name a finding; the others as they stand."""
    named = [each for each in split_sentences(text) if names_finding(each.text, held_out)]
    for sentence in reversed(named):
        text = text[: sentence.start] + text[sentence.end :]
    return "\n".join(line.strip() for line in text.splitlines() if any(map(str.isalnum, line)))
