"""Columns of a table: which one holds what, and the texts, labels and split that a row gives a study."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from bundle.ctfindings.files.csv_table import Row, Table, TableError
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.sources.preparation.source import Candidate, Ledger
from bundle.ctfindings.sources.preparation.splits import split_name

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
"""What a row may hold, and the column names that are recognized by default."""

EMPTY = frozenset(["", "not given.", "not given", "nan", "none", "n/a"])
_LABELS = {
    **dict.fromkeys(("1", "1.0", "true", "yes", "ja"), 1),
    **dict.fromkeys(("0", "0.0", "false", "no", "nein"), 0),
    **dict.fromkeys(("-1", "-1.0", "", "nan"), -1),
}


class ColumnMapping(NamedTuple):
    """A table with its columns by field of ``FIELDS`` and by finding; a finding without a column is unknown."""

    table: Table
    fields: Mapping[str, str]
    labels: Mapping[str, str]


def map_columns(table: Table, given: Mapping[str, str]) -> ColumnMapping:
    """The columns of a table: the given ones, then those with a usual name or the name of a finding.

    ``given`` has columns by field, or by ``label:FINDING``. TableError if a field, finding or column is unknown, or the
    table has neither an id nor an image.
    """
    fields: dict[str, str] = {}
    labels: dict[str, str] = {}
    findings = {finding.lower(): finding for finding in FINDING_NAMES}
    for name, column in given.items():
        if name.startswith("label:"):
            finding = name.removeprefix("label:").strip()
            if finding.lower() not in findings:
                raise TableError(table.path, f"{finding!r} is not a finding; choose from {', '.join(FINDING_NAMES)}")
            labels[findings[finding.lower()]] = table.column(column, name)
        elif name in FIELDS:
            fields[name] = table.column(column, name)
        else:
            problem = f"{name!r} is not a field; choose from {', '.join(FIELDS)} and label:FINDING"
            raise TableError(table.path, problem)
    for name, usual in FIELDS.items():
        found = table.first_of(usual)
        if name not in fields and found is not None and found not in fields.values():
            fields[name] = found
    for finding in FINDING_NAMES:
        if finding not in labels and (found := table.first_of([finding])) is not None:
            labels[finding] = found
    if "id" not in fields and "image" not in fields:
        problem = f"has neither an id nor an image; name a column with --columns id=... ({', '.join(table.columns)})"
        raise TableError(table.path, problem)
    if "report" in fields and ("findings" in fields or "impression" in fields):
        fields.pop("report" if "report" not in given else "findings", None)
    return ColumnMapping(table, fields, labels)


def load_mapping(path: Path) -> dict[str, str]:
    """A mapping from a JSON file such as ``{"image": "Pfad", "label:Pleural effusion": "Erguss"}``.

    ValueError if the file is missing or not such an object.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; check the path of the mapping")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: is not valid JSON ({error}); correct it") from error
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise ValueError(f'{path}: expected an object of texts such as {{"image": "Pfad"}}; correct it')
    return content


def fill_from_row(candidate: Candidate, row: Row, mapping: ColumnMapping, folder: Path, ledger: Ledger) -> None:
    """Set labels, split and texts of a candidate from a row. Paths of report files are relative to ``folder``.

    TableError if a label is not 1, 0, -1 or empty, or a split is unknown.
    """
    candidate.labels = read_labels(mapping.table, row, mapping.labels)
    if word := value_of(row, mapping, "split"):
        candidate.split = split_name(word)
        if candidate.split is None:
            problem = f"line {row.line}: expected a split (training, validation or test), got {word!r}"
            raise TableError(mapping.table.path, problem)
    candidate.findings = value_of(row, mapping, "findings") or value_of(row, mapping, "report")
    candidate.impression = value_of(row, mapping, "impression")
    if name := value_of(row, mapping, "report_file"):
        candidate.findings = _report_file(candidate, folder, name, ledger)
    if not candidate.findings and not candidate.impression:
        ledger.notice(candidate.line, candidate.id, "no report", "the study is kept without text")


def _report_file(candidate: Candidate, folder: Path, name: str, ledger: Ledger) -> str:
    if not (folder / name).is_file():
        reason, detail = "no such report file", f"{name} does not exist; the study is kept without it"
    else:
        try:
            return (folder / name).read_text(encoding="utf-8-sig").strip()
        except UnicodeDecodeError:
            reason, detail = "report file is not UTF-8", f"{name}: save it as UTF-8; the study is kept without it"
    ledger.notice(candidate.line, candidate.id, reason, detail)
    return ""


def value_of(row: Row, mapping: ColumnMapping, name: str) -> str:
    """Text of a field; empty without a column or if the cell says that nothing is given."""
    column = mapping.fields.get(name)
    return text_of(row.values[column]) if column else ""


def text_of(value: str) -> str:
    """Text of a cell; empty if it says that nothing is given."""
    return "" if value.lower() in EMPTY else value


def read_labels(table: Table, row: Row, columns: Mapping[str, str]) -> list[int]:
    """1, 0 or -1 (unknown, also without a column) for each of the 18 findings; a TableError for another value."""
    labels = []
    for finding in FINDING_NAMES:
        value = row.values[columns[finding]] if finding in columns else ""
        if value.lower() not in _LABELS:
            problem = f"line {row.line}: {finding} is {value!r}; labels are 1, 0, and -1 or empty for unknown"
            raise TableError(table.path, problem)
        labels.append(_LABELS[value.lower()])
    return labels
