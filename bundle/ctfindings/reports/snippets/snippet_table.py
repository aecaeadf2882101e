"""Mines a table of reports: its columns, the snippets of each row, and the counts."""

import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bundle.ctfindings.files.csv_table import Row, Table, TableError
from bundle.ctfindings.reports.snippets.miner import Snippet, mine_report
from bundle.ctfindings.reports.snippets.slice_positions import Studies, StudyTable

_COLUMNS: dict[str, list[str]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))

OUTPUT_COLUMNS = ("id", "series", "image", "snippet", "rule", "confidence")
Z_COLUMN = "z_mm"
REFUSED_COLUMNS = ("id", "line", "series", "image", "reason")


class MinedSnippet(NamedTuple):
    """A snippet of a row; ``z_mm`` is world z in mm (RAS), None without studies."""

    row: Row
    id: str
    snippet: Snippet
    z_mm: float | None


class RefusedReference(NamedTuple):
    """A reference of a row without snippet, and the reason."""

    row: Row
    id: str
    series: int | None
    image: int
    reason: str


@dataclass
class Counts:
    """Counts over a table: rows with a snippet, snippets by rule and confidence, rejected references by reason."""

    reports: int = 0
    with_snippets: int = 0
    rules: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


def choose_columns(table: Table, id_column: str | None, text_columns: Sequence[str] | None) -> tuple[str, list[str]]:
    """The id column and the text columns in the table's order: the given ones, else those with a usual name.

    TableError when a given column is missing, or no column has a usual name.
    """
    identity = table.column(id_column, "the id") if id_column else table.first_of(_COLUMNS["ids"])
    if identity is None:
        raise TableError(table.path, f"no id column found among {', '.join(table.columns)}; name it with --id-column")
    if text_columns:
        texts = [table.column(name, "the text") for name in text_columns]
    else:
        texts = [name for name in table.columns if name.lower() in _COLUMNS["texts"]]
    if not texts:
        raise TableError(
            table.path, f"no text column found among {', '.join(table.columns)}; name them with --text-columns"
        )
    return identity, texts


def mine_table(
    table: Table, id_column: str, text_columns: Sequence[str], studies: Studies | None, counts: Counts
) -> Iterator[list[MinedSnippet | RefusedReference]]:
    """The snippets and rejected references of each row; updates ``counts``.

    With ``studies``, whose headers were read, a snippet without a position is rejected with the reason. None mines the
    texts only.
    """
    identities = {row.values[id_column] for row in table.rows}
    for row in table.rows:
        identity = row.values[id_column]
        texts = [row.values[name] for name in text_columns if row.values[name].lower() not in _COLUMNS["empty_texts"]]
        mined = mine_report(texts)
        refused = [RefusedReference(row, identity, each.series, each.image, each.reason) for each in mined.refused]
        kept: list[MinedSnippet] = []
        study = _study(studies, identity, len(identities)) if studies else None
        for snippet in mined.snippets:
            if studies is None:
                kept.append(MinedSnippet(row, identity, snippet, None))
            elif study is None:
                refused.append(RefusedReference(row, identity, snippet.series, snippet.image, "no such study"))
            else:
                place = study.position(snippet.series, snippet.first, snippet.last)
                if place.z_mm is None:
                    refused.append(RefusedReference(row, identity, snippet.series, snippet.image, place.problem))
                else:
                    kept.append(MinedSnippet(row, identity, snippet._replace(series=place.series), place.z_mm))
        counts.reports += 1
        counts.with_snippets += bool(kept)
        counts.rules.update((each.snippet.rule, each.snippet.confidence) for each in kept)
        counts.refused.update(each.reason for each in refused)
        yield [*kept, *refused]


def _study(studies: Studies, identity: str, identities: int) -> StudyTable | None:
    """The study of a report. If both the folder and the table have one study, they match whatever their names."""
    return studies.find(identity) or (studies.only_study if identities == 1 else None)
