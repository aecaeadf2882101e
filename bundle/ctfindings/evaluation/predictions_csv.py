"""The table of predictions: probability and label of each finding for every study. Shapes: S studies, C findings."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle.ctfindings.files.atomic_write import atomic_path


def write_predictions(
    path: str | Path,
    ids: Sequence[str],
    probabilities: NDArray[np.float64],
    labels: NDArray[np.int64],
    findings: Sequence[str],
) -> None:
    """Writes a CSV file with the columns ``id``, ``<finding> probability`` and ``<finding> label``.

    Args:
        path: the file.
        ids: study ids, S.
        probabilities: ``[S, C]``; written with six significant digits.
        labels: 1, 0 or -1, ``[S, C]``.
        findings: names of the findings, C.
    """
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["id", *(f"{name} probability" for name in findings), *(f"{name} label" for name in findings)])
        for study, row, known in zip(ids, probabilities, labels, strict=True):
            table.writerow([study, *(f"{value:.6g}" for value in row), *known.tolist()])
