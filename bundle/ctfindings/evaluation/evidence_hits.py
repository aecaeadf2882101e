"""How often the evidence of a true positive lies in the mask of its finding.

Shapes: S studies, C findings, X Y Z voxels. World coordinates are mm in RAS.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from bundle.ctfindings.evaluation.evaluated_model import LOCALIZED, SplitScores
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.metrics.classification import FloatArray
from bundle.ctfindings.metrics.json_numbers import number
from bundle.ctfindings.scan.load_scan import read_volume

TOLERANCE_MM = 15.0  # Largest distance from the mask that counts as a hit


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
        mask = read_volume(study["finding_masks"])
        bits = mask.array
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
    detected = (scores.labels == 1) & (probabilities >= thresholds) & ~np.isnan(distance)
    hits, total = (detected & (distance <= TOLERANCE_MM)).sum(axis=0), detected.sum(axis=0)
    counted = int(total.sum())
    rows = [
        {
            "finding": FINDING_NAMES[column],
            "true_positives": int(total[column]),
            "hit_rate": hits[column] / total[column] if total[column] else None,
            "random_hit_rate": number(random[detected[:, column], column].mean()) if total[column] else None,
            "median_distance_mm": number(np.median(distance[detected[:, column], column])) if total[column] else None,
        }
        for column in LOCALIZED
    ]
    return {
        "tolerance_mm": TOLERANCE_MM,
        "true_positives": counted,
        "hit_rate": int(hits.sum()) / counted if counted else None,
        "random_hit_rate": float(random[detected].mean()) if counted else None,
        "findings": rows,
    }


def evidence_distance(points_mm: ArrayLike, mask_bits: NDArray[np.integer], bit: int, affine: ArrayLike) -> FloatArray:
    """Distance in mm from world positions [..., 3] to the nearest voxel centre of the mask of a finding, [...].

    It is 0 if a position's own voxel is in the mask, and NaN if no voxel has the bit. The integer mask [X, Y, Z] has
    bit i for finding i; the affine maps voxel indices to mm RAS, [4, 4].
    """
    points = np.asarray(points_mm, dtype=np.float64)
    mask = np.asarray(mask_bits)
    matrix = np.asarray(affine, dtype=np.float64)
    voxels = np.argwhere(mask & (1 << bit))
    if not len(voxels):
        return np.full(points.shape[:-1], np.nan)
    distance, _ = cKDTree(voxels @ matrix[:3, :3].T + matrix[:3, 3]).query(points)
    own = np.rint((points - matrix[:3, 3]) @ np.linalg.inv(matrix[:3, :3]).T).astype(np.int64)
    within = ((own >= 0) & (own < mask.shape)).all(axis=-1)
    bits = mask[tuple(np.moveaxis(np.clip(own, 0, np.asarray(mask.shape) - 1), -1, 0))]
    return np.where(within & ((bits >> bit) & 1 == 1), 0.0, distance)
