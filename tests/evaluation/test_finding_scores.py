"""The evaluation record: its numbers against scikit-learn, and that it is plain JSON."""

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bundle.ctfindings.evaluation.finding_scores import finding_scores_record, format_table
from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.networks.classifier import NO_THRESHOLD

FINDINGS = ["Cardiomegaly", "Emphysema", "Lymphadenopathy"]


def split(scans: int = 60) -> dict:
    """A split with signal in two findings; the third one is never present."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (scans, 3))
    labels[:, 2] = 0
    logits = random.normal(size=(scans, 7, 3)) + labels[:, None, :]
    return {
        "probabilities": 1 / (1 + np.exp(-logits.mean(axis=1))),
        "template_logits": logits,
        "labels": labels,
        "thresholds": [0.5, 0.6, 0.7],
        "findings": FINDINGS,
        "templates": [f"T{i}" for i in range(1, 8)],
        "bootstrap": Bootstrap([f"p{i // 2:03d}" for i in range(scans)], resamples=100),
    }


def test_the_record_is_plain_json_without_nan() -> None:
    record = finding_scores_record(**split())
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_a_finding_without_positives_is_none_and_named_in_the_warnings() -> None:
    record = finding_scores_record(**split())
    row = record["findings"][2]
    assert (row["auc"], row["auc_interval"], row["sensitivity"]) == (None, [None, None], None)
    assert record["warnings"] == ["Lymphadenopathy: 0 of 60 known labels are positive; AUC is not defined"]
    assert record["macro"]["findings_with_auc"] == 2


def test_a_finding_without_a_threshold_has_an_auc_but_no_scores_of_decisions() -> None:
    record = finding_scores_record(**split() | {"thresholds": [NO_THRESHOLD, 0.6, 0.7]})
    row, other = record["findings"][:2]
    assert row["auc"] > 0.5 and (row["sensitivity"], row["specificity"], row["f1"]) == (None, None, None)
    assert record["macro"]["sensitivity"] == other["sensitivity"]


def test_rows_and_means_are_those_of_scikit_learn() -> None:
    data = split()
    record = finding_scores_record(**data)
    expected = [roc_auc_score(data["labels"][:, c], data["probabilities"][:, c]) for c in range(2)]
    assert [row["auc"] for row in record["findings"][:2]] == pytest.approx(expected)
    assert record["macro"]["auc"] == pytest.approx(np.mean(expected))
    assert record["macro"]["auc_lowest"] == pytest.approx(min(expected))
    low, high = record["macro"]["auc_interval"]
    assert low < record["macro"]["auc"] < high
    assert record["findings"][0]["prevalence"] == pytest.approx(data["labels"][:, 0].mean())


def test_templates_are_scored_one_by_one() -> None:
    data = split()
    templates = finding_scores_record(**data)["templates"]
    expected = [
        np.mean([roc_auc_score(data["labels"][:, c], data["template_logits"][:, t, c]) for c in range(2)])
        for t in range(7)
    ]
    assert templates["macro_auc"] == pytest.approx(expected)
    assert templates["mean"] == pytest.approx(np.mean(expected))
    assert templates["sd"] == pytest.approx(np.std(expected, ddof=1))
    assert templates["range"] == pytest.approx(max(expected) - min(expected))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bootstrap": Bootstrap(["a"])}, "one row for each of the 1 scans"),
        ({"template_logits": np.zeros((60, 3))}, r"\[scans, wordings, findings\]"),
    ],
)
def test_input_that_does_not_fit_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        finding_scores_record(**{**split(), **change})


def test_the_table_has_a_row_for_each_finding_and_the_mean() -> None:
    lines = format_table({**finding_scores_record(**split()), "scans": 60}).splitlines()
    assert len(lines) == 2 + 3 + 1
    assert len({line.count("|") for line in lines}) == 1
    assert lines[4].startswith("| Lymphadenopathy | 60 | 0 | - |")
