"""What a row of a table says of a study: texts, labels and split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bundle.ctfindings.files.csv_table import Row, Table, TableError
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.sources.preparation.candidate import Candidate
from bundle.ctfindings.sources.preparation.columns import ColumnMapping
from bundle.ctfindings.sources.preparation.ledger import Ledger
from bundle.ctfindings.sources.preparation.splits import split_name

EMPTY = frozenset(["", "not given.", "not given", "nan", "none", "n/a"])
_LABEL_WORDS = {
    "1": 1,
    "1.0": 1,
    "true": 1,
    "yes": 1,
    "ja": 1,
    "0": 0,
    "0.0": 0,
    "false": 0,
    "no": 0,
    "nein": 0,
    "-1": -1,
    "-1.0": -1,
    "": -1,
    "nan": -1,
}


def fill_from_row(
    candidate: Candidate, table: Table, row: Row, mapping: ColumnMapping, folder: Path, ledger: Ledger
) -> None:
    """Puts the labels, the split and the texts of a row into a candidate.

    Raises:
        TableError: when a label is none of 1, 0, -1 and empty, or a split is unknown.
    """
    candidate.labels = read_labels(table, row, mapping.labels)
    candidate.split = _split(table, row, mapping)
    _read_texts(candidate, row, mapping, folder, ledger)


def value_of(row: Row, mapping: ColumnMapping, name: str) -> str:
    """The text of a field; empty without its column, or where it says that nothing is given."""
    column = mapping.fields.get(name)
    return text_of(row.values[column]) if column else ""


def text_of(value: str) -> str:
    """A value as text; empty where it says that nothing is given."""
    return "" if value.lower() in EMPTY else value


def read_labels(table: Table, row: Row, columns: Mapping[str, str]) -> list[int]:
    """1, 0 or -1 for each of the 18 findings.

    Args:
        columns: column by finding name; a finding without a column is unknown.

    Raises:
        TableError: when a value is none of 1, 0, -1 and empty.
    """
    labels = [-1] * len(FINDING_NAMES)
    for index, finding in enumerate(FINDING_NAMES):
        if column := columns.get(finding):
            value = row.values[column]
            if value.lower() not in _LABEL_WORDS:
                raise TableError(
                    table.path, f"line {row.line}: {finding} is {value!r}; labels are 1, 0, and -1 or empty for unknown"
                )
            labels[index] = _LABEL_WORDS[value.lower()]
    return labels


def _split(table: Table, row: Row, mapping: ColumnMapping) -> str | None:
    value = value_of(row, mapping, "split")
    if not value:
        return None
    split = split_name(value)
    if split is None:
        raise TableError(table.path, f"line {row.line}: {value!r} is no split; use training, validation or test")
    return split


def _read_texts(candidate: Candidate, row: Row, mapping: ColumnMapping, folder: Path, ledger: Ledger) -> None:
    candidate.findings = value_of(row, mapping, "findings") or value_of(row, mapping, "report")
    candidate.impression = value_of(row, mapping, "impression")
    if name := value_of(row, mapping, "report_file"):
        path = folder / name
        try:
            candidate.findings = path.read_text(encoding="utf-8-sig").strip() if path.is_file() else ""
        except UnicodeDecodeError:
            ledger.notice(
                candidate.line,
                candidate.id,
                "report file is not UTF-8",
                f"{name}: save it as UTF-8; the study is kept without it",
            )
        if not path.is_file():
            ledger.notice(
                candidate.line,
                candidate.id,
                "no such report file",
                f"{name} is not there; the study is kept without it",
            )
    if not candidate.findings and not candidate.impression:
        ledger.notice(candidate.line, candidate.id, "no report", "the study is kept without text")
