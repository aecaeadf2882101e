"""Mines snippets: sentences of a report that point at a slice, without the slice reference, one per slice."""

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

from bundle.ctfindings.reports.sentences import split_sentences
from bundle.ctfindings.reports.snippets.reference_filters import (
    COMPARISON_HEADING,
    PRIOR_LABEL,
    Judgement,
    is_of_other_study,
    judge_numbers,
    shows_other_plane,
)
from bundle.ctfindings.reports.snippets.reference_grammar import Reference, Span, find_references
from bundle.ctfindings.reports.snippets.snippet_text import has_content, without_stretches, word_count
from bundle.ctfindings.reports.word_lists import ignoring_case

Confidence = Literal["high", "medium", "low"]
CONFIDENCES: tuple[Confidence, ...] = ("high", "medium", "low")

WIDE_RANGE = 40
"""A longer range of images describes the extent of a finding, not its position."""


class Snippet(NamedTuple):
    """A text and the image it points at.

    Attributes:
        series: None when the report does not name one.
        image: number of the image; the middle of a range.
        text: the sentence, or the clause of the reference, without references and statements on earlier studies.
        rule: form of the reference, with ``+list`` or ``+range``; ``inherited`` if an earlier sentence has the series.
        confidence: ``high`` if series and image are in words, ``medium`` if one reading is likely, ``low`` if it needs
            a check.
        first, last: first and last image of the range.
    """

    series: int | None
    image: int
    text: str
    rule: str
    confidence: Confidence
    first: int
    last: int


class Refusal(NamedTuple):
    """A reference without snippet; the reason is prior, other study, plane, date, time, number or no text."""

    series: int | None
    image: int
    reason: str


class Mined(NamedTuple):
    """The snippets and rejected references of one report."""

    snippets: list[Snippet]
    refused: list[Refusal]


@dataclass
class _Mention:
    """A reference with the decisions on it."""

    reference: Reference
    confidence: Confidence = "high"
    refused: str = ""
    rule: str = ""
    series: int | None = None


@dataclass
class _Line:
    """Offsets and mentions of a sentence."""

    start: int
    end: int
    mentions: list[_Mention]


def mine_report(texts: Sequence[str]) -> Mined:
    """Snippets of one report, from its sections in reading order, for example findings and impression.

    A named series holds for the following images, also in later sections, until the report names another one. An
    ambiguous reference is rejected.
    """
    sections = [(text, _lines(text, find_references(text))) for text in texts]
    mentions = [mention for _, lines in sections for line in lines for mention in line.mentions]
    if not mentions:
        return Mined([], [])
    for text, lines in sections:
        _refuse(text, lines)
    _settle_slashes(mentions)
    _settle_weak(mentions)
    _inherit([line for _, lines in sections for line in lines])
    mined = Mined([], [])
    for text, lines in sections:
        for number, line in enumerate(lines):
            _collect(text, line, lines[number - 1] if number else None, mined)
    return Mined(list(dict.fromkeys(mined.snippets)), mined.refused)


def _lines(text: str, references: Sequence[Reference]) -> list[_Line]:
    """The sentences of a section. A full stop inside a reference ("Se. 3, Im. 45") does not end a sentence."""
    if not references:
        return []
    masked = list(text)
    for reference in references:
        inside = re.sub(r"[.\n]", " ", text[reference.start : reference.end])
        masked[reference.start : reference.end] = inside
    lines = [_Line(sentence.start, sentence.end, []) for sentence in split_sentences("".join(masked))]
    starts = [line.start for line in lines]
    for reference in references:
        line = lines[max(0, bisect_right(starts, reference.start) - 1)]
        if line.start <= reference.start < line.end:
            line.mentions.append(_Mention(reference, series=reference.series, rule=reference.rule))
            line.end = max(line.end, reference.end)
    return lines


def _refuse(text: str, lines: Sequence[_Line]) -> None:
    """Rejects other numbers, other planes, and references to other or earlier studies."""
    earlier_study = False
    for line in lines:
        sentence = text[line.start : line.end]
        if sentence.rstrip().endswith(":") or COMPARISON_HEADING.match(sentence):
            earlier_study = COMPARISON_HEADING.match(sentence) is not None
        for number, mention in enumerate(line.mentions):
            reference = mention.reference
            start, end = reference.start - line.start, reference.end - line.start
            before = line.mentions[number - 1].reference.end - line.start if number else 0
            behind = line.mentions[number + 1].reference.start - line.start if number + 1 < len(line.mentions) else None
            if reference.rule == "bare":
                judgement = judge_numbers(text, reference)
                if (
                    judgement.verdict == "accepted"
                    and number
                    and _next_date(text, line.mentions[number - 1], reference)
                ):
                    judgement = Judgement("refused", "date")
                mention.refused = judgement.reason
                mention.confidence = "low" if judgement.verdict == "weak" else "medium"
                if judgement.verdict == "refused":
                    continue
            if earlier_study or PRIOR_LABEL.match(sentence):
                mention.refused, mention.confidence = "prior", "high"
            elif other := is_of_other_study(sentence, start, end, before, behind):
                mention.refused, mention.confidence = other, "high"
            elif any(span.first == 1 and span.last > WIDE_RANGE for span in reference.images):
                mention.refused, mention.confidence = "number", "high"  # "images 1 to 412" are all of a series.
            elif reference.images and shows_other_plane(text, reference):
                mention.refused, mention.confidence = "plane", "high"


