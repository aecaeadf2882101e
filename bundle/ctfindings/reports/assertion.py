"""Assertion of a finding in a clause of a report: present, absent, uncertain or history.

Rules after NegEx (Chapman et al., "A simple algorithm for identifying negated findings and diseases in discharge
summaries", J Biomed Inform 2001, https://doi.org/10.1006/jbin.2001.1029): the scope of a cue ends with its clause, and
pseudo-cues look like a negation but deny nothing. Uncertainty is a separate value, as in CheXpert (Irvin et al., AAAI
2019, https://arxiv.org/abs/1901.07031). All texts are in lower case.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from bundle.ctfindings.reports.word_lists import read_alternatives


class Assertion(IntEnum):
    """Assertion of a mention; the highest of several mentions counts."""

    ABSENT = 0
    HISTORICAL = 1
    UNCERTAIN = 2
    PRESENT = 3


_WORDS = read_alternatives(__file__)
_ANSWERS = ("yes", "present", "positive", *_WORDS["answer_no"].split("|"))
_SEEN = rf"(?:{_WORDS['seen']})\w*"
_BE = r"(?:is|are|was|were|be|been|has|have|had|do|does|did|can|could|there)"
_PREDICATE = re.compile(
    rf"\b(?:{_BE}\s+(?:not\s+|also\s+|been\s+|slightly\s+|minimally\s+)*(?:{_SEEN}|{_WORDS['state']})"
    r"|there\s+(?:is|are|was|were)\b|increased\b|decreased\b|shows?\b|demonstrates?\b|is\b|are\b|was\b|were\b|has\b"
    rf"|have\b|not\s+{_SEEN})"
)
_NO_LIST = r"(?:(?!\bn?or\b)[^,;.])*"
# These always end a clause.
_HARD = re.compile(
    rf"\s*[;•]\s*|:\s+(?!(?:{_WORDS['answer_no']}|not?)\b|[-0](?![\w.,]))|\.\s+"
    # Templates on one line: "Consolidation: no, effusion: yes", "Consolidation: No Effusion: Yes".
    rf"|(?:{'|'.join(f'(?<=: {word})' for word in _ANSWERS)})(?:\s*[,/|]\s*|\s+(?=(?:[\w/)-]+\s+){{0,4}}[\w/-]+\s*:))"
    r"|\s+(?=(?:but|however|although|though|whereas|nevertheless|yet)\b)"
    r"|,?\s+(?=(?:except(?: for)?|apart from|other than|aside from|besides|with the exception of|save for)\b)"
    # Telegram style: "No pneumothorax, small effusion on the left".
    rf"|,\s+(?=(?:{_WORDS['amount']})\b{_NO_LIST}\b(?:left|right|bilateral|lobe)\b{_NO_LIST}\.?\s*$)"
)
# These end a clause when both sides have a predicate, or when the right side starts a statement.
_SOFT = re.compile(r",\s+(?:and\s+)?|\s+and\s+|\s+while\s+|\s+-\s+")
_STARTS_STATEMENT = re.compile(rf"(?:{_WORDS['statement_start']})")

# A verb without a subject continues the statement: "the effusion, which was seen before, was not detected".
_BARE_VERB = re.compile(
    rf"(?:{_BE}\s+|cannot\b|not\b|no longer\b|show|demonstrat|regress|disappear|resolv|consist|continu|remain)"
)

_PRE_NEGATION = re.compile(rf"\b(?:{_WORDS['pre_negation']})\b")
# "No change in the nodule" and "no increase in size" deny a change; "no increase in wall thickness" denies the finding.
_PSEUDO_NEGATION = re.compile(
    rf"\b(?:no|without(?: any)?)\s+(?:(?:{_WORDS['change_adjective']})\s+){{0,2}}"
    r"(?:change|difference|progression|regression|interval|alteration|"
    r"(?:increase|decrease)s?(?!\s+in\s+(?:\w+\s+){0,4}(?:thick|densit|calib|diamet|heart|cardi)))\w*\b"
    # "No enlargement of the nodule", "partial resolution of the effusion".
    r"|\bno (?:more|less|fewer) than\b|\bno (?:reason|need|comparison)\b|\bnever[- ]smok"
    r"|\bno (?:enlargement|growth) of (?:\w+ ){0,3}(?:nodul|mass|lesion|effus|consolid)"
    r"|\b(?:incomplete|partial|near(?:ly)?|almost|slow|ongoing|some)(?:[- ]complete)? (?:resolution|disappearance) of"
    rf"|\bno longer\b|\bnot only\b|\b(?:no|without(?: any)?)\s+(?:\w+\s+)?(?:{_WORDS['sure']})\b"
    r"|:\s*no(?=\s*(?:[,/|]|$))"
    r"|\bno(?:t)? (?:clear(?:ly)?|definite(?:ly)?) (?:border|demarcat|separab|distinguish\w* from)\w*"
)
_DIRECTLY_NEGATED = re.compile(
    r"\b(?:(?:not(?: (?!only)\w+ly)?|normal) |non[- ]?(?:(?:enlarged|dilated|thickened|pathologic\w*) )?)$"
)
# "No longer seen is the left pleural effusion", "not seen: effusion", "[ ] effusion": all that follows is denied.
_INVERTED = re.compile(
    rf"\W*(?:no longer|not)\s+(?:\w+\s+)?{_SEEN}\s*(?::|\b(?:is|are|was|were)\b)|\s*\[\s?\]"
    r"|\W*(?:gone|resolved) (?:is|are)\b|\W*(?:excluded|resolved|ruled out)(?::|(?: \w+){1,3}\W*$)"
    r"|\W*(?:negative|absent):\s"
)
_POST_NEGATION = re.compile(
    rf"\b(?:{_BE}\s+(?:\w+\s+)?not|{_BE}n't|cannot|not)\s+(?:\w+\s+){{0,2}}?{_SEEN}"
    r"|\b(?:is|are|was|were|can be|could be)\s+(?:absent|negative|excluded|ruled out|removed|withdrawn)\b"
    r"|\b(?:is|are|was|were)\s+no longer\b(?!\s+(?:grow|increas|enlarg|progress))"
    rf"|\bno longer\s+(?:be\s+)?(?:\w+\s+)?{_SEEN}|-free\b|\bfree(?=\s*(?:[.,;]|$))"
    r"|,\s*(?:no|none|nil|absent)\s*\.?\s*$"
    rf"|\bbeen (?:removed|withdrawn|excluded)\b|\b(?:{_WORDS['gone']})\b|\(-\)"
    # "The thickness of the bronchial walls is normal" has only the word of a finding.
    r"|(?<=thickness )(?:is|are|was|were) (?:normal|natural|within)\b"
    # "Is neither seen on the left nor on the right", "is seen in neither pleural space", "on no side".
    rf"|\b{_BE}\s+neither\s+{_SEEN}|\b{_SEEN}\s+(?:\w+\s+){{0,2}}?(?:in|on|at|within)\s+(?:neither|none|no)\b"
    # Templates: "Pleural effusion: No", "Pleural effusion -", but not "Pleural effusion: no change".
    rf"|[:=|\t]\s*(?:(?:{_WORDS['answer_no']})\b(?!\s+(?:\w+\s+)?(?:change|difference|progression|regression)\b)"
    rf"|[-0](?=\s*(?:[.,;/|]|$)))|\s-+\s*(?:(?:{_WORDS['answer_no']})\b\s*)?\.?\s*$"
)
# "Not observed in the previous examination" describes the earlier scan.
_PSEUDO_POST = re.compile(
    rf"\bnot\s+(?:previously|formerly|earlier)\s+{_SEEN}|"
    rf"\bnot\s+(?:\w+\s+){{0,2}}?{_SEEN}\s+(?:\w+\s+){{0,3}}?(?:previous|prior|earlier|old|former|last|before)\b"
    rf"|(?:\bnot|n't|\bnever)\s+(?:\w+\s+){{0,2}}?(?:{_WORDS['gone']})\b"
    r"|\bnot (?:be )?(?:evaluated|characteri[sz]ed|differentiated|excluded|ruled out)\b"
    r"|\bnot (?:clearly|optimally|fully|completely|significantly|well)\s+\w+"
    # "Cannot be distinguished from the pleura", "not considered suspicious", "does not require follow-up", "not seen on
    # the CT of 12.03.2020", "its relation with the bronchus cannot be distinguished".
    r"|\b(?:cannot|not) (?:be )?(?:\w+ly )?distinguish\w* from\b|\bnot considered \w+"
    r"|(?:\bnot|n't) (?:require|need)\w* (?:\w+ ){0,2}follow"
    rf"|\bnot\s+(?:\w+\s+){{0,2}}?{_SEEN}\s+(?:on|in|at)\s+(?:the\s+)?(?:ct|examination|scan|study)\s+(?:of|dated|from)\b"
    r"|\b(?:dimension|border|relation|margin|contour)\w*\b[^,;]*\b(?:cannot|not) (?:be )?(?:\w+ly )?"
    r"(?:select|distinguish|discern)\w*"
)
_UNCERTAIN = re.compile(
    rf"\b(?:may|might|could|can)\s+(?:also\s+|not\s+)?(?:{_WORDS['doubtful_verb']})\b(?!\s+no\b)|\b(?:{_WORDS['doubt']})\b"
    r"|\b(?:cannot|can not|could not|not) (?:be )?(?:excluded|ruled out|differentiated)\b"
    r"|\b(?:cannot|can not|could not|unable to|not able to) (?:\w+ly )?(?:exclude|rule out)\b"
)
# A question mark in front of a mention, "?consolidation", and a condition: "if an effusion develops".
_DOUBT_BEFORE = re.compile(r"(?:(?:^|[\s(])\?\s?(?:[\w-]+\s){0,2}|^\W*(?:if|in case of)\b[^,;]*)$")
# History up to the next verb: in "the patient, who underwent lobectomy, has an effusion" the effusion is present.
_HISTORY = re.compile(rf"\b(?:{_WORDS['history']})\b")
# An earlier scan, for the whole clause; "compared with the previous examination" describes this one.
_EARLIER = re.compile(
    r"(?<!compared with )(?<!compared to )(?<!according to )\bin (?:the |his |her )?(?:previous|prior|earlier|old) "
    r"(?:\w+ )?(?:examination|ct|study|scan|imaging)s?\b"
)


def split_clauses(sentence: str) -> list[tuple[int, int]]:
    """Start and end of each clause of a sentence; the scope of a negation ends with its clause.

    Semicolons, "but", "except for" and the like always end a clause; a comma or "and" only between two statements:
    "nodule, consolidation and effusion were not observed" is one clause, "the trachea is open and no mass was seen" is
    two.
    """
    clauses: list[tuple[int, int]] = []
    start = 0
    for cut in [*_HARD.finditer(sentence), None]:
        end = cut.start() if cut else len(sentence)
        if cut and cut[0].startswith(":") and (sentence.count(" ", start, end) < 2 or _INVERTED.match(sentence, start)):
            continue  # A heading stays with its statement: "Lymph nodes: enlarged".
        clauses += _soft_clauses(sentence, start, end)
        start = cut.end() if cut else end
    return [clause for clause in clauses if clause[0] < clause[1]]


def _soft_clauses(sentence: str, start: int, end: int) -> list[tuple[int, int]]:
    clauses = []
    predicates = [match.start() for match in _PREDICATE.finditer(sentence, start, end)]
    if predicates:
        for cut in _SOFT.finditer(sentence, start, end):
            first = bisect_left(predicates, start)
            left = first < len(predicates) and predicates[first] < cut.start()
            right = predicates[-1] >= cut.end()
            if _BARE_VERB.match(sentence, cut.end()) and not _STARTS_STATEMENT.match(sentence, cut.end()):
                continue
            if left and (right or _STARTS_STATEMENT.match(sentence, cut.end())):
                clauses.append((start, cut.start()))
                start = cut.end()
    return [*clauses, (start, end)]


class _Cues(NamedTuple):
    """Positions of the cues in a clause, each found once however many mentions the clause has."""

    inverted: bool
    negated_from: int  # end of the first negation whose scope is the rest of the clause
    narrow: Sequence[int]  # ends of those whose scope ends at the next comma or verb
    denied_until: int  # start of the last negation behind a mention
    earlier_from: int  # end of the first mention of an earlier scan
    history: Sequence[int]  # ends
    predicates: Sequence[int]  # starts
    commas_and_predicates: Sequence[int]
    doubt: int  # start of the first cue of doubt


_NOWHERE = 1 << 60


@lru_cache(maxsize=256)
def _cues(clause: str) -> _Cues:
    pseudo = [match.span() for match in _PSEUDO_NEGATION.finditer(clause)]
    starts = [first for first, _ in pseudo]
    negated_from, narrow = _NOWHERE, []
    for cue in _PRE_NEGATION.finditer(clause):
        last = bisect_right(starts, cue.start()) - 1
        if last >= 0 and cue.start() < pseudo[last][1]:
            continue
        # The scope of "without" ends at the next comma or verb: "nodule without calcification is seen with emphysema".
        if cue[0] in ("without", "absent", "rather than") and cue.start() > 0:
            narrow.append(cue.end())
        else:
            negated_from = min(negated_from, cue.end())
    pseudo_post = [match.span() for match in _PSEUDO_POST.finditer(clause)]
    ends = [end for _, end in pseudo_post]
    denials = []
    for cue in _POST_NEGATION.finditer(clause):
        next_one = bisect_right(ends, cue.start())
        if next_one == len(ends) or pseudo_post[next_one][0] >= cue.end():
            denials.append(cue.start())
    predicates = [match.start() for match in _PREDICATE.finditer(clause)]
    earlier, doubt = _EARLIER.search(clause), _UNCERTAIN.search(clause)
    return _Cues(
        _INVERTED.match(clause) is not None,
        negated_from,
        narrow,
        max(denials, default=-1),
        earlier.end() if earlier else _NOWHERE,
        [cue.end() for cue in _HISTORY.finditer(clause)],
        predicates,
        sorted([*predicates, *(index for index, letter in enumerate(clause) if letter == ",")]),
        doubt.start() if doubt else _NOWHERE,
    )


def assertion(clause: str, start: int, end: int) -> Assertion:
    """The assertion of the mention ``clause[start:end]``."""
    cues = _cues(clause)
    if (
        cues.inverted
        or cues.negated_from <= start
        or end <= cues.denied_until
        or _reaches(cues.narrow, cues.commas_and_predicates, start)
        or _DIRECTLY_NEGATED.search(clause, max(0, start - 24), start)
    ):
        return Assertion.ABSENT
    if cues.earlier_from <= start or _reaches(cues.history, cues.predicates, start):
        return Assertion.HISTORICAL
    if _DOUBT_BEFORE.search(clause, max(0, start - 60), start) or _doubted(clause, end, cues.doubt):
        return Assertion.UNCERTAIN
    return Assertion.PRESENT


def _reaches(cues: Sequence[int], stops: Sequence[int], start: int) -> bool:
    """Whether the last of the cues that end before ``start`` has no stop between it and ``start``."""
    last = bisect_right(cues, start) - 1
    return last >= 0 and bisect_left(stops, cues[last]) == bisect_left(stops, start)


def _doubted(clause: str, end: int, doubt: int) -> bool:
    """Whether a question mark follows the mention that ends at ``end``, or a cue of doubt precedes or follows it."""
    tail = clause[end : end + 40]
    question = tail.find("?")
    if question >= 0 and not re.search(r"[,(]", tail[:question]):
        return True
    return doubt < end + 40
