"""The sentences of the synthetic reports: positive statements about sites, denials, and normal regions."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bundle.ctfindings.findings import FINDING_NAMES, FINDINGS, TEMPLATES, fill_template
from bundle.ctfindings.phantom.case import Case, Site
from bundle.ctfindings.phantom.report.phrases import WORDINGS
from bundle.ctfindings.phantom.report.sentence_frames import FRAMES, GRADES, LEADING_REFERENCE, REGIONS, listed, pick
from bundle.ctfindings.phantom.report.site_phrases import overall_place, place

LOW_SEVERITY = 0.25
"""Below it a report may omit a finding or word it as uncertain."""
_UNCERTAIN = 0.35
_REFERENCE = 0.68  # About half of the localised sites get a reference, because joined sentences have none.
ANATOMY_OF = {finding.name: finding.anatomy for finding in FINDINGS}
_LOCALIZED = frozenset(finding.name for finding in FINDINGS if finding.localized)
_MARK = "\x01"  # placeholder of a slice reference
_NOT_TEXT = re.compile(r"[^a-z0-9 ]+")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiouAEIOU]|8|11\b|18\b)")
_SPACES = re.compile(r"\s+")
_SPACE_BEFORE = re.compile(r"\s+([.,;:])")


@dataclass(frozen=True)
class WrittenSnippet:
    """A sentence that refers to an axial image, without the reference; ``z_mm`` is the world z of that image."""

    text: str
    series: int
    image: int
    z_mm: float


@dataclass(frozen=True)
class WrittenSentence:
    """One sentence of the report, in the section ``findings`` or ``impression``.

    Attributes:
        anatomies: names of the anatomies it describes; empty for technique and incidental remarks.
        findings: CT-RATE names of the findings it states positively, uncertain ones included.
        plain: ``text`` without slice reference.
        denied: CT-RATE names of the findings it denies by name.
    """

    text: str
    anatomies: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    plain: str = ""
    section: str = "findings"
    snippet: WrittenSnippet | None = None
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
    """Removes the gaps of empty slots and corrects articles and the capital."""
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
    in_cm = size_mm >= 30 or (size_mm >= 10 and rng.random() < 0.35)
    return f"{size_mm / 10:.1f} cm" if in_cm else f"{max(size_mm, 1):.0f} mm"


def _slots(
    site: Site, kind: str | None, count: int, severity: float, at: str, rng: np.random.Generator
) -> dict[str, str]:
    level = GRADES[(severity >= LOW_SEVERITY) + (severity >= 0.7)]
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


def _noun_phrase(phrase: str, slots: dict[str, str]) -> dict[str, str]:
    """Fills a noun phrase of the table and adds the slots that the frames need."""
    plural = phrase.startswith("+")
    text = _SPACES.sub(" ", phrase.lstrip("+").format(**slots)).strip()
    bare = text.removeprefix("a ").removeprefix("an ")
    return {**slots, "np": text, "bare_np": bare, "is": "are" if plural else "is"}


def _nouns(name: str, site: Site, kind: str | None, several: bool) -> Sequence[str]:
    wording = WORDINGS[name]
    if name == "Medical material":
        return wording.kinds[next((key for key in (site.kind, site.location) if key in wording.kinds), "") or ""]
    return wording.several if several else (*wording.nouns, *wording.kinds.get(kind or "", ()))


def positive_text(
    name: str,
    sites: Sequence[Site],
    sites_of_place: Sequence[Site],
    frame_bank: Sequence[str],
    several: bool,
    rng: np.random.Generator,
) -> str:
    """One positive sentence about ``sites``, which describes the first, with a mark for a slice reference."""
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
        whole = frame_bank is FRAMES["positive"] and wording.sentences and not several and rng.random() < 0.35
        frame = pick(rng, wording.sentences if whole else frame_bank)
        needs_size = "{size_noun}" in frame + ("" if whole else noun) or "largest {measuring}" in frame
        needs_place = frame_bank is FRAMES["largest"] or frame.startswith("{at}")
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
) -> WrittenSentence:
    """Replaces the mark by the slice reference of ``site``, or removes it."""
    anatomies = tuple(dict.fromkeys(ANATOMY_OF[name] for name in names))
    plain = marked.replace(_MARK, "")
    if site is None or site.center_mm is None:
        return WrittenSentence(plain, anatomies, names, plain)
    image = case.image_of_z(site.center_mm[2])
    form = {"series": case.series, "image": image}
    if rng.random() < 0.15:
        text = LEADING_REFERENCE.format(**form) + plain
    else:
        reference = pick(rng, FRAMES["references"]).format(**form)
        inside = _MARK in marked and rng.random() < 0.6
        text = marked.replace(_MARK, reference, 1).replace(_MARK, "") if inside else f"{plain[:-1]}{reference}."
    snippet = WrittenSnippet(plain, case.series, image, case.z_of_image(image))
    return WrittenSentence(text, anatomies, names, plain, snippet=snippet)


def positive_sentences(case: Case, name: str, sites: list[Site], rng: np.random.Generator) -> list[WrittenSentence]:
    """The positive sentences of one finding."""
    sites = sorted(sites, key=lambda site: (site.size_mm or 0.0, site.severity), reverse=True)
    main, several = sites[0], bool(WORDINGS[name].several) and sum(site.count for site in sites) > 1
    kinds = {site.location or site.kind for site in sites}
    separate = name == "Medical material" and len(kinds) > 1
    if len(sites) > 1 and (separate or (name in _LOCALIZED and rng.random() < 0.6)):
        sentences = []
        for site in sites[:3]:
            marked = positive_text(name, [site], [site], FRAMES["positive"], site.count > 1, rng)
            referred = site if _refers(case, name, site, rng) else None
            sentences.append(with_reference(case, marked, (name,), referred, rng))
        return sentences
    if max(site.severity for site in sites) < LOW_SEVERITY and not several and rng.random() < _UNCERTAIN:
        marked = positive_text(name, sites, sites, FRAMES["uncertain"], False, rng)
    elif several and main.size_mm is not None and main.location and rng.random() < 0.6:
        marked = positive_text(name, sites, [main], FRAMES["largest"], True, rng)
        return [with_reference(case, marked, (name,), main if _refers(case, name, main, rng) else None, rng)]
    else:
        marked = positive_text(name, sites, sites, FRAMES["positive"], several, rng)
    refers = len(sites) == 1 and _refers(case, name, main, rng)
    return [with_reference(case, marked, (name,), main if refers else None, rng)]


def joined_sentence(
    case: Case, pair: tuple[str, str], sites: dict[str, list[Site]], rng: np.random.Generator
) -> WrittenSentence:
    """Two findings in one sentence without place."""
    phrases = []
    for name in pair:
        slots = _slots(sites[name][0], None, 1, sites[name][0].severity, "", rng)
        phrases.append(_noun_phrase(pick(rng, WORDINGS[name].nouns), slots))
    nouns = [phrase["np"] for phrase in phrases]
    joints = ("{0} and {1}.", "There {2} {0} as well as {1}.", "Both {0} and {1} are noted.", "{0}, together with {1}.")
    return with_reference(case, _tidy(pick(rng, joints).format(*nouns, phrases[0]["is"])), pair, None, rng)


def denial(names: tuple[str, ...], rng: np.random.Generator) -> WrittenSentence:
    """One sentence that denies every finding of ``names`` and is not a scoring sentence."""
    anatomies = tuple(dict.fromkeys(ANATOMY_OF[name] for name in names))
    while True:
        if set(names) == {"Pleural effusion", "Pericardial effusion"} and rng.random() < 0.6:
            text = pick(rng, FRAMES["effusion_denials"])
        elif len(names) > 1:
            nouns = [pick(rng, WORDINGS[name].denials).lstrip("+") for name in names]
            text = _tidy(pick(rng, FRAMES["joint_denial"]).format(list_or=listed(nouns, "or")))
        elif rng.random() < 0.3:
            text = pick(rng, WORDINGS[names[0]].normals)
        else:
            noun = pick(rng, WORDINGS[names[0]].denials)
            verb = {"is": "are" if noun.startswith("+") else "is"}
            text = _tidy(pick(rng, FRAMES["denial"]).format(n=noun.lstrip("+"), **verb))
        if normalise(text) not in SCORING_SENTENCES:
            return WrittenSentence(text, anatomies, (), text, denied=names)


def region_sentence(anatomies: tuple[str, ...], bank: Sequence[str], rng: np.random.Generator) -> WrittenSentence:
    """A sentence of ``bank`` about the region of one or two anatomies."""
    alone = len(anatomies) == 1
    regions = [pick(rng, [text for text in REGIONS[name] if alone or " and " not in text]) for name in anatomies]
    plural = not alone or regions[0].startswith("+") or " and " in regions[0]
    region = listed([text.lstrip("+") for text in regions], "and")
    verbs = {"is": "are", "shows": "show"} if plural else {"is": "is", "shows": "shows"}
    text = _tidy(pick(rng, bank).format(region=region, **verbs))
    return WrittenSentence(text, anatomies, (), text)
