"""Choice of thresholds: the rules by hand, and the guard that keeps scored scans out of it."""

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from bundle.ctfindings.metrics.classification import decision_scores
from bundle.ctfindings.metrics.thresholds import ThresholdRule, choose_thresholds

NAMES = ("first", "second", "third")

PROBABILITIES = np.array([[0.501], [0.502], [0.503], [0.504], [0.505]])


def chosen(rule: ThresholdRule, probabilities: Any, labels: Any) -> Any:
    return choose_thresholds(probabilities, labels, rule, NAMES)


def test_youden_threshold_is_exact_even_where_probabilities_crowd() -> None:
    labels = np.array([[0], [0], [1], [0], [1]])
    # At .503: TPR 1, FPR 1/3 -> .667. At .505: TPR 1/2, FPR 0 -> .5. The hundredths grid sees one point only.
    assert chosen("youden", PROBABILITIES, labels) == pytest.approx([0.503])
    found = decision_scores(PROBABILITIES, labels, chosen("youden", PROBABILITIES, labels))
    assert (found["sensitivity"][0], found["specificity"][0]) == pytest.approx((1, 2 / 3))


def test_youden_tie_goes_to_the_larger_threshold() -> None:
    # At .505: TPR 1/2, FPR 0. At .502: TPR 1, FPR 1/2 of four. Both have J = 1/2 for these labels.
    labels = np.array([[0], [1], [0], [-1], [1]])
    assert chosen("youden", PROBABILITIES, labels) == pytest.approx([0.505])


def test_youden_tie_is_not_broken_by_the_last_bit() -> None:
    # From the highest score down: J is 1/5 - 0 at the first and 4/5 - 3/5 at the seventh, in floats 0.2 and
    # 0.20000000000000007.
    labels = np.array([1, 0, 0, 0, 1, 1, 1, 0, 0, 1])[:, None]
    scores = np.linspace(1.0, 0.1, 10)[:, None]
    assert chosen("youden", scores, labels) == pytest.approx([1.0])


def test_a_model_worse_than_chance_still_gets_a_finite_threshold() -> None:
    labels = np.array([[1], [1], [0], [0], [0]])
    assert np.isfinite(chosen("youden", PROBABILITIES, labels)).all()


def test_a_missing_class_gives_one_half_and_a_warning_that_names_the_finding() -> None:
    labels = np.array([[0, 1], [1, 1], [0, 1], [1, 1], [0, -1]])
    with pytest.warns(UserWarning, match=r"classes: second \(4 scans with a known label\)$"):
        assert chosen("youden", np.repeat(PROBABILITIES, 2, 1), labels)[1] == 0.5


def test_one_warning_names_all_findings_without_both_classes() -> None:
    labels = np.array([[1, 0, -1], [1, 1, -1], [1, 0, -1], [1, 1, -1], [1, 0, -1]])
    with pytest.warns(UserWarning) as caught:
        assert list(chosen("f1", np.repeat(PROBABILITIES, 3, 1), labels)[[0, 2]]) == [0.5, 0.5]
    assert [str(warning.message).split(": ")[1] for warning in caught] == [
        "first (5 scans with a known label), third (0 scans with a known label)"
    ]


def test_corner_threshold_is_the_last_of_the_nearest_grid_values() -> None:
    # Perfectly separated between .205 and .795: every grid value there is at distance 0; the last below .795 is 78/99.
    threshold = chosen("corner", [[0.1], [0.205], [0.795], [0.9]], [[0], [0], [1], [1]])
    assert threshold == pytest.approx([78 / 99])


def test_corner_threshold_decides_by_greater_than_as_ct_clip_does() -> None:
    grid = np.linspace(0, 1, 100)
    probabilities = np.array([[grid[40]], [grid[50]]])
    threshold = chosen("corner", probabilities, [[0], [1]])
    assert threshold[0] > grid[49]
    found = decision_scores(probabilities, np.array([[0], [1]]), threshold)
    assert (found["sensitivity"][0], found["specificity"][0]) == (1.0, 1.0)


def test_f1_threshold_is_the_best_of_all_candidates_by_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((60, 2)) < [0.1, 0.4]).astype(int)
    scores = np.clip(0.3 * labels + 0.7 * rng.random((60, 2)), 0, 1)
    limits = chosen("f1", scores, labels)
    for finding in range(2):
        by_candidate = {
            value: f1_score(labels[:, finding], scores[:, finding] >= value) for value in scores[:, finding]
        }
        best = max(by_candidate.values())
        assert limits[finding] == max(value for value, score in by_candidate.items() if score == pytest.approx(best))


def test_f1_calls_a_rare_finding_present_less_often_than_youden() -> None:
    labels = np.array([[1]] * 3 + [[0]] * 57)
    # Of the 57 scans without it, 12 lie above .4. At .4: TPR 1, FPR .21; F1 1/3. At .85: TPR 2/3, FPR 0; F1 .8.
    scores = np.concatenate([[0.9, 0.85, 0.4], np.linspace(0.01, 0.5, 57)])[:, None]
    assert chosen("youden", scores, labels)[0] == 0.4
    assert chosen("f1", scores, labels)[0] == 0.85


def test_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match=r"threshold_rule: expected one of youden, f1, corner, .*, got 'best'"):
        choose_thresholds(PROBABILITIES, np.ones_like(PROBABILITIES), "best", NAMES)  # type: ignore[arg-type]
