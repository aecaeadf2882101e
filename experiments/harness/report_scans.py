"""Synthetic scans of the findings that real reports state: real prose with images whose findings are known."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bundle.ctfindings.data.study_record import SPLITS
from bundle.ctfindings.files.atomic_write import write_text
from bundle.ctfindings.files.csv_table import Row, Table, TableError, read_table
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.phantom.dataset import (
    RECORDS,
    RENDERER_VERSION,
    make_case,
    render_all,
    write_volumes,
)
from bundle.ctfindings.reports.captions import read_report

FINDINGS_COLUMNS = ("Findings_EN", "report_text", "findings")
IMPRESSION_COLUMNS = ("Impressions_EN", "impression")
ID_COLUMNS = ("VolumeName", "AccessionNo", "id")


class StatedReport(NamedTuple):
    """A report and its labels.

    Attributes:
        patient: Number of the patient, instead of the id in the table.
        findings: Text of the findings, or the whole report.
        impression: Text of the impression.
        labels: 18 labels, 0 or 1; unknown findings count as absent and are not rendered.
        manual: Whether the labels come from the table instead of the rules.
    """

    patient: int
    findings: str
    impression: str
    labels: tuple[int, ...]
    manual: bool


def stated_reports(paths: Sequence[Path]) -> list[StatedReport]:
    """The distinct reports of some tables, with the labels of the table where it has all 18, or else of the rules.

    Args:
        paths: CSV tables with a column of texts (`FINDINGS_COLUMNS`) and one of names (`ID_COLUMNS`); the first two
            parts of a name, as in ``valid_12_a_1``, are the patient.

    Raises:
        TableError: A table has no such column.
    """
    found: dict[tuple[str, str], StatedReport] = {}
    patients: dict[str, int] = {}
    # Tables with labels first: of equal texts the one with manual labels is kept.
    for table in sorted(map(read_table, paths), key=lambda table: not set(FINDING_NAMES) <= set(table.columns)):
        text, impression = table.first_of(FINDINGS_COLUMNS), table.first_of(IMPRESSION_COLUMNS)
        name = table.first_of(ID_COLUMNS)
        if text is None or name is None:
            raise TableError(
                table.path,
                f"expected columns of texts ({', '.join(FINDINGS_COLUMNS)}) and names ({', '.join(ID_COLUMNS)})",
            )
        for row in table.rows:
            key = (row.values[text], row.values[impression] if impression else "")
            if key not in found and any(key):
                patient = patients.setdefault("_".join(row.values[name].split("_")[:2]), len(patients))
                labels, manual = _labels(table, row, key)
                found[key] = StatedReport(patient, *key, labels, manual)
    return list(found.values())


def make_report_scans(
    paths: Sequence[Path], folder: Path, counts: Sequence[int], seed: int = 0, workers: int | None = None
) -> Path:
    """Renders the labels of each report as a synthetic scan; returns the ``datalist.json`` with the reports as texts.

    The folder contains the texts of the reports, so their licence applies to it. The command resumes. All reports of a
    patient are in one split.

    Args:
        paths: Tables, see `stated_reports`.
        folder: Output folder.
        counts: Maximum number of scans of ``training``, ``validation`` and ``test``.
        seed: Random seed of the draw and of the scans.
        workers: Processes; one per core by default.

    Raises:
        ValueError: The folder contains scans of other reports or settings, or the tables have too few reports.
    """
    reports = stated_reports(paths)
    split_of = _splits([report.patient for report in reports], counts, seed)
    digest = hashlib.sha256(json.dumps(reports).encode()).hexdigest()
    settings = {"seed": seed, "counts": list(counts), "reports": digest, "renderer": RENDERER_VERSION}
    begun = folder / "parameters.json"
    if begun.exists() and json.loads(begun.read_text(encoding="utf-8")) != settings:
        raise ValueError(f"{folder}: contains scans of other reports or settings; use another folder or delete it")
    write_text(begun, json.dumps(settings))
    chosen = [index for index in range(len(reports)) if index in split_of]
    tasks = {f"report_{index:06d}": (folder, seed, index, reports[index]) for index in chosen}
    records = render_all(_render, tasks, folder / RECORDS, workers)
    content: dict[str, Any] = {
        "name": "synthetic scans of real reports",
        "description": "images: bundle.ctfindings.phantom; texts: the given tables, under their own licence",
        "manual_labels": sum(reports[index].manual for index in chosen),
    }
    for split in SPLITS:
        content[split] = [record for index, record in zip(chosen, records, strict=True) if split_of[index] == split]
    write_text(folder / "datalist.json", json.dumps(content, indent=1))
    return folder / "datalist.json"


def _labels(table: Table, row: Row, text: tuple[str, str]) -> tuple[tuple[int, ...], bool]:
    if set(FINDING_NAMES) <= set(table.columns):
        return tuple(int(float(row.values[name] or 0) == 1) for name in FINDING_NAMES), True
    return tuple(int(label == 1) for label in read_report(*text).labels), False


def _splits(patients: Sequence[int], counts: Sequence[int], seed: int) -> Mapping[int, str]:
    """Split of each used report by its index: patients in random order fill test, validation and training."""
    order = np.random.default_rng(seed).permutation(max(patients, default=-1) + 1)
    of_patient: dict[int, list[int]] = {}
    for index, patient in enumerate(patients):
        of_patient.setdefault(patient, []).append(index)
    wanted = dict(zip(reversed(SPLITS), reversed(list(counts)), strict=True))
    found: dict[int, str] = {}
    left = order.tolist()
    for split, count in wanted.items():
        while count > 0:
            if not left:
                raise ValueError(
                    f"{len(patients)} distinct reports of {len(of_patient)} patients are too few for "
                    f"{', '.join(map(str, counts))} scans with each patient in one split; reduce --counts"
                )
            chosen = of_patient[left.pop()][:count]
            found.update(dict.fromkeys(chosen, split))
            count -= len(chosen)
    return found


def _render(task: tuple[Path, int, int, StatedReport]) -> dict[str, Any]:
    """Renders and writes one scan and returns its study record."""
    folder, seed, index, report = task
    name = f"report_{index:06d}"
    case, image, anatomy, bits, affine = make_case(seed, index, report.labels)
    return {
        "id": name,
        "patient": f"p{report.patient:06d}",
        **write_volumes(folder, name, image, anatomy, bits, affine),
        "report": {"findings": report.findings, "impression": report.impression},
        "captions": {
            region: asdict(caption)
            for region, caption in read_report(report.findings, report.impression).captions.items()
        },
        "labels": list(case.labels),
        "sites": [{**asdict(site), "severity": round(site.severity, 3)} for site in case.sites],
    }
