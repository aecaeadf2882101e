"""Reports find their scans by anatomy rows: ties, missing anatomies, dropped sentences."""

from __future__ import annotations

import numpy as np
import pytest

from bundle.ctfindings.metrics.caption_retrieval import drop_sentences, rank_of_own, report_similarity


def test_only_anatomies_that_both_have_are_compared() -> None:
    reports = np.asarray([[[1.0, 0], [0, 1]], [[1, 0], [1, 0]]])
    scans = np.asarray([[[1.0, 0], [1, 0]], [[0, 1], [1, 0]]])
    said, shown = np.asarray([[True, False], [True, True]]), np.asarray([[True, True], [False, True]])
    found = report_similarity(reports, said, scans, shown)
    # Report 0 speaks of anatomy 0 alone, which scan 1 does not show.
    np.testing.assert_allclose(found, [[1, -1], [1, 1]])


def test_without_reports_there_is_nothing_to_rank() -> None:
    empty, none = np.zeros((0, 2, 3)), np.zeros((0, 2), dtype=bool)
    assert rank_of_own(report_similarity(empty, none, empty, none)).shape == (0,)


def test_a_tie_counts_against_the_query() -> None:
    assert rank_of_own(np.asarray([[0.5, 0.5, 0.1], [0.9, 0.8, 0.7], [0.1, 0.2, 0.3 + 1e-13]])).tolist() == [2, 2, 1]


def test_half_of_the_sentences_are_left_in_their_order() -> None:
    sentences = ["One.", "Two.", "Three.", "Four.", "Five."]
    texts = {drop_sentences(sentences, 0.5, np.random.default_rng(seed)) for seed in range(60)}
    assert all(len(text.split()) == 3 for text in texts)
    assert len(texts) == 10, "five choose three"
    assert all(
        [sentences.index(word) for word in text.split()] == sorted(sentences.index(word) for word in text.split())
        for text in texts
    )


def test_a_single_sentence_stays() -> None:
    assert drop_sentences(["One."], 0.0, np.random.default_rng(0)) == "One."


def test_similarity_of_a_report_is_the_mean_over_common_anatomies() -> None:
    reports = np.array([[[1.0, 0], [0, 1]], [[0, 1], [np.nan, np.nan]]])
    scans = np.array([[[1.0, 0], [1, 0]], [[0.6, 0.8], [0, 1]]])
    said, shown = [[True, True], [True, False]], [[True, True], [False, True]]
    # Report 0 has both anatomies in scan 0: (1 + 0) / 2; scan 1 shows only the second: 1. Report 1 has nothing in
    # common with scan 1.
    assert report_similarity(reports, said, scans, shown) == pytest.approx(np.array([[0.5, 1.0], [0.0, -1.0]]))


def test_rank_of_own_counts_equals_as_ahead() -> None:
    assert rank_of_own([[0.9, 0.1, 0.9], [0.2, 0.5, 0.1], [0.7, 0.6, 0.5]]).tolist() == [2, 1, 3]
