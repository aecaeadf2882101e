"""Section of an evaluation: findings asked for in other words, by text alone and on images.

Shapes: S scans, P paraphrases, C findings.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bundle.ctfindings.evaluation.evaluation_run import EvaluationRun
from bundle.ctfindings.findings import FINDING_NAMES, FINDINGS, training_wordings
from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.json_numbers import cell, number
from bundle.ctfindings.metrics.paraphrases import NOVELTY_BANDS, content_words, highest_overlap, novelty_band
from bundle.ctfindings.metrics.retrieval import rank_of_own, recall_at
from bundle.ctfindings.networks.text.prompts import mean_over_templates, template_bank
from bundle.ctfindings.networks.text.text_tower import TextTower


class Paraphrases:
    """Adds ``paraphrases`` of the evaluated model to the record; None if it was given none.

    By text alone, a paraphrase ranks the findings by the similarity of their prompts. On images, it is asked as a free
    text of every scan, and its score is compared with the labels of its finding. Paraphrases are grouped by their
    overlap with the nearest wording that the finding table has of their own finding: an answer to a near duplicate says
    nothing about new words. Wordings of other findings and sentences of training reports do not count.
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
        for band, accuracy in accuracy_by_band(record).items():
            record["bands"][band]["accuracy"] = accuracy
        run.record["paraphrases"] = record
        bands = ", ".join(
            f"{band} ({row['paraphrases']}) {cell(row['accuracy'])} and {cell(row['auc'])}"
            for band, row in record["bands"].items()
        )
        return f"Paraphrases: share that ranks its finding first by text alone, and mean AUC on images: {bands}."


def text_record(text: TextTower, asked: Sequence[tuple[int, str]]) -> dict[str, Any]:
    """Share of the paraphrases whose own finding ranks first by text alone, and each miss with the one that does."""
    with torch.no_grad():
        bank = mean_over_templates(template_bank(text))[:, 0].double().cpu().numpy()
        queries = text([query for _, query in asked], "prompt").double().cpu().numpy()
    targets, similarity = np.asarray([target for target, _ in asked]), queries @ bank.T
    ranks, nearest = rank_of_own(similarity, targets), similarity.argmax(axis=1)
    first, within_3 = recall_at(ranks, (1, 3)).tolist()
    return {
        "paraphrases": len(asked),
        "accuracy": first,
        "accuracy_within_3": within_3,
        "findings": [
            {
                "finding": name,
                "paraphrases": int(own.sum()),
                "accuracy": float(recall_at(ranks[own], (1,))[0]) if own.any() else None,
            }
            for name, own in ((name, targets == column) for column, name in enumerate(FINDING_NAMES))
        ],
        "missed": [
            {"text": query, "finding": FINDING_NAMES[target], "rank": int(rank), "nearest": FINDING_NAMES[near]}
            for (target, query), rank, near in zip(asked, ranks, nearest, strict=True)
            if rank > 1
        ],
    }


def accuracy_by_band(record: Mapping[str, Any]) -> dict[str, float | None]:
    """Share of the paraphrases of each band of novelty whose own finding ranks first; None for an empty band.

    Args:
        record: Entries ``missed`` of ``text_record`` and ``images`` of ``image_record``.
    """
    missed = {(row["finding"], row["text"]) for row in record["missed"]}
    found: dict[str, float | None] = {}
    for band in NOVELTY_BANDS:
        own = [(row["finding"], row["text"]) not in missed for row in record["images"] if row["band"] == band]
        found[band] = float(np.mean(own)) if own else None
    return found


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
