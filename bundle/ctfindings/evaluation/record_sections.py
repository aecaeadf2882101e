"""Parts of the evaluation record beside the scores of the findings: evidence, anatomy head, paraphrases.

Shapes: S studies, C findings, K anatomies.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import torch
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.evaluation.scoring import LOCALIZED, SplitScores
from bundle.ctfindings.findings import FINDING_NAMES, finding_index
from bundle.ctfindings.metrics.classification import macro_average
from bundle.ctfindings.metrics.json_numbers import number
from bundle.ctfindings.metrics.localization import TOLERANCE_MM, evidence_distance, evidence_hit_rate
from bundle.ctfindings.metrics.paraphrases import load_paraphrases, paraphrase_accuracy, rank_of_finding
from bundle.ctfindings.networks.text.prompts import mean_over_templates, template_bank
from bundle.ctfindings.networks.text.text_tower import TextTower


def evidence_record(
    scores: SplitScores,
    studies: Sequence[dict[str, Any]],
    probabilities: NDArray[np.float64],
    thresholds: NDArray[np.float64],
    tolerance_mm: float = TOLERANCE_MM,
) -> dict[str, Any]:
    """How often the evidence peak of a localized finding lies in its true mask, or near it, over the true positives.

    Args:
        scores: of the studies, in their order.
        studies: with the path of their ``finding_masks``; a study without masks does not count.
        probabilities: calibrated, ``[S, C]``.
        thresholds: ``[C]``.
        tolerance_mm: largest distance in mm that counts as a hit.

    Returns:
        ``tolerance_mm``, the ``hit_rate`` over all true positives together with their number, and a row per localized
        finding.
    """
    distance = np.full(scores.labels.shape, np.nan)
    for row, study in enumerate(studies):
        wanted = [column for column in LOCALIZED if scores.labels[row, column] == 1]
        if not wanted or "finding_masks" not in study:
            continue
        mask = cast(SpatialImage, nib.load(study["finding_masks"]))
        bits = np.asarray(mask.dataobj)
        for column in wanted:
            peak = scores.peaks_mm[row, column]
            # A finding that was drawn but got no peak is a miss, not a gap.
            near = np.inf if np.isnan(peak).any() else evidence_distance(peak, bits, column, mask.affine)
            distance[row, column] = near if (bits & (1 << column)).any() else np.nan
    rate, total = evidence_hit_rate(distance, probabilities, scores.labels, thresholds, tolerance_mm)
    detected = (scores.labels == 1) & (probabilities >= thresholds) & ~np.isnan(distance)
    rows = [
        {
            "finding": FINDING_NAMES[column],
            "true_positives": int(total[column]),
            "hit_rate": number(rate[column]),
            "median_distance_mm": number(np.median(distance[detected[:, column], column])) if total[column] else None,
        }
        for column in LOCALIZED
    ]
    counted = int(total[list(LOCALIZED)].sum())
    hits = sum(round(float(rate[column]) * int(total[column])) for column in LOCALIZED if total[column])
    return {
        "tolerance_mm": tolerance_mm,
        "true_positives": counted,
        "hit_rate": hits / counted if counted else None,
        "findings": rows,
    }


def paraphrase_record(text: TextTower, path: str | Path) -> dict[str, Any]:
    """Share of the paraphrases whose own finding is nearest, and each that is not, with the finding it was taken for.

    Args:
        text: the text tower.
        path: JSON of texts by finding.

    Raises:
        ValueError: the file is missing or names an unknown finding.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: there are no paraphrases; give their JSON file, or null to leave them out")
    pairs = [(finding_index(name), query) for name, queries in load_paraphrases(path).items() for query in queries]
    with torch.no_grad():
        bank = mean_over_templates(template_bank(text))[:, 0].double().cpu().numpy()
        queries = text([query for _, query in pairs], "prompt").double().cpu().numpy()
    targets = np.asarray([target for target, _ in pairs])
    ranks = rank_of_finding(queries, bank, targets)
    nearest = (queries @ bank.T).argmax(axis=1)
    return {
        "file": Path(path).name,
        "paraphrases": len(pairs),
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
            for (target, query), rank, near in zip(pairs, ranks, nearest, strict=True)
            if rank > 1
        ],
    }


def anatomy_record(dice: NDArray[np.float64]) -> dict[str, float | None]:
    """Mean token Dice of each anatomy over the studies that have one, ``[S, K]``."""
    return {name: number(macro_average(dice[:, row])) for row, name in enumerate(ANATOMY_NAMES)}
