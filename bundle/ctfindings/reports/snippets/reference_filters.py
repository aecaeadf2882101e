"""Filters for slice references: dates, levels, scores and times; earlier and other studies; other planes."""

import re
from typing import Literal, NamedTuple

from bundle.ctfindings.reports.snippets.reference_grammar import Reference
from bundle.ctfindings.reports.word_lists import ignoring_case, read_alternatives

Verdict = Literal["accepted", "weak", "refused"]


class Judgement(NamedTuple):
    """Judgement of a reference; ``weak`` needs another reference of the report with the same series."""

    verdict: Verdict
    reason: str = ""


LOOK_BACK = 600
"""Characters in front of a reference that may speak of it; a report without full stops stays linear in time."""

_ACCEPTED = Judgement("accepted")

_WORDS = {name: f"(?:{words})" for name, words in read_alternatives(__file__).items()}


_NUMBERED = "|".join(_WORDS[name] for name in ("level", "score", "value", "place_or_id", "pressure"))
_WORD_BEFORE = ignoring_case(rf"(?<![^\W_])(?:{_NUMBERED})\b[\s.:]*$")
_MORE_OF_THEM = ignoring_case(rf"(?<![^\W_]){_WORDS['level']}\W*\s\d[\d/,.\s]*(?:and|und|&|,|bis)?\s*$|\d\.?\s?$")
_MEASURED_BEFORE = ignoring_case(rf"(?<![^\W_])(?:{_WORDS['measured']}|{_WORDS['value']})\s*[(\[]\s*$")
_WINDOW_BEFORE = ignoring_case(r"(?:window\w*|fenster)[\s(\[:]*$")
_WORD_AFTER = ignoring_case(rf"\s*{_WORDS['counted']}")
# In front of a month and a year: a treatment within 44 characters, or a study or "since" directly before it.
_TREATMENT = ignoring_case(rf"{_WORDS['treatment']}[^().]{{0,44}}[\s(]*$")
_SINCE = ignoring_case(
    rf"(?<![^\W_]){_WORDS['since']}(?:\s+(?:in|on|am|im|of|from|aus))?[\s(]*$"
    r"|(?<![^\W_])in\s*(?:\d{1,2}/\d\d\s+(?:or|and|bzw\.|oder|und)\s+)?$|/\d\d\s+(?:or|bzw\.|oder)\s+$"
)
_SPOKEN = ignoring_case(
    rf"\b(?:{_WORDS['spoken']}|uhr|[ap]\.?m\.?)(?![^\W_])|\b(?:time|at|um|gegen|clock|started|beginn|ende)\W*$"
)
_SEEN = ignoring_case(rf"(?<![^\W_]){_WORDS['seen']}(?![^\W_])")
_SET_OFF = ignoring_case(r"(?:[,;:–-]|\b(?:on|in|at|auf|see|siehe|and|und|mm|cm))\s*$")
_TOLD = re.compile(r"[^\W\d_]{3,}")
_DELIMITED = re.compile(r"\s*(?:$|[,;.)\]]|\b(?:and|und|&)\s*\d)")


