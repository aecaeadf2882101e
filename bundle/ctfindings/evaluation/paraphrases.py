"""Section of an evaluation: findings asked for in other words, by text alone and on images.

Shapes: S scans, P paraphrases, C findings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bundle.ctfindings.evaluation.evaluation_run import EvaluationRun
from bundle.ctfindings.findings import FINDING_NAMES, FINDINGS, training_wordings
from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.json_numbers import cell, number
from bundle.ctfindings.metrics.paraphrases import (
    NOVELTY_BANDS,
    content_words,
    highest_overlap,
    novelty_band,
    paraphrase_accuracy,
    rank_of_finding,
)
from bundle.ctfindings.networks.text.prompts import mean_over_templates, template_bank
from bundle.ctfindings.networks.text.text_tower import TextTower


class Paraphrases:
    """Adds ``paraphrases`` of the evaluated model to the record; None if it was given none.

    By text alone, a paraphrase ranks the findings by the similarity of their prompts. On images, it is asked as a free
    text of every scan, and its score is compared with the labels of its finding. Paraphrases are grouped by their
    overlap with the nearest training text of the finding table: an answer to a near duplicate says nothing about new
    words.
    """

    needs_labels = True
    needs_calibration = False

    def __call__(self, run: EvaluationRun) -> str:
        """Ranks and scores the paraphrases."""
        asked, scores = run.own_model.paraphrases, run.own_scores
        if not asked or scores.query_logits is None:
            run.record["paraphrases"] = None
            return "Paraphrases: skipped; none were given."
        record = text_record(run.own_model.network.text, asked)
        record |= image_record(scores.query_logits, scores.labels, asked, run.bootstrap)
        run.record["paraphrases"] = record
        bands = ", ".join(f"{band} {cell(row['auc'])} of {row['paraphrases']}" for band, row in record["bands"].items())
        return (
            f"Paraphrases: {cell(record['accuracy'])} of {record['paraphrases']} rank their finding first by text "
            f"alone; mean AUC on images {bands}."
        )


def text_record(text: TextTower, asked: Sequence[tuple[int, str]]) -> dict[str, Any]:
    """Share of the paraphrases whose own finding ranks first by text alone, and each miss with the one that does."""
    with torch.no_grad():
        bank = mean_over_templates(template_bank(text))[:, 0].double().cpu().numpy()
        queries = text([query for _, query in asked], "prompt").double().cpu().numpy()
    targets = np.asarray([target for target, _ in asked])
    ranks = rank_of_finding(queries, bank, targets)
    nearest = (queries @ bank.T).argmax(axis=1)
    return {
        "paraphrases": len(asked),
        "accuracy": number(paraphrase_accuracy(ranks)),
        "accuracy_within_3": number(paraphrase_accuracy(ranks, 3)),
        "findings": [
            {
                "finding": name,
                "paraphrases": int((targets == column).sum()),
                "accuracy": number(paraphrase_accuracy(ranks[targets == column])),
            }
            for column, name in enumerate(FINDING_NAMES)
        ],
        "missed": [
            {"text": query, "finding": FINDING_NAMES[target], "rank": int(rank), "nearest": FINDING_NAMES[near]}
            for (target, query), rank, near in zip(asked, ranks, nearest, strict=True)
            if rank > 1
        ],
    }


def image_record(
    logits: NDArray[np.float64], labels: NDArray[np.int64], asked: Sequence[tuple[int, str]], bootstrap: Bootstrap
) -> dict[str, Any]:
    """AUC of each paraphrase on the scans, and its mean in each band of novelty, with intervals.

    Args:
        logits: Scores of the paraphrases, [S, P].
        labels: Labels of the findings, [S, C].
        asked: Index of the finding and text of each paraphrase.
        bootstrap: Bootstrap of the scans.
    """
    truth = labels[:, [target for target, _ in asked]]
    words = [[content_words(text) for pair in training_wordings(finding) for text in pair] for finding in FINDINGS]
    overlaps = [highest_overlap(query, words[target]) for target, query in asked]
    bands = np.asarray([novelty_band(overlap) for overlap in overlaps])
    found = bootstrap.auc(logits, truth).findings
    rows = []
    for place, (target, query) in enumerate(asked):
        values = found.limits(place)
        asking = {"text": query, "finding": FINDING_NAMES[target], "overlap": number(overlaps[place])}
        rows.append({**asking, "band": str(bands[place]), "auc": number(found.estimate[place]), "auc_interval": values})
    means = {}
    for band in NOVELTY_BANDS:
        of = np.flatnonzero(bands == band)
        mean = bootstrap.auc(logits[:, of], truth[:, of]).macro
        limits = mean.limits()
        means[band] = {"paraphrases": len(of), "auc": number(float(mean.estimate)), "auc_interval": limits}
    return {"bands": means, "images": rows}
