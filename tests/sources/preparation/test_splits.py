"""Splits are a function of the patient; a patient is never on both sides."""

from pathlib import Path

import pytest

from bundle.ctfindings.data.study_record import SPLITS
from bundle.ctfindings.sources.preparation.source import Candidate
from bundle.ctfindings.sources.preparation.splits import (
    DEFAULT_FRACTIONS,
    assign_splits,
    check_fractions,
    draw_split,
    pseudonym,
    split_name,
)


def test_shares_are_kept_on_average() -> None:
    drawn = [draw_split(f"patient {number}", (0.7, 0.2, 0.1)) for number in range(20_000)]
    assert [drawn.count(split) / 20_000 for split in SPLITS] == pytest.approx([0.7, 0.2, 0.1], abs=0.01)


def test_a_split_depends_on_patient_and_seed_alone() -> None:
    patients = [str(number) for number in range(200)]
    once = [draw_split(patient, DEFAULT_FRACTIONS) for patient in patients]
    assert once == [draw_split(patient, DEFAULT_FRACTIONS) for patient in patients]
    assert once != [draw_split(patient, DEFAULT_FRACTIONS, seed=1) for patient in patients]


def test_an_empty_share_gets_nobody() -> None:
    assert {draw_split(str(number), (0.5, 0.5, 0.0)) for number in range(500)} == {"training", "validation"}
    assert {draw_split(str(number), (1.0, 0.0, 0.0)) for number in range(500)} == {"training"}


@pytest.mark.parametrize(
    ("fractions", "problem"),
    [
        ((0.8, 0.1), "do not add up to 1"),
        ((0.8, 0.1, 0.2), "do not add up to 1"),
        ((-1, 1, 1), "have a negative value"),
    ],
)
def test_shares_that_are_no_parts_of_one_are_refused(fractions: tuple[float, ...], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        check_fractions(fractions)


def test_words_for_splits() -> None:
    assert [split_name(word) for word in ("Train", "valid", "VAL", "test", "other")] == [
        "training",
        "validation",
        "validation",
        "test",
        None,
    ]


def test_patients_in_two_splits_are_found() -> None:
    studies = [Candidate(line, str(line), name, Path("scan.nii"), split="test") for line, name in enumerate("abba", 2)]
    assert set(assign_splits(studies, DEFAULT_FRACTIONS, 0, Path("t.csv")).values()) == {"test"}
    studies[2].split = "training"
    with pytest.raises(ValueError, match=r"t\.csv: patients in two splits: 1, the first in lines 3, 4"):
        assign_splits(studies, DEFAULT_FRACTIONS, 0, Path("t.csv"))


def test_a_patient_with_one_named_split_has_all_studies_in_it() -> None:
    studies = [Candidate(number, str(number), "p", Path("scan.nii")) for number in range(5)]
    studies[3].split = "validation"
    assert set(assign_splits(studies, DEFAULT_FRACTIONS, 0, Path("t.csv")).values()) == {"validation"}


def test_a_pseudonym_groups_without_showing_the_number() -> None:
    assert pseudonym("4711") == pseudonym("4711") != pseudonym("4712")
    assert "4711" not in pseudonym("4711")