def judge_numbers(text: str, reference: Reference) -> Judgement:
    """Judges from numbers and adjacent words whether a ``bare`` reference ("3/45", "13:141") is a series and image."""
    series, image = reference.series or 0, reference.images[0].first
    before, after = text[max(0, reference.start - 64) : reference.start], text[reference.end : reference.end + 24]
    enclosed = _enclosed(text, reference)
    if _WORD_BEFORE.search(before) or _MORE_OF_THEM.search(before) or _WORD_AFTER.match(after):
        return Judgement("refused", "number")
    if _MEASURED_BEFORE.search(before) or (image % 50 == 0 and series % 50 == 0 and _WINDOW_BEFORE.search(before)):
        return Judgement("refused", "number")
    if text[reference.start] == "0" or re.search(r"[/:]\s?0", text[reference.start : reference.end]) or series == 0:
        return Judgement("refused", "date")
    if 1900 <= image <= 2100:
        return Judgement("refused", "date")
    year = not reference.colon and series <= 12 and (image <= 31 or 70 <= image <= 99)
    if year and (_TREATMENT.search(before) or _SINCE.search(before)):
        return Judgement("refused", "date")
    if reference.colon:
        clock = series <= 24 and image <= 59
        if clock and (_SPOKEN.search(_sentence_before(text, reference.start)) or _SPOKEN.match(after.strip())):
            return Judgement("refused", "time")
        clock = clock and (image <= 12 or not _SEEN.search(_sentence_of(text, reference)))
        return _ACCEPTED if enclosed and not clock else Judgement("weak", "number")
    usual = series <= 30 or (series >= 200 and series % 100 <= 20)  # Scanners count from 1 or in hundreds (201, 602).
    if max(series, image) <= 12 or not usual:
        return Judgement("weak" if enclosed else "refused", "number")
    if year and not _SEEN.search(_sentence_of(text, reference)):
        return Judgement("weak", "date")
    if enclosed:
        return _ACCEPTED
    told = len(_TOLD.findall(_sentence_before(text, reference.start))) > 1 and _SET_OFF.search(before)
    return _ACCEPTED if image > 31 and told and _DELIMITED.match(after) else Judgement("weak", "number")


def _enclosed(text: str, reference: Reference) -> bool:
    """Whether a short bracket contains the reference: "(3/45)", "(see 3/45)", "(6 mm, 3/45)"."""
    first, last = max(0, reference.start - 80), reference.end + 80
    opened = max(text.rfind("(", first, reference.start), text.rfind("[", first, reference.start))
    ends = (text.find(")", reference.end, last), text.find("]", reference.end, last), len(text))
    closed = min(end for end in ends if end >= 0)
    near = opened >= 0 and closed < len(text) and closed - opened <= 80
    return near and re.search(r"[)\]]", text[opened : reference.start]) is None


def _sentence_before(text: str, position: int) -> str:
    """The text before ``position`` back to a full stop, at most ``LOOK_BACK`` characters."""
    first = max(0, position - LOOK_BACK)
    start = max(text.rfind(". ", first, position), text.rfind("\n", first, position), first - 1)
    return text[start + 1 : position]


def _sentence_of(text: str, reference: Reference) -> str:
    end = text.find(". ", reference.end, reference.end + LOOK_BACK)
    return (
        _sentence_before(text, reference.start) + text[reference.end : end if end >= 0 else reference.end + LOOK_BACK]
    )


_PLANE, _VIEW, _MODALITY, _STUDY = (_WORDS[name] for name in ("plane", "view", "modality", "study"))
_PLANE_BEFORE = ignoring_case(rf"(?<![^\W_]){_PLANE}(?:[\s,:(]+{_VIEW})*[\s,:(]*(?:(?:in|on|auf)\s)?$")
_PLANE_WITHIN = ignoring_case(rf"(?<![^\W_]){_PLANE}(?![^\W_])")
_PLANE_AFTER = ignoring_case(rf"[\s,(]*{_PLANE}(?![^\W_])")

_OTHER_STUDY = ignoring_case(
    rf"(?<![^\W_])(?:on|in|in der|im|auf|by|per)\s+(?:the\s+)?{_MODALITY}(?![-\w])(?:\s+\w+){{0,2}}\s*\($|"
    rf"^\W*(?:on|in|in der|im|auf|the|der|die)?\s*{_MODALITY}(?![-\w])|"
    rf"(?<![^\W_]){_MODALITY}(?![-\w])(?:\s+\w+){{0,3}}[\s,:]*$"
)


def shows_other_plane(text: str, reference: Reference) -> bool:
    """Whether words in or next to a reference name the sagittal or coronal plane."""
    before = text[max(0, reference.start - 60) : reference.start]
    within = _PLANE_WITHIN.search(text, reference.start, reference.end)
    return bool(within or _PLANE_BEFORE.search(before) or _PLANE_AFTER.match(text, reference.end))


