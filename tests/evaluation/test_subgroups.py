"""AUC in groups of positives and of scans, by hand."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from bundle.ctfindings.evaluation.evaluation_run import EvaluationRun
from bundle.ctfindings.evaluation.subgroups import Subgroups
from bundle.ctfindings.findings import FINDING_NAMES, finding_index
from bundle.ctfindings.metrics.bootstrap import Bootstrap

NODULE = finding_index("Lung nodule")


def run_of(studies: list[dict[str, Any]], probabilities: list[float], labels: list[int]) -> EvaluationRun:
    """A run that knows one finding only."""
    scores, truth = (np.full((len(studies), len(FINDING_NAMES)), value) for value in (0.5, -1))
    scores[:, NODULE], truth[:, NODULE] = probabilities, labels
    run = SimpleNamespace(
        split="test",
        studies={"test": studies},
        scores={"test": SimpleNamespace(labels=truth)},
        probabilities=scores,
        bootstrap=Bootstrap([str(index) for index in range(len(studies))], resamples=20),
        record={},
    )
    return cast(EvaluationRun, run)


def nodule(severity: float, size: float) -> dict[str, Any]:
    return {"lesions": {"Lung nodule": {"severity": severity, "lesion_mm": size}}}


def test_grave_and_large_lesions_are_each_compared_with_all_negatives() -> None:
    studies = [nodule(0.1, 5), nodule(0.2, 10), nodule(0.9, 45), {}, nodule(1.0, 60)]
    run = run_of(studies, [0.3, 0.6, 0.9, 0.5, 0.1], [1, 1, 1, 0, 0])  # the last does not count as positive
    Subgroups({})(run)
    found = {(row["by"], row["group"]): (row["positives"], row["auc"]) for row in run.record["subgroups"]}
    assert found["severity", "below 0.33"] == (2, 0.75)
    assert found["severity", "0.33 to 0.67"] == (0, None)
    assert found["severity", "0.67 or more"] == (1, 1.0)
    assert found["lesion_mm", "below 10"] == (1, 0.5)
    assert found["lesion_mm", "10 to 20"] == (1, 1.0)
    assert found["lesion_mm", "40 or more"] == (1, 1.0)
    rows = [row for row in run.record["subgroups"] if row["group"] == "0.67 or more"]
    assert list(rows[0]["findings"]) == ["Lung nodule"] and rows[0]["scans"] == 1


def test_columns_divide_the_scans() -> None:
    studies = [{"sex": "F"}, {"sex": "F"}, {"sex": "M"}, {"sex": "M"}, {}]
    run = run_of(studies, [0.9, 0.1, 0.2, 0.8, 0.5], [1, 0, 1, 0, 1])
    text = Subgroups({"sex": None})(run)
    assert [(row["by"], row["group"], row["scans"], row["auc"]) for row in run.record["subgroups"]] == [
        ("sex", "F", 2, 1.0),
        ("sex", "M", 2, 0.0),
    ]
    assert "| sex | M | 2 | 1 | 1 | 0.000 |" in text


def test_numbers_are_divided_at_limits_and_a_scan_without_one_is_in_no_group() -> None:
    studies = [{"noise_hu": 10.0}, {"noise_hu": 14.9}, {"noise_hu": 15}, {"noise_hu": 40}, {}]
    run = run_of(studies, [0.9, 0.1, 0.2, 0.8, 0.5], [1, 0, 1, 0, 1])
    Subgroups({"noise_hu": [15, 25]})(run)
    found = [(row["group"], row["scans"], row["auc"]) for row in run.record["subgroups"]]
    assert found == [("below 15", 2, 1.0), ("15 to 25", 1, None), ("25 or more", 1, None)]


def test_without_groups_there_is_no_table() -> None:
    run = run_of([{}, {}], [0.9, 0.1], [1, 0])
    assert Subgroups({"sex": None})(run) == "" and run.record["subgroups"] == []


@pytest.mark.parametrize(
    ("values", "limits", "message"),
    [
        (range(11), None, "11 different values"),
        ([["F"], "M"], None, "text or numbers"),
        (["thin", 3.0], [2.0], "expected numbers"),
        ([30, 60], [], "'sex' has an empty list of limits; give limits, or null"),
    ],
)
def test_a_column_that_makes_no_groups_is_refused(values: Any, limits: list[float] | None, message: str) -> None:
    studies = [{"sex": value} for value in values]
    run = run_of(studies, [0.5] * len(studies), [0] * len(studies))
    with pytest.raises(ValueError, match=message):
        Subgroups({"sex": limits})(run)
