"""Synthetic patients have the findings at CT-RATE's rates and together as in patients."""

import csv
from pathlib import Path

import numpy as np
import pytest

from bundle.ctfindings.findings import FINDING_NAMES, finding_index
from bundle.ctfindings.phantom.prevalence import PREVALENCE, sample_labels

PUBLISHED = Path(__file__).parents[3] / "shared/data/reports/ctrate_label_prevalence.csv"


@pytest.fixture(scope="module")
def population() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.array([sample_labels(rng)[0] for _ in range(3000)])


def test_every_finding_occurs_at_its_rate(population: np.ndarray) -> None:
    rates = np.array([PREVALENCE[name] for name in FINDING_NAMES])
    # Four standard errors of a share.
    assert (np.abs(population.mean(0) - rates) < 4 * np.sqrt(rates * (1 - rates) / len(population))).all()


def test_about_one_scan_in_nine_is_normal(population: np.ndarray) -> None:
    assert 0.08 < (population.sum(1) == 0).mean() < 0.15


@pytest.mark.parametrize(
    "first, second",
    [
        ("Arterial wall calcification", "Coronary artery wall calcification"),
        ("Pleural effusion", "Atelectasis"),
        ("Consolidation", "Lung opacity"),
        ("Bronchiectasis", "Peribronchial thickening"),
    ],
)
def test_findings_that_belong_together_occur_together(population: np.ndarray, first: str, second: str) -> None:
    one, two = population[:, finding_index(first)], population[:, finding_index(second)]
    assert two[one == 1].mean() > 1.5 * two.mean()


def test_rates_are_those_of_the_published_label_table() -> None:
    if not PUBLISHED.exists():
        pytest.skip(f"the published label rates are not on this machine: {PUBLISHED}")
    with PUBLISHED.open() as file:
        for row in csv.DictReader(file):
            if row["label"] in PREVALENCE:
                assert PREVALENCE[row["label"]] == pytest.approx(float(row["train_scan_clean"]) / 100, abs=0.012)
