"""Assertion of a finding in a clause of a report: present, absent, uncertain or history.

Rules after NegEx (Chapman et al., "A simple algorithm for identifying negated findings and diseases in discharge
summaries", J Biomed Inform 2001, https://doi.org/10.1006/jbin.2001.1029): the scope of a cue ends with its clause, and
pseudo-cues look like a negation but deny nothing. Uncertainty is a separate value, as in CheXpert (Irvin et al., AAAI
2019, https://arxiv.org/abs/1901.07031). All texts are in lower case.
"""

from __future__ import annotations

import re
from enum import IntEnum

from bundle.ctfindings.reports.word_lists import read_alternatives


class Assertion(IntEnum):
    """Assertion of a mention; the highest of several mentions counts."""

    ABSENT = 0
    HISTORICAL = 1
    UNCERTAIN = 2
    PRESENT = 3


_WORDS = read_alternatives(__file__)
_SEEN = rf"(?:{_WORDS['seen']})\w*"
_BE = r"(?:is|are|was|were|be|been|has|have|had|do|does|did|can|could|there)"
_PREDICATE = re.compile(
    rf"\b(?:{_BE}\s+(?:not\s+|also\s+|been\s+|slightly\s+|minimally\s+)*(?:{_SEEN}|{_WORDS['state']})"
    r"|there\s+(?:is|are|was|were)\b|increased\b|decreased\b|shows?\b|demonstrates?\b|is\b|are\b|was\b|were\b|has\b"
    r"|have\b)"
)
# These always end a clause.
_HARD = re.compile(
    r"\s*[;•]\s*|:\s+(?!none|absent|negative|no\b)|\.\s+"
    r"|\s+(?=(?:but|however|although|though|whereas|nevertheless|yet)\b)"
    r"|,?\s+(?=(?:except(?: for)?|apart from|other than|aside from|besides|with the exception of)\b)"
)
# These end a clause when both sides have a predicate, or when the right side starts a statement.
_SOFT = re.compile(r",\s+(?:and\s+)?|\s+and\s+|\s+while\s+|\s+-\s+")
_STARTS_STATEMENT = re.compile(rf"(?:{_WORDS['statement_start']})")

# A verb without a subject continues the statement: "the effusion, which was seen before, was not detected".
_BARE_VERB = re.compile(rf"(?:{_BE}\s+|cannot\b|not\b|show|demonstrat|regress|disappear|resolv|consist|continu|remain)")

_PRE_NEGATION = re.compile(rf"\b(?:{_WORDS['pre_negation']})\b")
# "No change in the nodule" and "no increase in size" deny a change; "no increase in wall thickness" denies the finding.
_PSEUDO_NEGATION = re.compile(
    rf"\b(?:no|without(?: any)?)\s+(?:(?:{_WORDS['change_adjective']})\s+){{0,2}}"
    r"(?:change|difference|progression|regression|interval|alteration|"
    r"(?:increase|decrease)s?(?!\s+in\s+(?:\w+\s+){0,4}(?:thick|densit|calib|diamet)))\w*\b"
    r"|\bno longer\b|\bnot only\b"
    r"|\bno(?:t)? (?:clear(?:ly)?|definite(?:ly)?) (?:border|demarcat|separab|distinguish\w* from)\w*"
)
_DIRECTLY_NEGATED = re.compile(r"\b(?:not(?: \w+ly)?|normal) $")
_POST_NEGATION = re.compile(
    rf"\b(?:{_BE}\s+(?:\w+\s+)?not|{_BE}n't|cannot|not)\s+(?:\w+\s+){{0,2}}?{_SEEN}"
    r"|\b(?:is|are|was|were|can be|could be)\s+(?:absent|negative|excluded|ruled out|no longer|removed|withdrawn)\b"
    rf"|\bbeen (?:removed|withdrawn|excluded)\b|\b(?:{_WORDS['gone']})\b|\(-\)|:\s*(?:none|absent|negative)\b"
)
# "Not observed in the previous examination" describes the earlier scan.
_PSEUDO_POST = re.compile(
    rf"\bnot\s+(?:\w+\s+){{0,2}}?{_SEEN}\s+(?:\w+\s+){{0,3}}?(?:previous|prior|earlier|old|former|last)\b"
    r"|\bnot (?:be )?(?:evaluated|characteri[sz]ed|differentiated|excluded|ruled out)\b"
    r"|\bnot (?:clearly|optimally|fully|completely|significantly|well)\s+\w+"
)
_UNCERTAIN = re.compile(
    rf"\b(?:may|might|could|can)\s+(?:also\s+|not\s+)?(?:{_WORDS['doubtful_verb']})\b|\b(?:{_WORDS['doubt']})\b"
    r"|\b(?:cannot|can not|could not|not) be (?:excluded|ruled out|differentiated)\b"
)
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
        if cut and cut[0].startswith(":") and sentence.count(" ", start, end) < 2:
            continue  # A heading stays with its statement: "Lymph nodes: enlarged".
        clauses += _soft_clauses(sentence, start, end)
        start = cut.end() if cut else end
    return [clause for clause in clauses if clause[0] < clause[1]]


