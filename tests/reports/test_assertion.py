"""Clauses, and what they say of a mention: present, absent, uncertain or history."""

import pytest

from bundle.ctfindings.reports.assertion import Assertion, assertion, split_clauses


def said(sentence: str, word: str) -> Assertion:
    """What the clause of a sentence that holds the word says of it."""
    clause = next(sentence[a:b] for a, b in split_clauses(sentence) if word in sentence[a:b])
    start = clause.index(word)
    return assertion(clause, start, start + len(word))


@pytest.mark.parametrize(
    ("sentence", "word"),
    [
        ("no pleural effusion is seen.", "effusion"),
        ("effusion, consolidation and nodules were not observed.", "consolidation"),
        ("there is no evidence of consolidation or nodule.", "nodule"),
        ("the lungs are free of infiltrate.", "infiltrate"),
        ("pericardial effusion-thickening was not detected.", "effusion"),
        ("the nodule, which was observed in the previous examination, was not detected in the current one.", "nodule"),
        ("the trachea is open and no mass was seen.", "mass"),
        ("a nodule without calcification is seen.", "calcification"),
        ("the effusion has completely resolved.", "effusion"),
        ("pneumothorax: none.", "pneumothorax"),
        ("the catheter was removed.", "catheter"),
        ("no sign of emphysematous change or cardiomegaly.", "emphysematous"),
        ("no sign of emphysematous change or cardiomegaly.", "cardiomegaly"),
        ("without pleural effusion, nodule or consolidation.", "consolidation"),
        ("the heart is not enlarged.", "enlarged"),
        ("the lungs are clear of infiltrates.", "infiltrates"),
        ("bronchial walls of normal thickness.", "thickness"),
        ("the scan does not show atelectasis.", "atelectasis"),
        ("peribronchial thickening can be excluded.", "thickening"),
        ("no increase in wall thickness was found.", "thickness"),
    ],
)
def test_denied(sentence: str, word: str) -> None:
    assert said(sentence, word) is Assertion.ABSENT


@pytest.mark.parametrize(
    ("sentence", "word"),
    [
        ("a nodule without calcification is seen.", "nodule"),
        ("there is no change in the nodule.", "nodule"),
        ("no significant difference was found in the size of the effusion.", "effusion"),
        ("no mass is seen except for a nodule in the left lung.", "nodule"),
        ("no effusion is seen, but consolidation is present.", "consolidation"),
        ("a nodule, which was not seen in the previous examination, is observed.", "nodule"),
        ("there is a nodule and no effusion was detected.", "nodule"),
        ("the lymph node did not reach pathological size.", "lymph node"),
        ("no mass is seen in the lung, minimal effusion on the right.", "effusion"),
        ("emphysema compared with the previous examination.", "emphysema"),
        ("atelectasis is increased compared to the previous ct.", "atelectasis"),
        ("the patient, who underwent lobectomy, has an effusion.", "effusion"),
    ],
)
def test_stated(sentence: str, word: str) -> None:
    assert said(sentence, word) is Assertion.PRESENT


@pytest.mark.parametrize(
    ("sentence", "word"),
    [
        ("consolidation (atelectasis?) is seen.", "atelectasis"),
        ("pneumonia cannot be excluded.", "pneumonia"),
        ("the appearance may represent emphysema.", "emphysema"),
        ("suspicious for consolidation.", "consolidation"),
        ("follow-up in terms of infiltration.", "infiltration"),
    ],
)
def test_doubted(sentence: str, word: str) -> None:
    assert said(sentence, word) is Assertion.UNCERTAIN


@pytest.mark.parametrize(
    ("sentence", "word"),
    [
        ("status post pacemaker.", "pacemaker"),
        ("history of emphysema.", "emphysema"),
        ("in the previous examination there is consolidation.", "consolidation"),
        ("the patient underwent stent placement.", "stent"),
    ],
)
def test_history(sentence: str, word: str) -> None:
    assert said(sentence, word) is Assertion.HISTORICAL
