"""Which column of a table holds what: named by the user, or found by its usual name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bundle.ctfindings.files.csv_table import Table, TableError
from bundle.ctfindings.findings import FINDING_NAMES

FIELDS: dict[str, tuple[str, ...]] = {
    "id": ("id", "study_id", "VolumeName", "AccessionNo", "AccessionNumber", "accession"),
    "patient": ("patient", "patient_id", "PatientID", "subject", "subject_id"),
    "image": ("image", "scan", "file", "path", "image_path", "scan_path"),
    "findings": ("findings", "Findings_EN", "Befund"),
    "impression": ("impression", "impressions", "Impressions_EN", "Beurteilung"),
    "report": ("report", "report_text", "text"),
    "report_file": ("report_file", "report_path"),
    "anatomy": ("anatomy", "mask", "anatomy_mask"),
    "finding_masks": ("finding_masks",),
    "split": ("split", "set", "subset"),
}
"""What a row may hold, and the column names that are taken for it when none is given."""


@dataclass(frozen=True)
class ColumnMapping:
    """Which column holds what.

    Attributes:
        fields: column by field name of ``FIELDS``; a field without a column is absent.
        labels: column by finding name; a finding without a column is unknown.
    """

    fields: Mapping[str, str]
    labels: Mapping[str, str]


def map_columns(table: Table, given: Mapping[str, str]) -> ColumnMapping:
    """The columns of a table: those that are named, else those with a usual name; labels by the names of the 18
    findings.

    Args:
        given: column by field name, or by ``label:FINDING``.

    Raises:
        TableError: when a field, finding or column is unknown, or the table has neither an id nor an image.
    """
    fields: dict[str, str] = {}
    labels: dict[str, str] = {}
    for name, column in given.items():
        if name.startswith("label:"):
            finding = next((each for each in FINDING_NAMES if each.lower() == name[6:].strip().lower()), None)
            if finding is None:
                raise TableError(
                    table.path,
                    f"{name[6:].strip()!r} is none of the findings {', '.join(FINDING_NAMES)}; name one of them",
                )
            labels[finding] = table.column(column, name)
        elif name in FIELDS:
            fields[name] = table.column(column, name)
        else:
            raise TableError(table.path, f"{name!r} is no field; known are {', '.join(FIELDS)}, and label:FINDING")
    for name, usual in FIELDS.items():
        found = table.first_of(usual)
        if name not in fields and found is not None and found not in fields.values():
            fields[name] = found
    for finding in FINDING_NAMES:
        found = table.first_of([finding])
        if finding not in labels and found is not None:
            labels[finding] = found
    if "id" not in fields and "image" not in fields:
        raise TableError(
            table.path,
            f"has neither an id nor an image; name a column with --columns id=... ({', '.join(table.columns)})",
        )
    if "report" in fields and ("findings" in fields or "impression" in fields):
        fields.pop("report" if "report" not in given else "findings", None)
    return ColumnMapping(fields, labels)


def load_mapping(path: Path) -> dict[str, str]:
    """A mapping from a JSON file: ``{"image": "Pfad", "label:Pleural effusion": "Erguss"}``.

    Raises:
        ValueError: when the file is missing or no such object.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; check the path of the mapping")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: is no valid JSON ({error}); correct it") from error
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise ValueError(f'{path}: is no object of texts such as {{"image": "Pfad"}}; correct it')
    return content
