"""How often the evidence of a true positive lies in the mask of its finding. Shapes: S studies, C findings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from bundle.ctfindings.evaluation.evaluated_model import LOCALIZED, SplitScores
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.metrics.json_numbers import number
from bundle.ctfindings.metrics.localization import TOLERANCE_MM, evidence_distance, evidence_hit_rate


def evidence_record(
    scores: SplitScores,
    studies: Sequence[dict[str, Any]],
    probabilities: NDArray[np.float64],
    thresholds: NDArray[np.float64],
) -> dict[str, Any]:
    """Share of the true positives whose evidence peak lies within `TOLERANCE_MM` of the mask.

    Studies without ``finding_masks`` do not count. Probabilities are calibrated, ``[S, C]``, thresholds ``[C]``. The
    record has ``tolerance_mm``, ``hit_rate`` and ``true_positives``, and a row of ``findings`` per localized finding;
    ``random_hit_rate`` is that of random places in the anatomy that answers.
    """
    distance = np.full(scores.labels.shape, np.nan)
    random = np.full(scores.labels.shape, np.nan)
    for row, study in enumerate(studies):
        wanted = [column for column in LOCALIZED if scores.labels[row, column] == 1]
        if not wanted or "finding_masks" not in study:
            continue
        mask = cast(SpatialImage, nib.load(study["finding_masks"]))
        bits = np.asarray(mask.dataobj)
        for column in wanted:
            if not (bits & (1 << column)).any():
                continue
            peak = scores.peaks_mm[row, column]
            if np.isnan(peak).any():  # A finding with a mask but without a peak is a miss.
                distance[row, column], random[row, column] = np.inf, 0
                continue
            places = np.vstack([peak, scores.random_mm[row, column]])
            near = evidence_distance(places, bits, column, mask.affine)
            distance[row, column], random[row, column] = near[0], (near[1:] <= TOLERANCE_MM).mean()
    rate, total = evidence_hit_rate(distance, probabilities, scores.labels, thresholds)
    detected = (scores.labels == 1) & (probabilities >= thresholds) & ~np.isnan(distance)
    counted, hits = int(detected.sum()), int((detected & (distance <= TOLERANCE_MM)).sum())
    rows = [
        {
            "finding": FINDING_NAMES[column],
            "true_positives": int(total[column]),
            "hit_rate": number(rate[column]),
            "random_hit_rate": number(random[detected[:, column], column].mean()) if total[column] else None,
            "median_distance_mm": number(np.median(distance[detected[:, column], column])) if total[column] else None,
        }
        for column in LOCALIZED
    ]
    return {
        "tolerance_mm": TOLERANCE_MM,
        "true_positives": counted,
        "hit_rate": hits / counted if counted else None,
        "random_hit_rate": float(random[detected].mean()) if counted else None,
        "findings": rows,
    }