def _next_date(text: str, previous: _Mention, reference: Reference) -> bool:
    """Whether a pair of numbers goes on a list of months: "cycles (2/22) and (5/22)"."""
    joined = _JOINING.fullmatch(text[previous.reference.end : reference.start].strip("()[] "))
    return previous.refused == "date" and joined is not None and reference.images[0].first <= 31


def _settle_slashes(mentions: Sequence[_Mention]) -> None:
    """ "Bild 4/86" is series 4, image 86; "image 86/232" is image 86 of 232, also when the total repeats."""
    slashed = [mention for mention in mentions if mention.rule == "image_slash"]
    totals = Counter(mention.reference.images[0].first for mention in slashed)
    for mention in slashed:
        series, total = mention.reference.series or 0, mention.reference.images[0].first
        mention.confidence = "medium"
        if totals[total] > 1 or 15 < series < 100:
            mention.series, mention.rule = None, "image_only"
            images = (Span(series, series),)
            mention.reference = mention.reference._replace(series=None, images=images, rule="image_only")


def _settle_weak(mentions: Sequence[_Mention]) -> None:
    """Accepts two ambiguous numbers when a certain reference of the report names the same series."""
    certain = [mention for mention in mentions if not mention.refused and mention.reference.images]
    known = {mention.series for mention in certain} - {None}
    for mention in mentions:
        weak = mention.rule == "bare" and mention.confidence == "low" and mention.refused in ("number", "date")
        if weak and mention.series in known:
            mention.refused = ""


def _inherit(lines: Sequence[_Line]) -> None:
    """Gives images without a series the last named series."""
    named = {mention.series for line in lines for mention in line.mentions if not mention.refused} - {None}
    series: int | None = None
    age = 0
    for line in lines:
        alone = {mention.series for mention in line.mentions if not mention.reference.images and not mention.refused}
        if len(alone) > 1:
            series = None  # "Series 1 is the localiser and series 2 the lung kernel" selects no series.
        for mention in line.mentions:
            if mention.refused:
                continue
            if mention.series is not None:
                if len(alone) <= 1 or mention.reference.images:
                    series, age = mention.series, 0
            elif mention.reference.images:
                mention.series = series
                mention.rule = "image_only" if series is None else "inherited"
                near = age <= 1 or len(named) == 1
                mention.confidence = "low" if series is None or not near else "medium"
                age = 0 if series is not None and near else age
        age += 1


_JOINING = ignoring_case(r"^\s*(?:[,;/+&]|\b(?:and|und|or|oder|as well as|sowie)\b)?\s*$")
_CUT = re.compile(r"[;,]\s*|\s+(?:and|und|sowie|as well as)\s+")


def _collect(text: str, line: _Line, previous: _Line | None, mined: Mined) -> None:
    """Adds the snippets and rejections of a sentence."""
    mentions = [mention for mention in line.mentions if mention.reference.images]
    for mention in mentions:
        if mention.refused:
            mined.refused.append(Refusal(mention.series, mention.reference.images[0].middle, mention.refused))
    kept = [mention for mention in mentions if not mention.refused]
    if not kept:
        return
    groups = _groups(text, kept)
    sentence = _words(text, line.start, line.end, line)
    for group, (start, end) in zip(groups, _clauses(text, line, groups), strict=True):
        snippet = _words(text, start, end, line)
        if not has_content(snippet):
            snippet = sentence
        if not has_content(snippet) and previous is not None:
            snippet = _words(text, previous.start, previous.end, previous)
        for mention in group:
            for span in mention.reference.images:
                if has_content(snippet):
                    mined.snippets.append(_snippet(mention, span, snippet))
                else:
                    mined.refused.append(Refusal(mention.series, span.middle, "no text"))


def _snippet(mention: _Mention, span: Span, text: str) -> Snippet:
    form = "+range" if span.first != span.last else "+list" if len(mention.reference.images) > 1 else ""
    weak = span.last - span.first >= WIDE_RANGE or word_count(text) < 2
    confidence = "low" if weak else mention.confidence
    return Snippet(mention.series, span.middle, text, mention.rule + form, confidence, span.first, span.last)


def _groups(text: str, mentions: Sequence[_Mention]) -> list[list[_Mention]]:
    """Adjacent references, as in "(3/45 and 3/62)", share one text."""
    groups: list[list[_Mention]] = []
    for mention in mentions:
        between = text[groups[-1][-1].reference.end : mention.reference.start] if groups else ""
        if groups and _JOINING.fullmatch(between):
            groups[-1].append(mention)
        else:
            groups.append([mention])
    return groups


def _clauses(text: str, line: _Line, groups: Sequence[Sequence[_Mention]]) -> list[tuple[int, int]]:
    """The part of a sentence for each group, from the first comma, semicolon or "and" behind the previous group."""
    edges = [line.start]
    for before, behind in pairwise(groups):
        start, end = before[-1].reference.end, behind[0].reference.start
        cut = _CUT.search(text, start, end)
        edges.append(cut.end() if cut else start)
    edges.append(line.end)
    return list(pairwise(edges))


def _words(text: str, start: int, end: int, line: _Line) -> str:
    """A part of a sentence without references; rejected dates and numbers stay."""
    first = bisect_left(line.mentions, start, key=lambda each: each.reference.start)
    last = bisect_left(line.mentions, end, key=lambda each: each.reference.start)
    within = line.mentions[max(0, first - 1) : last]
    removed = [each.reference for each in within if each.refused not in ("date", "time", "number")]
    return without_stretches(text, start, end, [(reference.start, reference.end) for reference in removed])
