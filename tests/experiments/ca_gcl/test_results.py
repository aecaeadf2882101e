"""Results are paired over seeds, and every expectation can fail."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.ctfindings.evaluation.diagnostics import Diagnostics
from experiments.ca_gcl.results import EXPECTATIONS, MEASURES, experiment_results
from tests.experiments.ca_gcl.conftest import NAMES, SCANS, answers


def test_a_model_without_the_faults_meets_what_is_expected_of_it(results: dict[str, Any]) -> None:
    by_text = {row["text"]: row for row in results["expectations"]}
    assert len(by_text) == len(EXPECTATIONS)
    cosine, _, _, _, template_sd, _, auc, recall = results["expectations"]
    assert cosine["met"] and cosine["value"] > 1 / 3 and cosine["interval"][0] > 0
    assert template_sd["met"] and auc["met"]
    assert recall["met"] and recall["value"] == pytest.approx(0.1 - 0.3, abs=1e-6)


def test_a_model_with_the_faults_does_not(evaluations: dict[str, dict[int, Path]]) -> None:
    swapped = {"fvlm": evaluations["ca_gcl"], "ca_gcl": evaluations["fvlm"]}
    met = [
        row["met"] for row in experiment_results(swapped, dict.fromkeys(NAMES, ""), {}, resamples=30)["expectations"]
    ]
    assert met[0] is False and met[4] is False and met[7] is False


def test_the_mean_is_over_seeds_and_the_difference_of_the_means(results: dict[str, Any]) -> None:
    variants = results["variants"]
    for key in MEASURES:
        seeds = [variants["ca_gcl"]["seeds"][seed][key] for seed in ("0", "1")]
        assert variants["ca_gcl"]["mean"][key] == pytest.approx(np.mean(seeds))
        assert variants["ca_gcl"]["sd_over_seeds"][key] == pytest.approx(np.std(seeds, ddof=1))
        assert results["differences"]["ca_gcl"][key] == pytest.approx(
            variants["ca_gcl"]["mean"][key] - variants["fvlm"]["mean"][key]
        )


def test_seeds_are_drawn_like_patients(evaluations: dict[str, dict[int, Path]]) -> None:
    """Two runs that differ widen the interval of their mean beyond that of two equal runs."""
    runs = evaluations["ca_gcl"]
    equal = {**evaluations, "ca_gcl": {0: runs[0], 1: runs[0]}}
    widths = []
    for given in (equal, {**evaluations, "ca_gcl": {0: runs[0], 1: evaluations["fvlm"][1]}}):
        found = experiment_results(given, dict.fromkeys(NAMES, ""), {}, resamples=200)
        low, high = found["variants"]["ca_gcl"]["mean"]["cross_mean_interval"]
        widths.append(high - low)
    assert widths[1] > 3 * widths[0]


def test_scans_that_differ_are_not_compared(evaluations: dict[str, dict[int, Path]], tmp_path: Path) -> None:
    other = answers(True, 0, 1.0, 0.5)
    changed = Diagnostics(**{**vars(other), "ids": np.asarray([f"t{i}" for i in range(SCANS)])})
    changed.save(tmp_path / "diagnostics.npz")
    with pytest.raises(ValueError, match="scored on other scans"):
        experiment_results({**evaluations, "ca_gcl": {0: tmp_path}}, dict.fromkeys(NAMES, ""), {}, resamples=5)
