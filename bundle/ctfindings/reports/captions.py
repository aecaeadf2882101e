"""From the text of a report to a caption of each anatomy, whether it is normal, and the 18 labels."""

import re
from dataclasses import dataclass

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.reports.assertion import Assertion
from bundle.ctfindings.reports.finding_mentions import LABEL_OF_ASSERTION, carried_region, strongest, to_labels
from bundle.ctfindings.reports.plain_text import normalized
from bundle.ctfindings.reports.sentences import finding_sentences
from bundle.ctfindings.reports.statements import Kind, Statement, read_statement

_EMPTY = re.compile(r"(?:not given|none|n/?a|nan|-+)?\s*\.?", re.IGNORECASE)
# A sentence without a region that continues the sentence before it: "It is stable.", "The largest measures 8 mm."
_CONTINUES = re.compile(
    r"(?:.*\blumens?\b)|(?:it|its|they|this|these|those|the|such|in addition|also|both|some|most|an?other|one of|"
    r"however|apart from|compared)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Caption:
    """The sentences of a report on one anatomy, those of the impression first.

    ``normal`` is true if no sentence states an abnormality of this anatomy.
    """

    text: str
    normal: bool


@dataclass(frozen=True)
class ReadReport:
    """A report as training reads it.

    Attributes:
        labels: 1, 0 or -1 (unknown) for each of the 18 findings, in the order of the finding table.
        captions: by anatomy name; an anatomy that the report does not mention has none.
        unplaced: sentences without an anatomy that continue no other sentence; only the thorax caption has them.
    """

    labels: list[int]
    captions: dict[str, Caption]
    unplaced: list[str]


@dataclass(frozen=True)
class PlacedSentence:
    """A sentence with its anatomies; ``lost`` when none was found. ``region`` is the last one named before."""

    text: str
    section: str
    region: str | None
    anatomies: tuple[str, ...]
    statement: Statement
    lost: bool


def read_report(findings: str, impression: str = "", uncertain: int = -1, unmentioned: int = -1) -> ReadReport:
    """Reads a report by rules, without a language model.

    The caption of an anatomy has its sentences of the impression and then of the findings section, each once, as in
    fVLM (Shui et al., ICLR 2025, https://arxiv.org/abs/2501.14548). The thorax stands for the whole scan: its caption
    has the impression (without one, the abnormal findings) and the sentences on bones, abdomen, soft tissue and medical
    material. Captions omit remarks on technique and recommendations.

    Args:
        findings: the findings section, or a whole report; "Not given." counts as empty.
        uncertain: label of a finding that the report only suspects: 1, 0 or -1.
        unmentioned: label of a finding that the report does not mention; an empty report leaves it -1.

    Raises:
        ValueError: when ``uncertain`` is not 1, 0 or -1.
    """
    if uncertain not in (-1, 0, 1):
        raise ValueError(f"uncertain: expected 1, 0 or -1, got {uncertain!r}")
    placed = place_sentences(findings, impression)
    unplaced = [sentence.text for sentence in placed if sentence.lost]
    said = strongest(sentence.statement.mentions for sentence in placed)
    policy = {**LABEL_OF_ASSERTION, Assertion.UNCERTAIN: uncertain}
    return ReadReport(to_labels(said, policy, unmentioned if placed else -1), _captions(placed), unplaced)


def place_sentences(findings: str, impression: str = "") -> list[PlacedSentence]:
    """The sentences of a report with their anatomies, those of the impression first."""
    return _place(impression, "impression") + _place(findings, "findings")


def _place(text: str, section: str) -> list[PlacedSentence]:
    if _EMPTY.fullmatch(text.strip()):
        return []
    result = []
    region: str | None = None
    before: tuple[str, ...] = ()
    for sentence in finding_sentences(normalized(text)):
        statement = read_statement(sentence.text, region)
        anatomies = statement.anatomies
        lost = False
        if not anatomies and statement.kind is not Kind.REMARK:
            continues = before and (_CONTINUES.match(sentence.text) is not None)
            anatomies, lost = (before, False) if continues else (("thorax",), not _is_heading(sentence.text))
        result.append(PlacedSentence(sentence.text, section, region, anatomies, statement, lost))
        region = carried_region(sentence.text, region)
        before = anatomies or before
    return result


def _is_heading(sentence: str) -> bool:
    return sentence.endswith(":") and len(sentence.split()) <= 4


def _captions(placed: list[PlacedSentence]) -> dict[str, Caption]:
    spoken = [each for each in placed if each.statement.kind is not Kind.REMARK and not _is_heading(each.text)]
    captions = {}
    for name in ANATOMY_NAMES:
        own = _of_thorax(spoken) if name == "thorax" else [each for each in spoken if name in each.anatomies]
        if own:
            # The first of equal sentences is kept.
            texts: dict[str, str] = {}
            for each in own:
                texts.setdefault(re.sub(r"\W+", " ", each.text).strip().lower(), each.text)
            text = " ".join(_closed(text) for text in texts.values())
            captions[name] = Caption(text, not any(_abnormal_for(name, each) for each in own))
    return captions


def _of_thorax(spoken: list[PlacedSentence]) -> list[PlacedSentence]:
    """The impression, or without one the abnormal findings, and the sentences on the thorax."""
    impression = [each for each in spoken if each.section == "impression"]
    if impression:
        return impression + [each for each in spoken if each.section == "findings" and "thorax" in each.anatomies]
    return [each for each in spoken if "thorax" in each.anatomies or each.statement.kind is Kind.ABNORMAL]


def _abnormal_for(anatomy: str, sentence: PlacedSentence) -> bool:
    """Whether a sentence makes an anatomy abnormal. One without an anatomy counts for those that it continues."""
    statement = sentence.statement
    if statement.kind is not Kind.ABNORMAL:
        return False
    return anatomy == "thorax" or not statement.abnormal or anatomy in statement.abnormal


def _closed(text: str) -> str:
    """The sentence without stray quotation marks, with a full stop."""
    text = " ".join(text.replace('"', " ").split())
    return text if text[-1:] in ".!?" else f"{text.rstrip(',;:')}."
