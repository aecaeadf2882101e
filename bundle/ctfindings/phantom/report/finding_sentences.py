"""The sentences of the synthetic reports: a positive statement about sites, a denial, a normal region, and the slice
reference.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bundle.ctfindings.findings import FINDING_NAMES, FINDINGS, TEMPLATES, fill_template
from bundle.ctfindings.phantom.case import Case, Site
from bundle.ctfindings.phantom.report import sentence_frames as frames
from bundle.ctfindings.phantom.report.phrases import WORDINGS
from bundle.ctfindings.phantom.report.sentence_frames import listed, pick
from bundle.ctfindings.phantom.report.site_phrases import overall_place, place

LOW_SEVERITY = 0.4
"""Below it a finding may be left out of the report or worded as uncertain."""
_UNCERTAIN = 0.35
_REFERENCE = 0.68  # joined statements carry none, so about half of the localised sites end up with one
ANATOMY_OF = {finding.name: finding.anatomy for finding in FINDINGS}
_LOCALIZED = frozenset(finding.name for finding in FINDINGS if finding.localized)
_MARK = "\x01"  # stands where a slice reference may go
_NOT_TEXT = re.compile(r"[^a-z0-9 ]+")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiouAEIOU]|8|11\b|18\b)")
_SPACES = re.compile(r"\s+")
_SPACE_BEFORE = re.compile(r"\s+([.,;:])")


@dataclass(frozen=True)
class Snippet:
    """A sentence that refers to an axial image, without the reference; ``z_mm`` is the world z of that image."""

    text: str
    series: int
    image: int
    z_mm: float


@dataclass(frozen=True)
class Sentence:
    """One sentence of the report.

    Attributes:
        text: as it stands in the report.
        anatomies: names of the anatomies it speaks of; empty for technique and incidental remarks.
        findings: CT-RATE names of the findings it states positively, uncertain ones included.
        plain: ``text`` without slice reference.
        denied: CT-RATE names of the findings it denies by name; a statement that a region is normal denies none by
            name.
        section: ``findings`` or ``impression``.
    """

    text: str
    anatomies: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    plain: str = ""
    section: str = "findings"
    snippet: Snippet | None = None
    denied: tuple[str, ...] = ()


def normalise(text: str) -> str:
    """Lower case without punctuation, for comparing sentences with the scoring templates."""
    return _SPACES.sub(" ", _NOT_TEXT.sub("", text.lower())).strip()


SCORING_SENTENCES: frozenset[str] = frozenset(
    normalise(fill_template(template, name))
    for name in FINDING_NAMES
    for pair in TEMPLATES
    for template in (pair.positive, pair.negative)
)
"""Every filled scoring template, normalised; no sentence of a report equals one."""


def _tidy(text: str) -> str:
    """Closes the gaps that empty slots leave, corrects the article and the capital."""
    text = text.replace(f" {_MARK}", _MARK)
    text = _SPACE_BEFORE.sub(r"\1", _SPACES.sub(" ", text)).strip(" ,")
    text = _ARTICLE.sub(r"\1n ", text)
    return text[:1].upper() + text[1:]


_COUNTS = {2: "two", 3: "three", 4: "four"}
_MANY = ("several", "multiple", "numerous", "scattered")
_SIDES = {"left": "left-sided", "right": "right-sided", "bilateral": "bilateral"}


def _size(size_mm: float | None, rng: np.random.Generator) -> str:
    if size_mm is None:
        return ""
    return (
        f"{size_mm / 10:.1f} cm"
        if size_mm >= 30 or (size_mm >= 10 and rng.random() < 0.35)
        else f"{max(size_mm, 1):.0f} mm"
    )


def _slots(
    site: Site, kind: str | None, count: int, severity: float, at: str, rng: np.random.Generator
) -> dict[str, str]:
    level = frames.GRADES[0 if severity < LOW_SEVERITY else 1 if severity < 0.7 else 2]
    size = _size(site.size_mm, rng)
    measuring = f"{pick(rng, ('measuring', 'of', 'with a diameter of', 'measuring up to'))} {size}" if size else ""
    return {
        **{slot: pick(rng, words) for slot, words in level.items()},
        "size": size,
        "size_noun": size,
        "measuring": measuring,
        "comma_measuring": f", measuring {size}" if size else "",
        "kind": kind or "",
        "side": _SIDES.get(site.side or "", ""),
        "bare_side": site.side if site.side in ("left", "right") else "anterior",
        "count": _COUNTS.get(count, pick(rng, _MANY)),
        "at": f"{at}{_MARK}",
        "comma_at": f", mainly {at}{_MARK}" if at else "",
        "overall": "",
    }


def _bare(phrase: str) -> str:
    return phrase[2:] if phrase.startswith("a ") else phrase[3:] if phrase.startswith("an ") else phrase


def _noun_phrase(phrase: str, slots: dict[str, str]) -> dict[str, str]:
    """Fills a noun phrase of the table and adds the slots that the frames need."""
    plural = phrase.startswith("+")
    text = _SPACES.sub(" ", phrase.lstrip("+").format(**slots)).strip()
    return {**slots, "np": text, "bare_np": _bare(text), "is": "are" if plural else "is"}


def _nouns(name: str, site: Site, kind: str | None, several: bool) -> Sequence[str]:
    wording = WORDINGS[name]
    if name == "Medical material":
        known = next((key for key in (site.kind, site.location) if key in wording.kinds), "")
        return wording.kinds[known or ""]
    return wording.several if several else (*wording.nouns, *wording.kinds.get(kind or "", ()))


def positive_text(
    name: str,
    sites: Sequence[Site],
    sites_of_place: Sequence[Site],
    frame_bank: Sequence[str],
    several: bool,
    rng: np.random.Generator,
) -> str:
    """One positive sentence about ``sites`` (the first is described), with a mark where a reference may stand."""
    wording, site = WORDINGS[name], sites[0]
    several = several and bool(wording.several)
    severity = max(each.severity for each in sites)
    count = sum(each.count for each in sites)
    kind = site.kind if len({each.kind for each in sites}) == 1 else None
    while True:
        at = place(wording.place, sites_of_place, rng)
        noun = pick(rng, _nouns(name, site, kind, several))
        if "{side}" in noun and site.side is not None and wording.place == "pleura":
            at = ""
        slots = _slots(site, kind, count, severity, at, rng)
        if "{side}" in noun and wording.place == "pleura" and {each.side for each in sites} >= {"left", "right"}:
            slots["side"] = "bilateral"
        slots["overall"] = overall_place(wording.place, sites, rng)
        whole = frame_bank is frames.POSITIVE_FRAMES and wording.sentences and not several and rng.random() < 0.35
        frame = pick(rng, wording.sentences if whole else frame_bank)
        needs_size = "{size_noun}" in frame + ("" if whole else noun) or "largest {measuring}" in frame
        needs_place = frame_bank is frames.LARGEST_FRAMES or frame.startswith("{at}")
        if (needs_size and not slots["size"]) or (needs_place and not at):
            continue
        text = _tidy(frame.format(**(slots if whole else _noun_phrase(noun, slots))))
        if normalise(text.replace(_MARK, "")) not in SCORING_SENTENCES:
            return text


def _refers(case: Case, name: str, site: Site, rng: np.random.Generator) -> bool:
    bounded = name in _LOCALIZED or (site.location is not None and site.side != "bilateral")
    return site.center_mm is not None and bounded and rng.random() < _REFERENCE


def with_reference(
    case: Case, marked: str, names: tuple[str, ...], site: Site | None, rng: np.random.Generator
) -> Sentence:
    """Puts the slice reference of ``site`` in, or takes the mark out when it has none."""
    anatomies = tuple(dict.fromkeys(ANATOMY_OF[name] for name in names))
    plain = marked.replace(_MARK, "")
    if site is None or site.center_mm is None:
        return Sentence(plain, anatomies, names, plain)
    image = case.image_of_z(site.center_mm[2])
    form = {"series": case.series, "image": image}
    if rng.random() < 0.15:
        text = frames.LEADING_REFERENCE.format(**form) + plain
    else:
        reference = pick(rng, frames.REFERENCES).format(**form)
        text = (
            marked.replace(_MARK, reference, 1)
            if _MARK in marked and rng.random() < 0.6
            else plain[:-1] + reference + "."
        )
        text = text.replace(_MARK, "")
    return Sentence(text, anatomies, names, plain, snippet=Snippet(plain, case.series, image, case.z_of_image(image)))


def statements(case: Case, name: str, sites: list[Site], rng: np.random.Generator) -> list[Sentence]:
    """The positive sentences of one finding."""
    sites = sorted(sites, key=lambda site: (site.size_mm or 0.0, site.severity), reverse=True)
    main, several = sites[0], bool(WORDINGS[name].several) and sum(site.count for site in sites) > 1
    kinds = {site.location or site.kind for site in sites}
    if len(sites) > 1 and (
        (name == "Medical material" and len(kinds) > 1) or (name in _LOCALIZED and rng.random() < 0.6)
    ):
        told = sites[:3]
        return [
            with_reference(
                case,
                positive_text(name, [site], [site], frames.POSITIVE_FRAMES, site.count > 1, rng),
                (name,),
                site if _refers(case, name, site, rng) else None,
                rng,
            )
            for site in told
        ]
    if max(site.severity for site in sites) < LOW_SEVERITY and not several and rng.random() < _UNCERTAIN:
        marked = positive_text(name, sites, sites, frames.UNCERTAIN_FRAMES, False, rng)
    elif several and main.size_mm is not None and main.location and rng.random() < 0.6:
        marked = positive_text(name, sites, [main], frames.LARGEST_FRAMES, True, rng)
        return [with_reference(case, marked, (name,), main if _refers(case, name, main, rng) else None, rng)]
    else:
        marked = positive_text(name, sites, sites, frames.POSITIVE_FRAMES, several, rng)
    refers = len(sites) == 1 and _refers(case, name, main, rng)
    return [with_reference(case, marked, (name,), main if refers else None, rng)]


def joined_sentence(
    case: Case, pair: tuple[str, str], sites: dict[str, list[Site]], rng: np.random.Generator
) -> Sentence:
    """Two findings that go together, in one sentence without place."""
    phrases, verbs = [], []
    for name in pair:
        slots = _slots(sites[name][0], None, 1, sites[name][0].severity, "", rng)
        phrase = _noun_phrase(pick(rng, WORDINGS[name].nouns), slots)
        phrases.append(phrase["np"])
        verbs.append(phrase["is"])
    frame = pick(
        rng,
        (
            "{0} and {1}.",
            f"There {verbs[0]} {{0}} as well as {{1}}.",
            "Both {0} and {1} are noted.",
            "{0}, together with {1}.",
        ),
    )
    return with_reference(case, _tidy(frame.format(*phrases)), pair, None, rng)


def denial(names: tuple[str, ...], rng: np.random.Generator) -> Sentence:
    """One sentence that denies every finding of ``names``; none of them is a scoring sentence."""
    anatomies = tuple(dict.fromkeys(ANATOMY_OF[name] for name in names))
    while True:
        if set(names) == {"Pleural effusion", "Pericardial effusion"} and rng.random() < 0.6:
            text = pick(rng, frames.EFFUSION_DENIALS)
        elif len(names) > 1:
            nouns = [pick(rng, WORDINGS[name].denials).lstrip("+") for name in names]
            text = _tidy(pick(rng, frames.JOINT_DENIAL_FRAMES).format(list_or=listed(nouns, "or")))
        elif rng.random() < 0.3:
            text = pick(rng, WORDINGS[names[0]].normals)
        else:
            noun = pick(rng, WORDINGS[names[0]].denials)
            text = pick(rng, frames.DENIAL_FRAMES).format(
                n=noun.lstrip("+"), **{"is": "are" if noun.startswith("+") else "is"}
            )
            text = _tidy(text)
        if normalise(text) not in SCORING_SENTENCES:
            return Sentence(text, anatomies, (), text, denied=names)


def region_sentence(anatomies: tuple[str, ...], bank: Sequence[str], rng: np.random.Generator) -> Sentence:
    """A sentence of ``bank`` about the region of one or two anatomies."""
    alone = len(anatomies) == 1
    regions = [pick(rng, [text for text in frames.REGIONS[name] if alone or " and " not in text]) for name in anatomies]
    plural = not alone or regions[0].startswith("+") or " and " in regions[0]
    region = listed([text.lstrip("+") for text in regions], "and")
    verbs = {"is": "are", "shows": "show"} if plural else {"is": "is", "shows": "shows"}
    text = _tidy(pick(rng, bank).format(region=region, **verbs))
    return Sentence(text, anatomies, (), text)
