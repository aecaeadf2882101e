"""Classification scores against scikit-learn and hand calculations."""

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    precision_score,
    roc_auc_score,
)

from bundle.ctfindings.metrics.classification import (
    decision_scores,
    finding_auc,
    finding_average_precision,
    macro_auc,
)

# Two findings of six scans. The second scan's label of the second finding is unknown.
PROBABILITIES = np.array([[0.9, 0.2], [0.8, 0.99], [0.7, 0.4], [0.6, 0.4], [0.3, 0.1], [0.1, 0.8]])
LABELS = np.array([[1, 0], [0, -1], [1, 0], [1, 1], [0, 0], [0, 1]])
THRESHOLDS = np.array([0.6, 0.5])


def test_auc_counts_ordered_pairs_and_half_of_ties() -> None:
    # Finding 0: positives .9 .7 .6 over negatives .8 .3 .1 -> 3 + 2 + 2 of 9. Finding 1: .4 .8 over .2 .4 .1 -> 2.5 + 3
    # of 6.
    assert finding_auc(PROBABILITIES, LABELS) == pytest.approx([7 / 9, 5.5 / 6])
    assert macro_auc(PROBABILITIES, LABELS) == pytest.approx((7 / 9 + 5.5 / 6) / 2)


def test_unknown_labels_do_not_change_any_score() -> None:
    changed = PROBABILITIES.copy()
    changed[1, 1] = 0.0
    for score in (finding_auc, finding_average_precision):
        np.testing.assert_array_equal(score(PROBABILITIES, LABELS), score(changed, LABELS))
    first, second = (decision_scores(given, LABELS, THRESHOLDS) for given in (PROBABILITIES, changed))
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])


def test_a_finding_with_one_class_has_no_auc_and_stays_out_of_the_mean() -> None:
    labels = LABELS.copy()
    labels[:, 1] = np.where(labels[:, 1] < 0, -1, 0)
    assert np.isnan(finding_auc(PROBABILITIES, labels)[1])
    assert np.isnan(finding_average_precision(PROBABILITIES, labels)[1])
    assert macro_auc(PROBABILITIES, labels) == pytest.approx(7 / 9)
    assert np.isnan(macro_auc(PROBABILITIES[:, 1:], labels[:, 1:]))


def test_a_probability_at_the_threshold_is_present() -> None:
    # At .6 finding 0 calls .9 .8 .7 .6 present: 3 of 3 positives, 1 of 3 negatives.
    found = decision_scores(PROBABILITIES, LABELS, THRESHOLDS)
    assert found["sensitivity"] == pytest.approx([1.0, 0.5])
    assert found["specificity"] == pytest.approx([2 / 3, 1.0])


def test_scores_at_a_threshold_agree_with_scikit_learn() -> None:
    random = np.random.default_rng(0)
    probabilities, labels, thresholds = (
        random.random((60, 4)),
        random.integers(-1, 2, (60, 4)),
        np.array([0.2, 0.4, 0.6, 0.8]),
    )
    pairs = [(labels[:, c][labels[:, c] >= 0], probabilities[:, c][labels[:, c] >= 0], thresholds[c]) for c in range(4)]
    decided = [(truth, (score >= limit).astype(int)) for truth, score, limit in pairs]
    found = decision_scores(probabilities, labels, thresholds)
    assert finding_auc(probabilities, labels) == pytest.approx([roc_auc_score(t, s) for t, s, _ in pairs])
    assert finding_average_precision(probabilities, labels) == pytest.approx(
        [average_precision_score(t, s) for t, s, _ in pairs]
    )
    assert found["accuracy"] == pytest.approx([accuracy_score(*d) for d in decided])
    assert found["balanced_accuracy"] == pytest.approx([balanced_accuracy_score(*d) for d in decided])
    assert found["precision"] == pytest.approx([precision_score(*d) for d in decided])
    assert found["f1"] == pytest.approx([f1_score(*d) for d in decided])
    assert found["weighted_f1"] == pytest.approx([f1_score(*d, average="weighted") for d in decided])


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        ([[0.5, 0.5]], [[1]], "must both be"),
        ([0.5], [1], "must both be"),
        ([[float("nan")]], [[1]], "scan 0, finding 0 is nan"),
        ([[0.5]], [[2]], r"found \[2\]"),
    ],
)
def test_input_that_cannot_be_scored_is_refused(probabilities: list, labels: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        finding_auc(probabilities, labels)


def test_thresholds_of_another_label_space_are_refused() -> None:
    with pytest.raises(ValueError, match="2 numbers, one per finding"):
        decision_scores(PROBABILITIES, LABELS, [0.5])
