"""CSV tables: reads them with comma, semicolon or tab, finds columns by name, reports errors by line; writes them."""

import csv
import difflib
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bundle.ctfindings.files.atomic_write import atomic_path

MAX_FIELD_CHARACTERS = 10_000_000
_DELIMITERS = ",;\t"


class TableError(ValueError):
    """Table that cannot be used; the message is one line, ``FILE: problem; remedy``."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: " + " ".join(problem.split()))


class Row(NamedTuple):
    """One row of a table."""

    line: int  # number of its first line in the file; the header is line 1
    values: dict[str, str]  # stripped text by column name


class Table(NamedTuple):
    """Path, columns in order, and rows of a table."""

    path: Path
    columns: list[str]
    rows: list[Row]

    def column(self, name: str, purpose: str, remedy: str = "") -> str:
        """``name`` if the table has that column, else a TableError with the remedy, or with the closest column."""
        if name in self.columns:
            return name
        close = difflib.get_close_matches(name, self.columns, 1, 0.6)
        hint = remedy or (f"did you mean {close[0]!r}?" if close else "name one of them")
        problem = f"has no column {name!r} for {purpose}; its columns are {', '.join(self.columns)}: {hint}"
        raise TableError(self.path, problem)

    def first_of(self, names: Sequence[str]) -> str | None:
        """First of ``names`` that is a column, ignoring case, or None."""
        known = {column.lower(): column for column in self.columns}
        return next((known[name.lower()] for name in names if name.lower() in known), None)


def read_table(path: Path) -> Table:
    """Reads a UTF-8 CSV file with a header. The delimiter is the most frequent of comma, semicolon and tab in it.

    TableError if the file is missing, empty or not UTF-8, a column occurs twice, or a row has more or fewer fields than
    the header.
    """
    table, rows = stream_table(path)
    table.rows.extend(rows)
    if not table.rows:
        raise TableError(path, "has no rows; expected a header and rows")
    return table


def write_table(path: str | Path, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Writes a CSV file in UTF-8 with a header, complete or not at all."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def stream_table(path: Path) -> tuple[Table, Iterator[Row]]:
    """The table without rows, and an iterator over its rows; both raise the errors of ``read_table``."""
    if not path.is_file():
        raise TableError(path, "no such file; check the path")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"expected UTF-8, found another encoding (byte {error.start}); save it as CSV UTF-8"
        raise TableError(path, problem) from error
    header = text.lstrip().split("\n", 1)[0]
    delimiter = max(_DELIMITERS, key=header.count)
    lines = _lines(path, text, delimiter)
    columns = [name.strip() for name in next((fields for _, fields in lines if any(map(str.strip, fields))), [])]
    if not columns:
        raise TableError(path, "is empty; a header and rows are expected")
    twice = sorted(name for name, count in Counter(columns).items() if count > 1)
    if twice:
        raise TableError(path, f"has column {twice[0]!r} twice; rename one")

    def rows() -> Iterator[Row]:
        for line, fields in lines:
            if fields and len(fields) != len(columns):
                problem = f"line {line} has {len(fields)} fields, the header {len(columns)}"
                raise TableError(path, f"{problem}; put text with {delimiter!r} in quotes")
            if fields:
                yield Row(line, {name: value.strip() for name, value in zip(columns, fields, strict=True)})

    return Table(path, columns, []), rows()


def _lines(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Number of its first line, and fields, of each record."""
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for fields in reader:
            yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        raise TableError(path, f"line {reader.line_num} is not valid CSV ({error}); check its quotes") from error
