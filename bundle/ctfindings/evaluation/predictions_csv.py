"""The table of an evaluation's predictions: a probability and a label of each finding for every study.

Shapes: S studies, C findings.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle.ctfindings.files.atomic_write import atomic_path
from bundle.ctfindings.findings import FINDING_NAMES


def write_predictions(
    path: str | Path,
    ids: Sequence[str],
    probabilities: NDArray[np.float64],
    labels: NDArray[np.int64],
    findings: Sequence[str] = FINDING_NAMES,
) -> None:
    """Writes a CSV file with the columns ``id``, ``<finding> probability`` and ``<finding> label``.

    Args:
        path: the file, written whole or not at all.
        ids: of the studies.
        probabilities: ``[S, C]``; six digits are kept of each, also of a small one.
        labels: 1, 0 or -1, ``[S, C]``.
        findings: names of the columns, C.
    """
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["id", *(f"{name} probability" for name in findings), *(f"{name} label" for name in findings)])
        for study, row, known in zip(ids, probabilities, labels, strict=True):
            table.writerow([study, *(f"{value:.6g}" for value in row), *known.tolist()])
