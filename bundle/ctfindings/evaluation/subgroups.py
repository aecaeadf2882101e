"""Section of an evaluation: AUC by severity and size of a finding, and by columns of the study records.

Shapes: S scans, C findings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.ctfindings.evaluation.evaluation_run import EvaluationRun
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.json_numbers import cell, number

SEVERITY, SIZE = "severity", "lesion_mm"
LESIONS: Mapping[str, tuple[float, ...]] = {SEVERITY: (1 / 3, 2 / 3), SIZE: (10, 20, 40)}
"""Limits between the groups of positive scans; a value at a limit belongs to the group above it."""
TITLES = {SEVERITY: "severity", SIZE: "size in mm"}
MOST_GROUPS = 10


@dataclass(frozen=True)
class Subgroups:
    """AUC of each finding in groups of the scored scans.

    Groups of ``severity`` (0 to 1) and ``lesion_mm`` (diameter) are of positive scans, each against all negative scans;
    both come from ``lesions`` of the study records, as synthetic scans have it. Groups by a column of the study records
    are of scans. The mean is over the findings that have both classes in a group, so groups with other findings do not
    compare; ``findings`` has each one's.

    Args:
        columns: fields of the study records, such as ``sex``, and the limits between groups of their numbers; with None
            each value is a group. Studies without a field belong to no group.
    """

    columns: Mapping[str, Sequence[float] | None]
    needs_labels = True
    needs_calibration = False

    def __call__(self, run: EvaluationRun) -> str:
        """Adds ``subgroups``, a list of rows with ``by``, ``group``, ``scans``, ``auc`` and the AUC of each finding.

        ValueError if a column without limits has more than ``MOST_GROUPS`` values, one is not text or a number, or a
        list of limits is empty.
        """
        studies, scores = run.studies[run.split], run.scores[run.split]
        rows = []
        for by, limits in LESIONS.items():
            for group, labels in _lesion_groups(by, limits, studies, scores.labels):
                rows.append(_row(by, group, labels, (labels == 1).any(axis=1), run.probabilities, run.bootstrap))
        for by, given in self.columns.items():
            for group, member in _column_groups(by, given, studies):
                labels = np.where(member[:, None], scores.labels, -1)
                rows.append(_row(by, group, labels, member, run.probabilities, run.bootstrap))
        run.record["subgroups"] = rows
        return "\n".join(_lines(rows))


def _lesion_groups(
    by: str, limits: Sequence[float], studies: Sequence[Mapping[str, Any]], labels: NDArray[np.int64]
) -> list[tuple[str, NDArray[np.int64]]]:
    """Labels of each group: positives outside it are unknown. None if no study says how grave or large a finding is."""
    values = np.full(labels.shape, np.nan)
    for row, study in enumerate(studies):
        for column, name in enumerate(FINDING_NAMES):
            values[row, column] = (study.get("lesions") or {}).get(name, {}).get(by, np.nan)
    values[labels != 1] = np.nan
    return [(group, np.where((labels == 1) & ~member, -1, labels)) for group, member in _ranges(values, limits)]


def _column_groups(
    by: str, limits: Sequence[float] | None, studies: Sequence[Mapping[str, Any]]
) -> list[tuple[str, NDArray[np.bool_]]]:
    if limits is not None and not limits:
        raise ValueError(f"subgroups: {by!r} has an empty list of limits; give limits, or null to compare each value")
    values = [study.get(by) for study in studies]
    known = [value for value in values if value is not None]
    kind, names = (str | int | float, "text or numbers") if limits is None else (int | float, "numbers")
    if not all(isinstance(value, kind) for value in known):
        raise ValueError(f"subgroups: expected {names} as {by!r} of the study records; remove it from the list")
    if limits is not None:
        return _ranges(np.asarray([np.nan if value is None else float(value) for value in values]), limits)
    distinct = sorted(set(known), key=str)
    if len(distinct) > MOST_GROUPS:
        raise ValueError(
            f"subgroups: {by!r} has {len(distinct)} different values, at most {MOST_GROUPS} are compared; "
            "give limits between groups, or remove it from the list"
        )
    return [(str(group), np.asarray([value == group for value in values])) for group in distinct]


def _ranges(values: NDArray[np.float64], limits: Sequence[float]) -> list[tuple[str, NDArray[np.bool_]]]:
    """The groups of values between limits, with their names; none if no value is known."""
    if np.isnan(values).all():
        return []
    group = np.where(np.isnan(values), -1, np.searchsorted(limits, values, side="right"))
    said = [f"{limit:.2g}" for limit in limits]
    names = [f"below {said[0]}", *(f"{low} to {high}" for low, high in pairwise(said)), f"{said[-1]} or more"]
    return [(name, group == index) for index, name in enumerate(names)]


def _row(
    by: str,
    group: str,
    labels: NDArray[np.int64],
    member: NDArray[np.bool_],
    probabilities: NDArray[np.float64],
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    auc = bootstrap.auc(probabilities, labels)
    positives = (labels == 1).sum(axis=0)
    return {
        "by": by,
        "group": group,
        "scans": int(member.sum()),
        "positives": int(positives.sum()),
        "auc": number(float(auc.macro.estimate)),
        "auc_interval": auc.macro.limits(),
        "findings": {
            name: {
                "positives": int(positives[column]),
                "auc": number(auc.findings.estimate[column]),
                "auc_interval": auc.findings.limits(column),
            }
            for column, name in enumerate(FINDING_NAMES)
            if not np.isnan(auc.findings.estimate[column])
        },
    }


def _lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []
    lines = ["", "| by | group | scans | positive labels | findings | mean AUC | interval |", "|---|---|" + "---:|" * 5]
    for row in rows:
        interval = " - ".join(cell(limit) for limit in row["auc_interval"])
        cells = [TITLES.get(row["by"], row["by"]), row["group"], row["scans"], row["positives"], len(row["findings"])]
        lines.append(f"| {' | '.join(map(str, [*cells, cell(row['auc']), interval]))} |")
    return lines