def _soft_clauses(sentence: str, start: int, end: int) -> list[tuple[int, int]]:
    clauses = []
    predicates = [match.start() for match in _PREDICATE.finditer(sentence, start, end)]
    if predicates:
        for cut in _SOFT.finditer(sentence, start, end):
            left = any(start <= predicate < cut.start() for predicate in predicates)
            right = any(predicate >= cut.end() for predicate in predicates)
            if _BARE_VERB.match(sentence, cut.end()) and not _STARTS_STATEMENT.match(sentence, cut.end()):
                continue
            if left and (right or _STARTS_STATEMENT.match(sentence, cut.end())):
                clauses.append((start, cut.start()))
                start = cut.end()
    return [*clauses, (start, end)]


def assertion(clause: str, start: int, end: int) -> Assertion:
    """The assertion of the mention ``clause[start:end]``."""
    if _negated(clause, start, end):
        return Assertion.ABSENT
    if _EARLIER.search(clause, 0, start) or any(
        not _PREDICATE.search(clause, cue.end(), start) for cue in _HISTORY.finditer(clause, 0, start)
    ):
        return Assertion.HISTORICAL
    if _doubted(clause, end):
        return Assertion.UNCERTAIN
    return Assertion.PRESENT


def _negated(clause: str, start: int, end: int) -> bool:
    if _DIRECTLY_NEGATED.search(clause, 0, start):
        return True
    pseudo = [match.span() for match in _PSEUDO_NEGATION.finditer(clause)]
    for cue in _PRE_NEGATION.finditer(clause, 0, start):
        if any(first <= cue.start() < last for first, last in pseudo):
            continue
        between = clause[cue.end() : start]
        # The scope of "without" ends at the next comma or verb: "nodule without calcification is seen with emphysema".
        narrow = cue[0] in ("without", "absent", "rather than") and cue.start() > 0
        if not (narrow and ("," in between or _PREDICATE.search(between))):
            return True
    pseudo_post = [match.span() for match in _PSEUDO_POST.finditer(clause)]
    return any(
        not any(first < cue.end() and cue.start() < last for first, last in pseudo_post)
        for cue in _POST_NEGATION.finditer(clause, end)
    )


def _doubted(clause: str, end: int) -> bool:
    """Whether a question mark follows the mention that ends at ``end``, or a cue of doubt precedes or follows it."""
    tail = clause[end : end + 40]
    question = tail.find("?")
    if question >= 0 and not re.search(r"[,(]", tail[:question]):
        return True
    cue = _UNCERTAIN.search(clause)
    return cue is not None and cue.start() < end + 40
