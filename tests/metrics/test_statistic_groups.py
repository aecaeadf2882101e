"""Groups of statistics: nested records, and paired comparisons of two models."""

import numpy as np
import pytest

from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.statistic_groups import compare_groups, group_record
from bundle.ctfindings.metrics.wording_spread import auc_group, mean_group
from tests.metrics.answers import answers

NAMES = ["A", "B", "C"]


def test_the_comparison_of_a_model_with_itself_is_zero_with_an_interval_of_zero() -> None:
    scores, labels, patients = answers()
    part = {"templates": auc_group(scores, labels, NAMES)}
    rows = compare_groups(part, part, Bootstrap(patients, resamples=50))
    assert {(row["difference"], *row["interval"]) for row in rows} == {(0.0, 0.0, 0.0)}
    assert [row["statistic"] for row in rows] == ["auc.A", "auc.B", "auc.C", "mean", "sd", "range", "finding_sd"]


def test_pairing_narrows_the_interval_of_a_difference() -> None:
    """Two models that differ by a little noise: unpaired, the two macro AUCs vary far more than their difference."""
    scores, labels, patients = answers(200)
    other = scores + 0.05 * np.random.default_rng(5).normal(size=scores.shape)
    parts = [{"templates": auc_group(given, labels, NAMES)} for given in (scores, other)]
    row = next(row for row in compare_groups(*parts, Bootstrap(patients, resamples=200)) if row["statistic"] == "mean")
    low, high = group_record(parts[0]["templates"], Bootstrap(patients, 200))["mean_interval"]
    assert row["interval"][1] - row["interval"][0] < (high - low) / 3
    assert row["difference"] == pytest.approx(row["first"] - row["second"])


def test_statistics_that_only_one_model_has_are_left_out() -> None:
    scores, labels, patients = answers()
    part = auc_group(scores, labels, NAMES)
    assert (
        compare_groups({"templates": part, "captions": part}, {"templates": part}, Bootstrap(patients, 5))[-1][
            "section"
        ]
        == "templates"
    )


def test_names_with_a_dot_are_nested() -> None:
    group = mean_group([[1.0, 2.0], [1.0, 2.0]], np.asarray([0, 1]), ["a.b.c", "d"])
    record = group_record(group, Bootstrap(["p", "q"], 5))
    assert record == {"a": {"b": {"c": 1.0, "c_interval": [1.0, 1.0]}}, "d": 2.0, "d_interval": [2.0, 2.0]}
