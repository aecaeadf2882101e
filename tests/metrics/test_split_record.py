"""The evaluation record: its numbers against scikit-learn, and that it is plain JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bundle.ctfindings.metrics.split_record import evaluate_split, format_table

FINDINGS = ["Cardiomegaly", "Emphysema", "Lymphadenopathy"]


def split(scans: int = 60) -> dict:
    """A split with signal in two findings; the third one is never present."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (scans, 3))
    labels[:, 2] = 0
    logits = random.normal(size=(scans, 7, 3)) + labels[:, None, :]
    return {
        "probabilities": 1 / (1 + np.exp(-logits.mean(axis=1))),
        "logits_by_template": logits,
        "labels": labels,
        "ids": [f"scan_{i:03d}" for i in range(scans)],
        "patients": [f"p{i // 2:03d}" for i in range(scans)],
        "thresholds": [0.5, 0.6, 0.7],
        "findings": FINDINGS,
        "resamples": 100,
    }


def test_the_record_is_plain_json_without_nan() -> None:
    record = evaluate_split(**split())
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_a_finding_without_positives_is_none_and_named_in_the_warnings() -> None:
    record = evaluate_split(**split())
    row = record["findings"][2]
    assert (row["auc"], row["auc_interval"], row["sensitivity"]) == (None, [None, None], None)
    assert record["warnings"] == ["Lymphadenopathy: 0 of 60 known labels are positive; AUC is not defined"]
    assert record["macro"]["findings_with_auc"] == 2


def test_rows_and_means_are_those_of_scikit_learn() -> None:
    data = split()
    record = evaluate_split(**data)
    expected = [roc_auc_score(data["labels"][:, c], data["probabilities"][:, c]) for c in range(2)]
    assert [row["auc"] for row in record["findings"][:2]] == pytest.approx(expected)
    assert record["macro"]["auc"] == pytest.approx(np.mean(expected))
    assert record["macro"]["auc_lowest"] == pytest.approx(min(expected))
    low, high = record["macro"]["auc_interval"]
    assert low < record["macro"]["auc"] < high
    assert record["findings"][0]["prevalence"] == pytest.approx(data["labels"][:, 0].mean())
    assert (record["scans"], record["patients"]) == (60, 30)


def test_templates_are_scored_one_by_one() -> None:
    data = split()
    templates = evaluate_split(**data)["templates"]
    expected = [
        np.mean([roc_auc_score(data["labels"][:, c], data["logits_by_template"][:, t, c]) for c in range(2)])
        for t in range(7)
    ]
    assert templates["macro_auc"] == pytest.approx(expected)
    assert templates["mean"] == pytest.approx(np.mean(expected))
    assert templates["sd"] == pytest.approx(np.std(expected, ddof=1))
    assert templates["range"] == pytest.approx(max(expected) - min(expected))


def test_scans_used_for_calibration_are_not_scored() -> None:
    with pytest.raises(ValueError, match="scan scan_003 is in the calibration set"):
        evaluate_split(**split(), calibration_ids=["other", "scan_003"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"findings": FINDINGS[:2]}, "2 finding names for 3 columns"),
        ({"patients": ["a"]}, "1 patients for 60 scans"),
        ({"ids": ["a", "b", "a"] + ["c"] * 57}, "scan a occurs twice"),
        ({"logits_by_template": np.zeros((60, 3))}, r"\[scans, wordings, findings\]"),
    ],
)
def test_input_that_does_not_fit_is_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_split(**{**split(), **change})


def test_the_table_has_a_row_for_each_finding_and_the_mean() -> None:
    lines = format_table(evaluate_split(**split())).splitlines()
    assert len(lines) == 2 + 3 + 1
    assert len({line.count("|") for line in lines}) == 1
    assert lines[4].startswith("| Lymphadenopathy | 60 | 0 | - |")
