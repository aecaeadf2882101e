"""Scores of generated reports: CRG and its floor, F1, ROUGE-L and BLEU against hand calculations."""

import numpy as np
import pytest
from sacrebleu import corpus_bleu
from sklearn.metrics import f1_score

from bundle.ctfindings.metrics.report_quality import CRG_FLOOR, label_scores, rouge_l, text_scores

TRUTH = (np.random.default_rng(0).random((40, 5)) < 0.3).astype(int)
EVERY = np.ones((1, 40))


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [(TRUTH, 1.0), (np.zeros_like(TRUTH), CRG_FLOOR), (np.ones_like(TRUTH), CRG_FLOOR)],
    ids=["perfect", "all denied", "all stated"],
)
def test_crg_is_one_for_perfect_reports_and_a_third_for_one_sided_ones(predicted, expected: float) -> None:
    assert label_scores(predicted, TRUTH)["crg"](EVERY)[0] == pytest.approx(expected)


def test_f1_is_that_of_scikit_learn_and_unknown_labels_do_not_count() -> None:
    predicted = np.where(np.random.default_rng(1).random(TRUTH.shape) < 0.2, 1 - TRUTH, TRUTH)
    scores = label_scores(predicted, TRUTH)
    for average in ("macro", "micro"):
        assert scores[f"f1_{average}"](EVERY)[0] == pytest.approx(f1_score(TRUTH, predicted, average=average))
    hidden = TRUTH.copy()
    hidden[20:] = -1
    halves = np.array([[1.0] * 20 + [0.0] * 20])
    assert label_scores(predicted, hidden)["crg"](EVERY) == pytest.approx(scores["crg"](halves))
    assert np.isnan(label_scores(predicted, np.zeros_like(TRUTH))["crg"](EVERY)[0])


def test_rouge_l_is_the_longest_common_subsequence() -> None:
    assert rouge_l("Police kill the gunman.", "police killed the gunman") == pytest.approx(0.75)
    assert rouge_l("the gunman kill police", "police killed the gunman") == pytest.approx(0.5)
    assert rouge_l("", "a") == 0


def test_bleu_of_weighted_scans_is_that_of_the_repeated_corpus() -> None:
    generated = ["No pleural effusion is seen today.", "There is a nodule in the right upper lobe."]
    written = ["No pleural effusion is seen.", "There is a small nodule in the right upper lobe."]
    scores = text_scores(generated, written)
    repeated = corpus_bleu([generated[0], *[generated[1]] * 2], [[written[0], *[written[1]] * 2]], lowercase=True)
    assert scores["bleu_4"](np.array([[1.0, 2.0]]))[0] == pytest.approx(repeated.score / 100)
    assert text_scores(written, written)["bleu_4"](np.ones((1, 2)))[0] == pytest.approx(1.0)
    assert scores["rouge_l"](np.array([[0.0, 1.0]]))[0] == pytest.approx(2 * 9 / 19)
