"""Sentences of radiology prose: what ends one, what does not, and that offsets are those of the report."""

from itertools import pairwise

import pytest

from bundle.ctfindings.reports.sentences import split_sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A 1.5 mm nodule is seen. The pleura is free.", ["A 1.5 mm nodule is seen.", "The pleura is free."]),
        ("Nodule No. 3, see Fig. 2. Second.", ["Nodule No. 3, see Fig. 2.", "Second."]),
        ("Changes, e.g. a cyst, i.e. fluid. Next.", ["Changes, e.g. a cyst, i.e. fluid.", "Next."]),
        ("An 8 Fr. catheter in the V. cava. Next.", ["An 8 Fr. catheter in the V. cava.", "Next."]),
        ("Stanford type A. The aorta is wide.", ["Stanford type A.", "The aorta is wide."]),
        ("A node of 13x9.3 mm.The heart is normal.", ["A node of 13x9.3 mm.", "The heart is normal."]),
        ("Effusion was observed.No mass.", ["Effusion was observed.", "No mass."]),
        ("One was observed.10 mm nodule.", ["One was observed.", "10 mm nodule."]),
        ("Lesion (cyst? abscess?) is seen. Mass? Yes.", ["Lesion (cyst? abscess?) is seen.", "Mass?", "Yes."]),
        ("Nodule (series 3, im. 45). Seg. 4 is free.", ["Nodule (series 3, im. 45).", "Seg. 4 is free."]),
        ("there is no mass. trachea is open.", ["there is no mass.", "trachea is open."]),
        ('Cardiomegaly " Minimal effusion " Hernia', ["Cardiomegaly", "Minimal effusion", "Hernia"]),
        ("Ca in remission • Emphysema • Hernia", ["Ca in remission", "Emphysema", "Hernia"]),
    ],
)
def test_english_prose(text: str, expected: list[str]) -> None:
    assert [sentence.text for sentence in split_sentences(text)] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Z.n. Lobektomie. Kein Erguss.", ["Z.n. Lobektomie.", "Kein Erguss."]),
        (
            "Fraktur der 5. Rippe links, z.B. alt. Herz normal.",
            ["Fraktur der 5. Rippe links, z.B. alt.", "Herz normal."],
        ),
        ("Rundherd ca. 5 mm (Serie 3, Bild 45). Ende.", ["Rundherd ca. 5 mm (Serie 3, Bild 45).", "Ende."]),
        ("CT vom 3. Mai. 2. Rippe frei.", ["CT vom 3. Mai.", "2. Rippe frei."]),
        ("Erguss bds. Kein Pneumothorax.", ["Erguss bds.", "Kein Pneumothorax."]),
    ],
)
def test_german_abbreviations_and_ordinals(text: str, expected: list[str]) -> None:
    assert [sentence.text for sentence in split_sentences(text)] == expected


def test_lists_headings_and_wrapped_lines() -> None:
    text = (
        "FINDINGS:\n1. Nodule in the right lung, 5\nmm wide.\n2) Effusion\n- Heart normal\n\n"
        "IMPRESSION: No change. Lungs: clear."
    )
    expected = [
        "FINDINGS:",
        "Nodule in the right lung, 5\nmm wide.",
        "Effusion",
        "Heart normal",
        "IMPRESSION:",
        "No change.",
        "Lungs: clear.",
    ]
    assert [sentence.text for sentence in split_sentences(text)] == expected


@pytest.mark.parametrize(
    "text", ["", "  \n ", " . ", 'FINDINGS:\n\n1. A 1.5 cm cyst.No fluid?\n\n\n• (none) " Ende', "No. ", "z.B."]
)
def test_offsets_are_those_of_the_report_and_sentences_do_not_overlap(text: str) -> None:
    sentences = split_sentences(text)
    assert all(text[sentence.start : sentence.end] == sentence.text == sentence.text.strip() for sentence in sentences)
    assert all(first.end <= second.start for first, second in pairwise(sentences))


def test_no_word_is_lost() -> None:
    text = 'Trachea is open.No mass, 3.5 cm. 1. Nodule (mass?). " Z.n. OP. FINDINGS: none'
    joined = " ".join(sentence.text for sentence in split_sentences(text))
    assert [word for word in joined.split() if word.isalpha()] == [
        w for w in text.replace(".No", ". No").split() if w.isalpha()
    ]


def test_a_report_without_any_full_stop_takes_no_quadratic_time() -> None:
    assert len(split_sentences("nodule " * 20_000)) == 1
    assert split_sentences(" \t" * 20_000) == []
