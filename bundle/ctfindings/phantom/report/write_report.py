"""Writes the radiology report of a synthetic scan: sentences on its sites, denials, normal regions, and captions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.phantom.case import Case, Site
from bundle.ctfindings.phantom.report.finding_sentences import (
    ANATOMY_OF,
    LOW_SEVERITY,
    WrittenSentence,
    WrittenSnippet,
    denial,
    joined_sentence,
    positive_sentences,
    positive_text,
    region_sentence,
    with_reference,
)
from bundle.ctfindings.phantom.report.phrases import WORDINGS
from bundle.ctfindings.phantom.report.sentence_frames import FRAMES, HEADINGS, listed, pick
from bundle.ctfindings.reports.captions import Caption

_OMISSION = 0.125
_CLOSINGS = ("Otherwise", "Nothing else", "No further", "The remainder")
_JOINED_PAIRS = (
    ("Bronchiectasis", "Peribronchial thickening"),
    ("Arterial wall calcification", "Coronary artery wall calcification"),
    ("Emphysema", "Pulmonary fibrotic sequela"),
    ("Mosaic attenuation pattern", "Interlobular septal thickening"),
)
_CONTRADICTED_BY = {"Lung opacity": "Consolidation"}  # "no infiltrate" beside a consolidation would be odd


@dataclass(frozen=True)
class Report:
    """A report with its captions by anatomy, a snippet for each slice reference, and the ground truth of each sentence.

    An anatomy that the report does not mention has no caption. Sentences of the findings section come first.
    """

    findings: str
    impression: str
    captions: dict[str, Caption]
    snippets: list[WrittenSnippet]
    sentences: list[WrittenSentence]


def _present(case: Case) -> list[str]:
    """Findings of a scan in the order of the table."""
    return [name for name, label in zip(FINDING_NAMES, case.labels, strict=True) if label == 1]


def _positives(
    case: Case, sites: dict[str, list[Site]], stated: set[str], rng: np.random.Generator
) -> list[WrittenSentence]:
    sentences: list[WrittenSentence] = []
    left = set(stated)
    for pair in _JOINED_PAIRS:
        if left.issuperset(pair) and rng.random() < 0.3:
            left.difference_update(pair)
            sentences.append(joined_sentence(case, pair, sites, rng))
    for name in FINDING_NAMES:
        if name in left:
            sentences.extend(positive_sentences(case, name, sites[name], rng))
    return sentences


def _negatives(absent: Sequence[str], rng: np.random.Generator) -> list[WrittenSentence]:
    told = [name for name in absent if rng.random() < WORDINGS[name].mention]
    sentences: list[WrittenSentence] = []
    if {"Pleural effusion", "Pericardial effusion"}.issubset(told) and rng.random() < 0.6:
        told = [name for name in told if name not in ("Pleural effusion", "Pericardial effusion")]
        sentences.append(denial(("Pericardial effusion", "Pleural effusion"), rng))
    by_chance = [told[i] for i in rng.permutation(len(told))]
    by_anatomy = sorted(by_chance, key=lambda name: ANATOMY_NAMES.index(ANATOMY_OF[name]))
    queue = by_anatomy if rng.random() < 0.8 else by_chance
    while queue:
        size = min(len(queue), int(rng.choice(3, p=(0.5, 0.35, 0.15))) + 1)
        sentences.append(denial(tuple(queue[:size]), rng))
        queue = queue[size:]
    return sentences


def _normals(case: Case, stated: set[str], headed: bool, rng: np.random.Generator) -> list[WrittenSentence]:
    """Sentences that an anatomy is normal, or, where the report states all its findings, that the rest of it is."""
    present = _present(case)
    sentences: list[WrittenSentence] = []
    normal = []
    for anatomy in ANATOMY_NAMES:
        findings = {name for name in present if ANATOMY_OF[name] == anatomy}
        if findings and findings <= stated and anatomy != "thorax" and rng.random() < 0.2:
            # Without a heading "otherwise" has no subject.
            bank = [text for text in FRAMES["remainder"] if headed or "{region}" in text]
            sentences.append(region_sentence((anatomy,), bank, rng))
        elif not findings and anatomy != "thorax" and rng.random() < 0.65:
            normal.append(anatomy)
    soft = [anatomy for anatomy in normal if anatomy != "lung"]
    if len(soft) > 1 and not headed and rng.random() < 0.35:
        chosen = tuple(soft[i] for i in rng.permutation(len(soft))[:2])
        normal = [anatomy for anatomy in normal if anatomy not in chosen]
        sentences.append(region_sentence(chosen, FRAMES["normal"], rng))
    for anatomy in normal:
        organless = headed and rng.random() < 0.4
        normal_bank = FRAMES["normal_without_organ"] if organless else FRAMES["normal"]
        sentences.append(region_sentence((anatomy,), normal_bank, rng))
    return sentences


def _blocks(sentences: Sequence[WrittenSentence], rng: np.random.Generator) -> list[tuple[str, list[WrittenSentence]]]:
    """Sentences by the anatomy they name first, in the order of the report."""
    in_order = rng.random() < 0.35
    order = ANATOMY_NAMES if in_order else [ANATOMY_NAMES[i] for i in rng.permutation(len(ANATOMY_NAMES))]
    blocks = []
    for anatomy in order:
        block = [sentence for sentence in sentences if sentence.anatomies[0] == anatomy]
        closing = [sentence for sentence in block if sentence.text.startswith(_CLOSINGS)]
        opening = [sentence for sentence in block if sentence not in closing]
        block = [opening[i] for i in rng.permutation(len(opening))]
        if rng.random() < 0.75:
            block.sort(key=lambda sentence: not sentence.findings)
        if block or closing:
            blocks.append((anatomy, block + closing))
    return blocks


def _remarks(case: Case, rng: np.random.Generator) -> tuple[list[WrittenSentence], list[WrittenSentence]]:
    """Technique remarks and incidental findings; neither changes a label."""
    contrast = "with intravenous contrast" if case.contrast else "without contrast agent"
    technique, incidental = [], []
    if rng.random() < 0.3:
        text = pick(rng, FRAMES["technique"]).format(contrast=contrast, spacing=f"{case.spacing[2]:g}")
        technique.append(WrittenSentence(text, (), (), text))
    for i in rng.permutation(len(FRAMES["incidentals"]))[: int(rng.choice(4, p=(0.35, 0.35, 0.2, 0.1)))]:
        incidental.append(WrittenSentence(FRAMES["incidentals"][i], (), (), FRAMES["incidentals"][i]))
    return technique, incidental


def _impression(
    case: Case, sites: dict[str, list[Site]], stated: set[str], absent: Sequence[str], rng: np.random.Generator
) -> list[WrittenSentence]:
    """The important positive findings by severity, or a normal or quiet conclusion when the report states none."""
    if not stated:
        text = pick(rng, FRAMES["quiet_impressions"] if 1 in case.labels else FRAMES["normal_impressions"])
        return [WrittenSentence(text, ("thorax",), (), text, "impression")]
    severity = {name: max(site.severity for site in sites[name]) for name in stated}
    ranked = sorted(stated, key=lambda name: (-severity[name], name))
    chosen = [name for i, name in enumerate(ranked) if i == 0 or severity[name] >= 0.5 or rng.random() < 0.5]
    sentences = []
    while chosen:
        name = chosen.pop(0)
        partner = next((other for other in chosen if ANATOMY_OF[other] == ANATOMY_OF[name]), None)
        if partner is not None and name != "Medical material" and rng.random() < 0.3:
            chosen.remove(partner)
            sentences.append(joined_sentence(case, (name, partner), sites, rng))
            continue
        several = sum(site.count for site in sites[name]) > 1
        marked = positive_text(name, sites[name], sites[name], FRAMES["impression"], several, rng)
        sentences.append(with_reference(case, marked, (name,), None, rng))
    if absent and rng.random() < 0.15:
        names = tuple(absent[i] for i in rng.permutation(len(absent))[:2])
        sentences.append(denial(names, rng))
    return [replace(sentence, section="impression") for sentence in sentences]


def _layout(blocks: Sequence[tuple[str, list[WrittenSentence]]], style: str, rng: np.random.Generator) -> str:
    if style == "dashes":
        return "\n".join(f"- {sentence.text}" for _, block in blocks for sentence in block)
    lines = []
    for anatomy, block in blocks:
        heading = f"{pick(rng, HEADINGS[anatomy])}: " if style == "headed" and anatomy else ""
        lines.append(heading + " ".join(sentence.text for sentence in block))
    return (" " if style == "prose" else "\n").join(lines)


def _captions(
    case: Case,
    sentences: Sequence[WrittenSentence],
    stated: set[str],
    called_normal: set[str],
    rng: np.random.Generator,
) -> dict[str, Caption]:
    """Captions by anatomy, without slice references; the report calls the ``called_normal`` anatomies normal."""
    impression = [sentence for sentence in sentences if sentence.section == "impression"]
    body = [sentence for sentence in sentences if sentence.section == "findings"]
    abnormal = {ANATOMY_OF[name] for name in _present(case)}
    captions = {}
    for anatomy in ANATOMY_NAMES:
        if anatomy == "thorax":
            texts = [s.plain for s in impression] + [s.plain for s in body if anatomy in s.anatomies]
            if stated:
                at = 0 if rng.random() < 0.5 else len(texts)
                names = [pick(rng, WORDINGS[name].short) for name in sorted(stated)]
                names = [names[i] for i in rng.permutation(len(names))]
                texts.insert(at, pick(rng, FRAMES["summaries"]).format(list_and=listed(names, "and")))
            elif 1 not in case.labels:
                texts.append(region_sentence(("thorax",), FRAMES["normal"], rng).plain)
            captions[anatomy] = Caption(" ".join(texts), not stated)
            continue
        own = [sentence for sentence in (*impression, *body) if anatomy in sentence.anatomies]
        if not own:
            continue
        normal = not any(ANATOMY_OF[name] == anatomy for sentence in own for name in sentence.findings)
        texts = [sentence.plain for sentence in own]
        if normal and anatomy not in abnormal | called_normal and rng.random() < 0.6:
            texts.insert(0, region_sentence((anatomy,), FRAMES["normal"], rng).plain)
        captions[anatomy] = Caption(" ".join(dict.fromkeys(texts)), normal)
    return captions


def write_report(case: Case, rng: np.random.Generator) -> Report:
    """Writes the report of a synthetic scan; the same case and generator state give the same report.

    The labels are the ground truth and the report is incomplete: it omits some mild findings, and it does not mention
    most absent ones. What it says is true: a stated finding has label 1, a denied one 0, and a slice reference names
    the axial image nearest to the centre of its site.
    """
    sites: dict[str, list[Site]] = {name: [] for name in FINDING_NAMES}
    for site in case.sites:
        sites[site.finding].append(site)
    present = _present(case)
    stated: set[str] = set()
    for name in present:
        sites[name] = sites[name] or [Site(name, 0.5)]
        if max(site.severity for site in sites[name]) >= LOW_SEVERITY or rng.random() >= _OMISSION:
            stated.add(name)
    absent = [name for name in FINDING_NAMES if name not in present and _CONTRADICTED_BY.get(name) not in present]

    style = pick(rng, ("prose", "prose", "paragraphs", "headed", "headed", "dashes"))
    normals = _normals(case, stated, style == "headed", rng)
    body = _positives(case, sites, stated, rng) + _negatives(absent, rng) + normals
    blocks = _blocks(body, rng)
    technique, incidental = _remarks(case, rng)
    if incidental:
        blocks.insert(len(blocks) if rng.random() < 0.8 else int(rng.integers(len(blocks) + 1)), ("", incidental))
    if technique:
        blocks.insert(0, ("", technique))
    ordered = [sentence for _, block in blocks for sentence in block]
    impression = _impression(case, sites, stated, absent, rng)
    conclusion = pick(rng, ("prose", "lines", "numbered"))
    if conclusion == "numbered":
        impression_text = "\n".join(f"{n}. {sentence.text}" for n, sentence in enumerate(impression, 1))
    else:
        impression_text = ("\n" if conclusion == "lines" else " ").join(sentence.text for sentence in impression)
    sentences = ordered + impression
    findings = _layout(blocks, style, rng)
    called_normal = {anatomy for sentence in normals for anatomy in sentence.anatomies}
    captions = _captions(case, sentences, stated, called_normal, rng)
    snippets = [sentence.snippet for sentence in sentences if sentence.snippet is not None]
    return Report(findings, impression_text, captions, snippets, sentences)