_MONTH = r"(?:jan|feb|mar|mär|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez)\w*"
_DATE = (
    r"(?:\d{1,2}[./]\d{1,2}[./]\d{2,4}|\d{1,2}[./]\d{4}|"
    rf"(?:\d{{1,2}}\.?\s+)?{_MONTH}\s+\d{{4}}|(?:19|20)\d\d)"
)
_PRIOR = ignoring_case(
    rf"(?<![^\W_])(?:{_WORDS['prior']}|(?:old|last|initial)\s+{_STUDY}|letzte[nrs]?\s+{_STUDY}|"
    rf"{_STUDY}\s+(?:of|from|dated|vom|on|aus)\s+(?:the\s+|dem\s+)?{_DATE})(?![^\W_])"
)
# Words that only compare. This scan follows behind a comma and more words, or behind a verb in the present.
_COMPARING = ignoring_case(rf"(?<![^\W_]){_WORDS['comparing']}(?![^\W_])")
_EVENT_FOLLOWS = ignoring_case(rf"(?:\s+\w+)?\s+{_WORDS['event']}")
_SINCE_THEN = ignoring_case(
    r"(?<![^\W_])(?:since|from|than|to|zur|zum|als|seit)(?:\s+(?:the|a|an|der|dem|den|last|most|recent))*\s*$"
)
_ONLY_SINCE = ignoring_case(r"(?<![^\W_])(?:since|seit)(?:\s+(?:the|a|an|der|dem|den))?\s*$")
COMPARISON_HEADING = ignoring_case(
    r"\W*(?:comparison|prior (?:study|studies|exams?)|vergleich|voruntersuchung(?:en)?|voraufnahmen?|vu)\s*:"
)
"""Heading of the section on earlier studies, at the start of a sentence."""
PRIOR_LABEL = ignoring_case(
    r"\W*(?:prior|previous|earlier|former|frühere|vorherige|ehemalige|vorwerte?|vormessung(?:en)?)(?:\s+\w+){0,2}\s*:"
)
"""Label of a sentence that names an earlier study: "Prior measurements: ...", at its start."""
_AS_BEFORE = ignoring_case(r"(?<![^\W_])(?:as|wie)(?:\s+\w+){0,3}\s*$")
_NOW = ignoring_case(
    r"(?<![^\W_])(?:now|currently|current|today|aktuell\w*|jetzt|heute|nunmehr|derzeit\w*)(?![^\W_])|;"
)
_PRESENT_VERB = ignoring_case(rf"(?<![^\W_]){_WORDS['present_verb']}(?![^\W_])")
# "In 2019, the lesion was seen on"; not "in 2019 a lobe was removed, clips".
_WAS_SEEN = ignoring_case(rf"(?<![^\W_]){_WORDS['past_verb']}(?![^\W_])[^,;]*$")
_WAS_LARGE = ignoring_case(rf"(?<![^\W_]){_WORDS['past_verb']}(?:\s+\w+){{0,2}}\s+\d+(?:[.,]\d+)?\s*[mc]m")
_STATE = ignoring_case(rf"(?<![^\W_]){_WORDS['state']}(?![^\W_])")
_DESCRIBED = ignoring_case(rf"\s+{_WORDS['described']}(?=\s+(?!on\b|in\b|at\b|auf\b)\w)")
_GONE = ignoring_case(r"resolved|no longer|not (?:seen|visible)|disappeared|nicht mehr|rückgebildet")
_CLAUSE_GOES_ON = re.compile(r"[,:]\s*\w+\s+\S*[^\W\d_]\w*.*\S")
# "(series 2, image 40, prior CT)", "(series 2 image 40) of the earlier scan"; but not "(series 2, image 40), previously
# 6 mm".
_ATTACHED = ignoring_case(
    r"(?:\s*[)\]]?\s+(?:on|of|in|from|im|der|in der|am|vom|bei|aus)\s+|\s*[,;]?\s*)"
    r"(?:(?:the|a|an|der|dem|den)\s+)?(?=\w)"
)
_DATED = ignoring_case(rf"\s*[,)]?\s*(?:from|of|dated|vom|aus)\s+(?:the\s+|dem\s+)?{_DATE}")
_ON_DATE = ignoring_case(rf"(?<![^\W_])(?:am|on|im|in)\s+(?:jahre?\s+|the year\s+)?{_DATE}(?![^\W_])")
# Between two references: "(series 5, image 60), present since 2018 (series 3, image 58)".
_BACK_TO = ignoring_case(
    rf"\W*(?:\w+\s+){{0,2}}(?:since|in|from|on|already|seit|bereits|am|im|von|vom)\s+{_DATE}(?:\s+\w+)?\W*"
)
_SIZE_FOLLOWS = ignoring_case(r"\W*(?:\w+\s+){0,2}\d+(?:[.,]\d+)?\s*(?:[x×]\s*\d|mm|cm)")


