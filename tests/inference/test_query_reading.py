"""Free-text queries: negations, nonsense and other languages are noticed, and a score says what it is worth."""

from dataclasses import replace

import pytest

from bundle.ctfindings.findings import FINDINGS
from bundle.ctfindings.inference.findings_record import Evidence, FindingAnswer, NearestFinding, QueryAnswer
from bundle.ctfindings.inference.query_reading import UNRELATED, in_words, read_query

FOUND = FindingAnswer("Pleural effusion", 0.82, 0.5, True, "lung", True, {}, {})


def answer(text: str, percentile: float | None) -> QueryAnswer:
    return QueryAnswer(text, 0.7, "lung", nearest_findings=[NearestFinding(FOUND.name, 0.9)], percentile=percentile)


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("No pleural effusion", "pleural effusion"),
        ("no evidence of pleural effusion", "pleural effusion"),
        ("There is no pneumothorax.", "pneumothorax."),
        ("Without any sign of consolidation", "consolidation"),
        ("not an enlarged heart", "an enlarged heart"),
        ("free of nodules", "nodules"),
        ("Pleural effusion is not seen", "Pleural effusion"),
        ("Pleural effusion: no", "Pleural effusion"),
        ("Pericardial effusion absent", "Pericardial effusion"),
        ("There isn't any COPD", "COPD"),
        ("lungs free of nodules", "nodules"),
        ("Pleural effusion: none", "Pleural effusion"),
        ("pleural effusion is ruled out", "pleural effusion"),
        ("lacks pleural effusion", "pleural effusion"),
        ("hardly any effusion", "effusion"),
        ("the heart is not enlarged", "the heart is enlarged"),
        ("Doesn\u2019t show a ﬁlling defect", "a filling defect"),
    ],
)
def test_a_negation_is_asked_as_what_it_denies(text: str, asked: str) -> None:
    reading = read_query(text)
    assert (reading.text, reading.asked.rstrip(".")) == (text, asked.rstrip(".")) and reading.negated
    assert reading.meaningful and "negation" in reading.hints[0]


@pytest.mark.parametrize(
    "text",
    [
        "normal heart",
        "unremarkable lungs",
        "neither effusion nor pneumothorax",
        "nodule, no effusion",
        "a mass without calcification",
        "no effusion, no nodule",
        "there aint any nodule",
    ],
)
def test_a_denial_that_cannot_be_taken_off_is_asked_as_it_is_with_a_hint(text: str) -> None:
    reading = read_query(text)
    assert reading.asked == text and reading.meaningful and "denial" in reading.hints[0]


@pytest.mark.parametrize(
    "text", ["nodule", "non-calcified nodule", "fluid around the left lung", "enlarged heart", "sarcoidosis"]
)
def test_other_texts_are_asked_as_they_are_and_need_no_hint(text: str) -> None:
    assert read_query(text) == (text, text, (), True)


def test_every_text_of_the_finding_table_is_meaningful_and_known() -> None:
    for finding in FINDINGS:
        for text in (finding.name, *finding.synonyms, *finding.positive):
            reading = read_query(text)
            assert reading.meaningful and not any("may not know" in hint for hint in reading.hints), text


@pytest.mark.parametrize("text", ["asdf qwerty zxcv", "xkcd", "the of", "hjkl uiop", "kjsdhf in the wxyz"])
def test_nonsense_is_no_question(text: str) -> None:
    reading = read_query(text)
    assert not reading.meaningful and "None of its words" in reading.hints[0]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Pleuraerguss links", "German"),
        ("kein Nachweis eines Rundherds", "German"),
        ("épanchement du poumon gauche", "French"),
        ("derrame en el pulmón izquierdo", "Spanish"),
        ("versamento a sinistra", "Italian"),
        ("sol akciğer", "Turkish"),
        ("胸水", "another alphabet"),
    ],
)
def test_another_language_is_named(text: str, language: str) -> None:
    reading = read_query(text)
    assert not reading.meaningful and language in reading.hints[-1] and "write English" in reading.hints[-1]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("thymolipoma", "'thymolipoma'"),
        ("a red bicycle in the lung", "'red', 'bicycle'"),
        ("crazy paving pattern", "'paving'"),
        ("pneumoconiosis of miners", "'pneumoconiosis', 'miners'"),
    ],
)
def test_words_that_are_not_known_are_named_and_still_asked(text: str, named: str) -> None:
    reading = read_query(text)
    assert reading.meaningful and f"may not know {named}:" in reading.hints[0]


