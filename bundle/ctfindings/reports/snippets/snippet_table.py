"""Mining a table of reports: which columns are read, what each row gives, and what is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from bundle.ctfindings.files.csv_table import Row, Table, TableError
from bundle.ctfindings.reports.snippets.miner import Snippet, mine_report
from bundle.ctfindings.reports.snippets.slice_positions import Studies, StudyTable

ID_COLUMNS = (
    "id",
    "study_id",
    "VolumeName",
    "AccessionNo",
    "AccessionNumber",
    "accession",
    "report_id",
    "StudyInstanceUID",
)
TEXT_COLUMNS = (
    "Findings_EN",
    "Impressions_EN",
    "findings",
    "impression",
    "impressions",
    "report_text",
    "report",
    "text",
    "Befund",
    "Beurteilung",
)
EMPTY_TEXTS = frozenset(["", "not given.", "not given", "nan", "none"])
"""What tables write where there is no text; CT-RATE writes "Not given."."""

OUTPUT_COLUMNS = ("id", "series", "image", "snippet", "rule", "confidence")
Z_COLUMN = "z_mm"
REFUSED_COLUMNS = ("id", "line", "series", "image", "reason")


class MinedSnippet(NamedTuple):
    """A snippet of a row; ``z_mm`` is world z in mm (RAS), None when no scan was asked."""

    row: Row
    id: str
    snippet: Snippet
    z_mm: float | None


class RefusedReference(NamedTuple):
    """A reference of a row that gave no snippet, and why."""

    row: Row
    id: str
    series: int | None
    image: int
    reason: str


@dataclass
class Counts:
    """What was found in a table.

    Attributes:
        reports: rows read.
        with_snippets: rows that gave at least one snippet.
        rules: snippets by rule and confidence.
        refused: references by reason.
    """

    reports: int = 0
    with_snippets: int = 0
    rules: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


def choose_columns(table: Table, id_column: str | None, text_columns: Sequence[str] | None) -> tuple[str, list[str]]:
    """The id column and the text columns, in the table's order: those that are named, else those with a usual name.

    Raises:
        TableError: when a named column is not there, or none has a usual name.
    """
    identity = table.column(id_column, "the id") if id_column else table.first_of(ID_COLUMNS)
    if identity is None:
        raise TableError(
            table.path, f"no column is known as an id; name one of {', '.join(table.columns)} with --id-column"
        )
    if text_columns:
        texts = [table.column(name, "the text") for name in text_columns]
    else:
        usual = {name.lower() for name in TEXT_COLUMNS}
        texts = [name for name in table.columns if name.lower() in usual]
    if not texts:
        raise TableError(
            table.path, f"no column is known as a text; name some of {', '.join(table.columns)} with --text-columns"
        )
    return identity, texts


def mine_table(
    table: Table, id_column: str, text_columns: Sequence[str], studies: Studies | None, counts: Counts
) -> Iterator[list[MinedSnippet | RefusedReference]]:
    """What each row gives, row by row; ``counts`` is kept up to date.

    With ``studies``, a snippet is given only with its z: one that points outside its series, at a series that is not
    there or at a study that is not there is refused with that reason.

    Args:
        studies: read already; None to leave scans out.
    """
    identities = {row.values[id_column] for row in table.rows}
    for row in table.rows:
        identity = row.values[id_column]
        texts = [row.values[name] for name in text_columns if row.values[name].lower() not in EMPTY_TEXTS]
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
    """The study of a report. A folder with one study is that of a table with one id, whatever their names; of more ids
    it is not.
    """
    return studies.find(identity) or (studies.only_study if identities == 1 else None)
