"""Spread over wordings and its intervals, against plain loops over scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from bundle.ctfindings.findings import FINDINGS, TEMPLATES, finding_index
from bundle.ctfindings.metrics.comparison import compare_sections, section_record
from bundle.ctfindings.metrics.robustness import (
    auc_by_wording,
    f1_section,
    mean_section,
    spread_statistics,
    wording_record,
    wording_section,
)
from bundle.ctfindings.metrics.wordings import WORDINGS

NAMES = ["A", "B", "C"]


def answers(scans: int = 80, noise: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, (scans, 4))
    scores = (
        labels[:, None]
        + random.normal(size=(scans, 1, 4))
        + noise * random.normal(size=(scans, 3, 4)) * np.asarray([0.1, 1, 2])[:, None]
    )
    return scores, labels, [f"p{i // 2}" for i in range(scans)]


def test_spread_is_that_of_a_plain_loop() -> None:
    scores, labels, _ = answers()
    auc = np.asarray([[roc_auc_score(labels[:, c], scores[:, t, c]) for c in range(4)] for t in range(3)])
    macro = auc.mean(axis=1)
    expected = [*macro, macro.mean(), macro.std(ddof=1), np.ptp(macro), auc.std(axis=0, ddof=1).mean()]
    np.testing.assert_allclose(spread_statistics(auc_by_wording(scores, labels, np.ones((1, 80))))[0], expected)


def test_the_record_has_an_interval_for_each_number() -> None:
    scores, labels, patients = answers()
    record = wording_record(scores, labels, NAMES, patients, resamples=100)
    assert record["ids"] == NAMES
    assert record["lowest"] == min(record["macro_auc"]) and record["highest"] == max(record["macro_auc"])
    for name in ("mean", "sd", "range", "finding_sd"):
        low, high = record[f"{name}_interval"]
        assert low < high
    assert all(
        low < value < high for value, (low, high) in zip(record["macro_auc"], record["macro_auc_interval"], strict=True)
    )


def test_f1_at_decisions_is_that_of_scikit_learn() -> None:
    scores, labels, patients = answers()
    present = scores > 0.5
    f1 = np.asarray([np.mean([f1_score(labels[:, c], present[:, t, c]) for c in range(4)]) for t in range(3)])
    record = section_record(f1_section(present, labels), patients, resamples=10)
    assert [record[name] for name in ("mean", "sd", "range")] == pytest.approx([f1.mean(), f1.std(ddof=1), np.ptp(f1)])


def test_unknown_labels_count_neither_in_auc_nor_in_f1() -> None:
    scores, labels, patients = answers()
    hidden = labels.copy()
    hidden[:20] = -1
    flipped = scores.copy()
    flipped[:20] = -flipped[:20]
    weights = np.ones((1, 80))
    np.testing.assert_array_equal(auc_by_wording(scores, hidden, weights), auc_by_wording(flipped, hidden, weights))
    first, second = (
        section_record(f1_section(given > 0.5, hidden), patients, resamples=5)["mean"] for given in (scores, flipped)
    )
    assert first == second


def test_the_comparison_of_a_model_with_itself_is_zero_with_an_interval_of_zero() -> None:
    scores, labels, patients = answers()
    part = {"templates": wording_section(scores, labels, NAMES)}
    rows = compare_sections(part, part, patients, resamples=50)
    assert {(row["difference"], *row["interval"]) for row in rows} == {(0.0, 0.0, 0.0)}
    assert [row["statistic"] for row in rows] == ["auc.A", "auc.B", "auc.C", "mean", "sd", "range", "finding_sd"]


def test_pairing_narrows_the_interval_of_a_difference() -> None:
    """Two models that differ by a little noise: unpaired, the two macro AUCs vary far more than their difference."""
    scores, labels, patients = answers(200)
    other = scores + 0.05 * np.random.default_rng(5).normal(size=scores.shape)
    parts = [{"templates": wording_section(given, labels, NAMES)} for given in (scores, other)]
    row = next(row for row in compare_sections(*parts, patients, resamples=200) if row["statistic"] == "mean")
    low, high = section_record(parts[0]["templates"], patients, 200)["mean_interval"]
    assert row["interval"][1] - row["interval"][0] < (high - low) / 3
    assert row["difference"] == pytest.approx(row["first"] - row["second"])


def test_statistics_that_only_one_model_has_are_left_out() -> None:
    scores, labels, patients = answers()
    part = wording_section(scores, labels, NAMES)
    assert (
        compare_sections({"templates": part, "captions": part}, {"templates": part}, patients, 5)[-1]["section"]
        == "templates"
    )


def test_means_are_weighted_by_the_scan_of_each_row() -> None:
    section = mean_section([[1.0], [0.0], [0.0]], np.asarray([0, 0, 2]), ["hit"])
    np.testing.assert_allclose(section.statistic(np.asarray([[1.0, 5, 1], [2, 0, 1]])), [[1 / 3], [2 / 5]])


def test_names_with_a_dot_are_nested() -> None:
    section = mean_section([[1.0, 2.0], [1.0, 2.0]], np.asarray([0, 1]), ["a.b.c", "d"])
    record = section_record(section, ["p", "q"], 5)
    assert record == {"a": {"b": {"c": 1.0, "c_interval": [1.0, 1.0]}}, "d": 2.0, "d_interval": [2.0, 2.0]}


@pytest.mark.parametrize("wording", WORDINGS, ids=lambda wording: wording.id)
def test_every_wording_changes_the_reference_for_every_finding_and_is_no_template(wording) -> None:
    for finding in FINDINGS:
        positive, negative = wording.pair(finding)
        name = finding.name[:1].lower() + finding.name[1:]
        assert positive != negative
        assert positive not in {f"There is {name}."} and negative not in {f"There is no {name}."}
    assert wording.id not in {template.id for template in TEMPLATES}


def test_wordings_read_as_they_should() -> None:
    effusion = FINDINGS[finding_index("Pleural effusion")]
    emphysema = FINDINGS[finding_index("Emphysema")]
    pairs = {wording.id: wording.pair for wording in WORDINGS}
    assert pairs["lower case"](effusion) == ("there is pleural effusion.", "there is no pleural effusion.")
    assert pairs["article"](emphysema) == ("There is an emphysema.", "There is not an emphysema.")
    assert pairs["anatomy"](effusion) == (
        "There is pleural effusion in the lung.",
        "There is no pleural effusion in the lung.",
    )
    assert pairs["anatomy"](FINDINGS[0])[0] == "There is medical material in the chest."
    assert pairs["synonym 1"](effusion)[1] == f"There is no {effusion.synonyms[0]}."