def is_of_other_study(sentence: str, start: int, end: int, previous_end: int, next_start: int | None) -> str:
    """Returns "other study" or "prior" for a reference to another study, and "" for one to this scan.

    The reference is at ``start:end``. ``previous_end`` is the end of the previous reference in the sentence, 0 for the
    first; ``next_start`` is the start of the next one, None for the last.
    """
    before = sentence[previous_end:start]
    if _OTHER_STUDY.search(before):
        return "other study"
    for cue in _PRIOR.finditer(before):
        described = _DESCRIBED.match(before, cue.end()) and not _GONE.search(sentence)
        event = _EVENT_FOLLOWS.match(before, cue.end())
        if described or event or _AS_BEFORE.search(before, 0, cue.start()):
            continue  # "The previously seen nodule (series 3, image 45) has grown" shows this scan.
        if _still_speaking_of_it(before, cue, comparing=_compares(before, cue)):
            return "prior"
    for cue in (*_COMPARING.finditer(before), *_ON_DATE.finditer(before)):
        if _still_speaking_of_it(before, cue, comparing=True):
            return "prior"
    if any(_WAS_SEEN.search(before, cue.end()) for cue in _ON_DATE.finditer(before)):
        return "prior"
    if previous_end and _BACK_TO.fullmatch(before):
        return "prior"
    spoken_from = max(0, previous_end - LOOK_BACK)
    if _WAS_LARGE.search(before) and _PRESENT_VERB.search(sentence, spoken_from, previous_end):
        return "prior"  # "is 11 mm (series 2, image 44) and was 9 mm (series 3, image 41)"
    attached = _ATTACHED.match(sentence, end)
    behind = attached and (_PRIOR.match(sentence, attached.end()) or _DATED.match(sentence, end))
    if not behind or _SIZE_FOLLOWS.match(sentence, behind.end()):
        return ""
    followed = next_start is not None and 0 <= next_start - behind.end() < 12
    return "" if followed else "prior"


def _compares(before: str, cue: re.Match[str]) -> bool:
    """Whether the text only compares with an earlier study: "compared with the prior CT"."""
    compared = _COMPARING.search(before, max(0, cue.start() - 30), cue.start())
    return compared is not None or _SINCE_THEN.search(before, 0, cue.start()) is not None


def _still_speaking_of_it(before: str, cue: re.Match[str], comparing: bool) -> bool:
    """Whether the text between a cue and the reference still describes the earlier study."""
    rest = before[cue.end() :]
    if _ONLY_SINCE.search(before, 0, cue.start()) and len(_TOLD.findall(rest)) > 2:
        return False  # "new nodule since the last CT in the left upper lobe (series 3, image 45)"
    if _NOW.search(rest) or (")" in rest and "(" not in rest[: rest.index(")")]):
        return False
    return not (comparing and (_CLAUSE_GOES_ON.search(rest) or _PRESENT_VERB.search(rest) or _STATE.search(rest)))
