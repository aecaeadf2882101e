"""Quality of generated reports: labels that a reader finds in them, and overlap of words with the written reports.

Shapes: S scans, C findings, R sets of scan weights.
"""

from collections.abc import Sequence

import numpy as np
from ignite.metrics.nlp.utils import lcs
from numpy.typing import ArrayLike
from sacrebleu.metrics import BLEU

from bundle.ctfindings.metrics.bootstrap import WeightStatistic
from bundle.ctfindings.metrics.classification import FloatArray, macro_averages

CRG_FLOOR = 1 / 3
"""CRG of reports that all deny, or that all state, every finding."""


def label_scores(predicted: ArrayLike, truth: ArrayLike) -> dict[str, WeightStatistic]:
    """Macro and micro F1 and CRG of labels read in generated reports, as functions of scan weights, ``[R, S]`` to
    ``[R]``.

    CRG weighs a missed finding by its rarity: with X pairs of scan and finding, A of them positive, ``r = (X - A) /
    (2 A)`` and ``U = (X - A) / 2``, it is ``U / (2 U - (r TP - r FN - FP))``; 1 is perfect (VLM3D challenge). All are
    NaN without a positive, or without a negative.

    Args:
        predicted: 1 or 0, ``[S, C]``.
        truth: 1, 0 or -1, ``[S, C]``; unknown pairs do not count.
    """
    said, true = np.asarray(predicted) == 1, np.asarray(truth)
    pairs = {"tp": said & (true == 1), "fp": said & (true == 0), "fn": ~said & (true == 1), "all": true >= 0}

    def counts(weights: FloatArray) -> dict[str, FloatArray]:
        return {name: weights @ hits for name, hits in pairs.items()}

    def f1(count: dict[str, FloatArray]) -> FloatArray:
        total = 2 * count["tp"] + count["fp"] + count["fn"]
        some = count["tp"] + count["fn"] > 0
        return np.divide(2 * count["tp"], total, out=np.full(total.shape, np.nan), where=some)

    def pooled(weights: FloatArray) -> dict[str, FloatArray]:
        return {name: count.sum(axis=1) for name, count in counts(weights).items()}

    def crg(weights: FloatArray) -> FloatArray:
        count = pooled(weights)
        positive = count["tp"] + count["fn"]
        negative = count["all"] - positive
        rarity = np.divide(negative, 2 * positive, out=np.full(len(positive), np.nan), where=positive > 0)
        score = rarity * (count["tp"] - count["fn"]) - count["fp"]
        return np.divide(negative / 2, negative - score, out=np.full(len(positive), np.nan), where=negative > 0)

    return {
        "f1_macro": lambda weights: macro_averages(f1(counts(weights))),
        "f1_micro": lambda weights: f1(pooled(weights)),
        "crg": crg,
    }


def text_scores(generated: Sequence[str], written: Sequence[str]) -> dict[str, WeightStatistic]:
    """BLEU-4 of the corpus (sacrebleu, no case, 0 to 1) and the mean F1 of ROUGE-L, as functions of scan weights."""
    bleu = BLEU(lowercase=True, effective_order=True)
    scored = [bleu.sentence_score(text, [reference]) for text, reference in zip(generated, written, strict=True)]
    statistics = np.array([[*each.counts, *each.totals, each.sys_len, each.ref_len] for each in scored], dtype=float)
    overlap = np.array([rouge_l(*pair) for pair in zip(generated, written, strict=True)])

    def corpus_bleu(weights: FloatArray) -> FloatArray:
        rows = (weights @ statistics).round().astype(int).tolist()
        return np.array([BLEU.compute_bleu(row[:4], row[4:8], row[8], row[9]).score / 100 for row in rows])

    return {"bleu_4": corpus_bleu, "rouge_l": lambda weights: weights @ overlap / weights.sum(axis=1)}


def rouge_l(generated: str, written: str) -> float:
    """F1 of the longest common subsequence of words (Lin 2004, https://aclanthology.org/W04-1013), without case."""
    first, second = (_words(text) for text in (generated, written))
    if not first or not second:
        return 0.0
    return 2 * lcs(first, second) / (len(first) + len(second))


def _words(text: str) -> list[str]:
    return "".join(sign if sign.isalnum() else " " for sign in text.lower()).split()