@pytest.mark.parametrize(
    ("percentile", "words"),
    [(1.0, "Stands out:"), (0.95, "Stands out:"), (0.9, "Stands out weakly:"), (0.5, "Does not stand out:")],
)
def test_a_score_is_told_against_unrelated_texts(percentile: float, words: str) -> None:
    said = in_words(read_query("fluid around the lung"), answer("fluid around the lung", percentile), [FOUND])
    assert said.meaning.startswith(f"{words}")
    assert f"stronger than {round(percentile * len(UNRELATED))} of {len(UNRELATED)}" in said.meaning
    assert ("does not rule it out" in said.meaning) == (percentile < 0.95)
    assert "Nearest finding: Pleural effusion (present, probability 0.82)." in said.meaning


@pytest.mark.parametrize(
    ("text", "side", "told"),
    [
        ("mass in the right lung", "left", "Its strongest place is on the left, not on the right."),
        ("right-sided effusion", "midline", "Its strongest place is near the midline, not on the right."),
        ("mass in the right lung", "right", ""),
        ("mass in the right lung", None, ""),
        ("left and right effusion", "left", ""),
    ],
)
def test_a_place_on_the_other_side_than_the_text_names_is_told(text: str, side: str | None, told: str) -> None:
    place = Evidence((0, 0, 0), 0.5, None, 1, 2, 1, 0.0, side=side)
    said = in_words(read_query(text), replace(answer(text, 0.99), evidence=place), [FOUND]).meaning
    assert told in said and ("strongest place" in said) == bool(told)


@pytest.mark.parametrize(("anatomy", "extent"), [("heart", "focal"), ("lung", "diffuse")])
def test_the_heart_and_diffuse_evidence_have_no_side(anatomy: str, extent: str) -> None:
    text = "enlarged right side"
    place = Evidence((0, 0, 0), 0.5, None, 1, 2, 1, 0.0, side="left", extent=extent)
    own = replace(answer(text, 0.99), evidence=place, anatomy=anatomy)
    assert "strongest place" not in in_words(read_query(text), own, [FOUND]).meaning


@pytest.mark.parametrize(
    ("percentile", "words"), [(1.0, "does not confirm"), (0.5, "does not decide"), (0.9, "does not decide")]
)
def test_a_negation_is_answered_with_what_speaks_for_it(percentile: float, words: str) -> None:
    said = in_words(read_query("no effusion"), answer("effusion", percentile), [FOUND])
    assert (said.text, said.asked) == ("no effusion", "effusion") and f"{words}" in said.meaning
    assert said.key == "query: no effusion"


def test_a_nearest_finding_that_was_not_assessed_has_no_probability() -> None:
    unknown = replace(FOUND, present=None, not_assessed="it has no threshold")
    said = in_words(read_query("fluid around the lung"), answer("fluid around the lung", 0.5), [unknown])
    assert "Nearest finding: Pleural effusion (not assessed)." in said.meaning


def test_unrelated_texts_are_many_and_of_no_chest() -> None:
    assert len(set(UNRELATED)) == len(UNRELATED) == 100
    words = {word for text in UNRELATED for word in text.split()}
    assert not words & {"lung", "heart", "chest", "effusion", "nodule", "ct", "scan", "left", "right"}


@pytest.mark.parametrize("text", ["COPD", "GGO in the left lung", "TB"])
def test_an_abbreviation_is_asked_with_a_hint_to_write_it_out(text: str) -> None:
    reading = read_query(text)
    assert reading.meaningful and reading.asked == text
    assert all(hint.endswith("write abbreviations out.") for hint in reading.hints)


def test_nothing_is_said_of_a_scan_outside_the_domain() -> None:
    outside = replace(answer("effusion", 0.99), not_assessed="the scan is unlike the training scans", percentile=None)
    said = in_words(read_query("no effusion"), outside, [FOUND])
    assert said.meaning is not None and said.meaning.startswith("Not assessed: the scan is unlike the training scans")
    assert (said.text, said.asked, said.percentile) == ("no effusion", "effusion", None)
