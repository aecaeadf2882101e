"""From the text of a report to what training reads: a caption of each anatomy, whether it is normal, and the 18 labels."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.reports.assertion import Assertion
from bundle.ctfindings.reports.finding_mentions import LABEL_OF_ASSERTION, carried_region, strongest, to_labels
from bundle.ctfindings.reports.sentences import split_sentences
from bundle.ctfindings.reports.statements import Kind, Statement, read_statement

_EMPTY = re.compile(r"\s*(?:not given|none|n/?a|nan|-+)?\s*\.?\s*", re.IGNORECASE)
# A sentence without a region that goes on about what came before: "It is stable.", "The largest measures 8 mm."
_CONTINUES = re.compile(
    r"(?:.*\blumens?\b)|(?:it|its|they|this|these|those|the|such|in addition|also|both|some|most|an?other|one of|however|apart from|"
    r"compared)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Caption:
    """What a report says of one anatomy.

    Attributes:
        text: its sentences, those of the impression first.
        normal: none of them states an abnormality of this anatomy.
    """

    text: str
    normal: bool


@dataclass(frozen=True)
class ReadReport:
    """A report as training reads it.

    Attributes:
        labels: 1, 0 or -1 (unknown) for each of the 18 findings, in the order of the finding table.
        captions: by anatomy name; an anatomy that the report does not speak of has none.
        unplaced: sentences that name no anatomy and continue none; they are in the caption of the thorax only.
    """

    labels: list[int]
    captions: dict[str, Caption]
    unplaced: list[str]


@dataclass(frozen=True)
class _Placed:
    text: str
    section: str
    anatomies: tuple[str, ...]
    statement: Statement


def read_report(findings: str, impression: str = "", uncertain: int = -1) -> ReadReport:
    """Reads a report by rules, without a language model.

    The caption of an anatomy is what the impression says of it and then what the findings say, as in fVLM (Shui et al.,
    ICLR 2025, https://arxiv.org/abs/2501.14548), each sentence once. The thorax stands for the whole scan: its caption
    is the impression (without one, the abnormal findings) with the sentences on bones, abdomen, soft tissue and
    material. Remarks on technique and recommendations are left out.

    Args:
        findings: the findings section, or a whole report; CT-RATE's "Not given." is empty.
        impression: the impression section.
        uncertain: label of a finding that is only stated in doubt: 1, 0 or -1.

    Raises:
        ValueError: when ``uncertain`` is none of these.
    """
    if uncertain not in (-1, 0, 1):
        raise ValueError(f"uncertain is {uncertain!r}; it can be 1, 0 or -1")
    placed: list[_Placed] = []
    unplaced: list[str] = []
    for section, text in (("impression", impression), ("findings", findings)):
        for sentence, lost in _place(text, section):
            placed.append(sentence)
            if lost:
                unplaced.append(sentence.text)
    said = strongest(sentence.statement.mentions for sentence in placed)
    policy = {**LABEL_OF_ASSERTION, Assertion.UNCERTAIN: uncertain}
    return ReadReport(to_labels(said, policy), _captions(placed), unplaced)


def _place(text: str, section: str) -> list[tuple[_Placed, bool]]:
    """Sentences of a section with their anatomies, and whether none was found."""
    if _EMPTY.fullmatch(text):
        return []
    result = []
    region: str | None = None
    before: tuple[str, ...] = ()
    for sentence in split_sentences(text):
        statement = read_statement(sentence.text, region)
        anatomies = statement.anatomies
        lost = False
        if not anatomies and statement.kind is not Kind.REMARK:
            continues = before and (_CONTINUES.match(sentence.text) is not None)
            anatomies, lost = (before, False) if continues else (("thorax",), not _is_heading(sentence.text))
        result.append((_Placed(sentence.text, section, anatomies, statement), lost))
        region = carried_region(sentence.text, region)
        before = anatomies or before
    return result


def _is_heading(sentence: str) -> bool:
    return sentence.endswith(":") and len(sentence.split()) <= 4


def _captions(placed: list[_Placed]) -> dict[str, Caption]:
    spoken = [
        sentence for sentence in placed if sentence.statement.kind is not Kind.REMARK and not _is_heading(sentence.text)
    ]
    captions = {}
    for name in ANATOMY_NAMES:
        own = (
            _of_thorax(spoken) if name == "thorax" else [sentence for sentence in spoken if name in sentence.anatomies]
        )
        if own:
            texts = {
                _bare(sentence.text): sentence.text for sentence in reversed(own)
            }  # of equal sentences the first is kept
            ordered = dict.fromkeys(texts[_bare(sentence.text)] for sentence in own)
            captions[name] = Caption(
                " ".join(_closed(text) for text in ordered), not any(_abnormal_for(name, sentence) for sentence in own)
            )
    return captions


def _of_thorax(spoken: list[_Placed]) -> list[_Placed]:
    """The scan as a whole: its impression, or its abnormal findings, and what belongs to no other anatomy."""
    impression = [sentence for sentence in spoken if sentence.section == "impression"]
    if impression:
        return impression + [
            sentence for sentence in spoken if sentence.section == "findings" and "thorax" in sentence.anatomies
        ]
    return [
        sentence for sentence in spoken if "thorax" in sentence.anatomies or sentence.statement.kind is Kind.ABNORMAL
    ]


def _abnormal_for(anatomy: str, sentence: _Placed) -> bool:
    """Whether a sentence makes an anatomy abnormal; one that only continues another does so for the anatomies it
    continues.
    """
    statement = sentence.statement
    if statement.kind is not Kind.ABNORMAL:
        return False
    return anatomy == "thorax" or not statement.abnormal or anatomy in statement.abnormal


def _bare(text: str) -> str:
    return re.sub(r"\W+", " ", text).strip().lower()


def _closed(text: str) -> str:
    """The sentence without stray quotation marks, with a full stop."""
    text = " ".join(text.replace('"', " ").split())
    return text if text[-1:] in ".!?" else f"{text.rstrip(',;:')}."
