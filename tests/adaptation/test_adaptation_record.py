"""The table of an adaptation counts every label, and says of each finding why it is not assessed or not certain."""

import re
from typing import Any

import numpy as np
import pytest

from bundle.ctfindings.adaptation.adaptation_record import format_record, scores_record
from bundle.ctfindings.evaluation.calibrate import Calibration
from bundle.ctfindings.findings import FINDING_NAMES, TEMPLATES
from bundle.ctfindings.networks.classifier import NO_THRESHOLD

COUNT = len(FINDING_NAMES)
GOOD, CHANCE, FEW = 0, 1, 2


@pytest.fixture
def record() -> dict[str, Any]:
    """Forty patients: the first finding is ranked well, the second is not, the third has two known labels."""
    labels = np.full((40, COUNT), -1)
    labels[:, [GOOD, CHANCE]] = (np.arange(40) % 2)[:, None]
    labels[:2, FEW] = [0, 1]
    logits = np.random.default_rng(0).normal(size=(40, COUNT))
    logits[:, GOOD] += 3 * labels[:, GOOD]
    logits[:, CHANCE] = np.where(labels[:, CHANCE] == 1, -0.01, 0.01) + logits[:, CHANCE] * 0.1
    usable, thresholds = np.zeros(COUNT, dtype=bool), np.full(COUNT, NO_THRESHOLD)
    usable[[GOOD, CHANCE]], thresholds[GOOD] = True, 0.4
    ones, templates = np.ones(COUNT), np.zeros((len(TEMPLATES), COUNT))
    calibration = Calibration(1.0, ones, 0 * ones, thresholds, templates)
    scores = scores_record(logits, labels, [str(scan) for scan in range(40)], usable, calibration, seed=0)
    settings = {
        "least_auc": 0.5,
        "scans": 40,
        "patients": 40,
        "steps": 10,
        "weight_decay": 1.0,
        "learning_rate": 0.1,
        "auc_before": 0.7,
    }
    return {**scores, **settings, "failed": {"a": "no file"}, "domain": None}


def test_labels_are_counted_whether_or_not_they_are_used(record: dict[str, Any]) -> None:
    rows = record["findings"]
    assert [(row["present"], row["absent"]) for row in rows[:4]] == [(20, 20), (20, 20), (1, 1), (0, 0)]
    assert [row["assessed"] for row in rows[:4]] == [True, False, False, False]
    assert rows[GOOD]["auc"] > 0.9 and rows[GOOD]["threshold"] == 0.4
    assert "threshold" not in rows[CHANCE] and "auc" not in rows[FEW]


def test_sensitivity_and_specificity_are_those_at_the_threshold(record: dict[str, Any]) -> None:
    row, labels = record["findings"][GOOD], np.arange(40) % 2
    logits = np.random.default_rng(0).normal(size=(40, COUNT))[:, GOOD] + 3 * labels
    found = 1 / (1 + np.exp(-logits)) >= 0.4
    assert row["sensitivity"] == pytest.approx(found[labels == 1].mean())
    assert row["specificity"] == pytest.approx(1 - found[labels == 0].mean())
    assert 0 < row["specificity"] < 1 and row["sensitivity"] > 0


def test_few_patients_have_no_interval(record: dict[str, Any]) -> None:
    assert record["findings"][GOOD]["interval"] is not None and record["macro"]["interval"] is not None
    patients = [str(scan % 9) for scan in range(40)]
    labels = np.full((40, COUNT), -1)
    labels[:, GOOD] = np.arange(40) % 2
    logits, usable = np.random.default_rng(0).normal(size=(40, COUNT)), np.zeros(COUNT, dtype=bool)
    usable[GOOD] = True
    ones, templates = np.ones(COUNT), np.zeros((len(TEMPLATES), COUNT))
    calibration = Calibration(1.0, ones, 0 * ones, np.where(usable, 0.5, NO_THRESHOLD), templates)
    scores = scores_record(logits, labels, patients, usable, calibration, seed=0)
    assert scores["findings"][GOOD]["interval"] is scores["macro"]["interval"] is None
    assert "none, fewer than 10 patients" in format_record({**record, **scores})


def test_the_table_says_why_a_finding_is_not_assessed_and_which_are_not_above_chance(record: dict[str, Any]) -> None:
    good, chance, few = format_record(record).splitlines()[1:4]
    assert re.search(r" 0\.\d{3}  0\.\d{3} to (0|1)\.\d{3}$", good)
    assert chance.endswith("AUC not above 0.5: not assessed")
    assert few.endswith("too few patients: not assessed")
    record["findings"][GOOD]["interval"] = [0.45, 1.0]
    assert format_record(record).splitlines()[1].endswith("0.450 to 1.000, not shown to be above chance")


def test_few_scans_are_cautioned_of(record: dict[str, Any]) -> None:
    assert "Caution: 40 scans of 40 patients say little of other patients" in format_record(record)
    assert "Caution" not in format_record({**record, "scans": 100})
    assert "Left out: a: no file" in format_record(record)
    assert "Mean AUC 0.700 of the head before it was trained" in format_record(record)
    assert "before it was trained" not in format_record({**record, "auc_before": None})
