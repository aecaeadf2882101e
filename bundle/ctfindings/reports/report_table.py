"""Reads a table of reports into a table of labels and captions, in several processes."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.files.csv_table import Table
from bundle.ctfindings.files.parallel_map import parallel_map
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.reports.captions import ReadReport, read_report

CAPTION_COLUMNS: tuple[str, ...] = tuple(
    column for name in ANATOMY_NAMES for column in (f"caption_{name}", f"normal_{name}")
)
"""For each anatomy its caption, and 1 when it is normal, else 0; both are empty when the report does not mention it."""

_IMPRESSION = re.compile(r"impression|conclusion|beurteilung|opinion|summary", re.IGNORECASE)
_ROWS_PER_TASK = 64
_FEW_ROWS = 256  # Below, starting processes takes longer than reading.


@dataclass
class ReportCounts:
    """Counts over a table of reports: rows without text, labels by (finding, label), captions by (anatomy, normal).

    ``unplaced`` has the number of occurrences of each sentence without an anatomy.
    """

    reports: int = 0
    empty: int = 0
    labels: Counter[tuple[str, int]] = field(default_factory=Counter)
    captions: Counter[tuple[str, bool]] = field(default_factory=Counter)
    unplaced: Counter[str] = field(default_factory=Counter)

    def add(self, report: ReadReport) -> None:
        """Adds one report."""
        self.reports += 1
        self.empty += not report.captions
        self.labels.update(zip(FINDING_NAMES, report.labels, strict=True))
        self.captions.update((name, caption.normal) for name, caption in report.captions.items())
        self.unplaced.update(report.unplaced)


def output_columns(id_column: str) -> tuple[str, ...]:
    """Header of the output: the id, the 18 findings in CT-RATE's order, the captions."""
    return (id_column, *FINDING_NAMES, *CAPTION_COLUMNS)


def output_row(identity: str, report: ReadReport) -> tuple[str | int, ...]:
    """One row of the output."""
    cells: list[str | int] = []
    for name in ANATOMY_NAMES:
        caption = report.captions.get(name)
        cells += ["", ""] if caption is None else [caption.text, int(caption.normal)]
    return (identity, *report.labels, *cells)


def read_reports(
    table: Table, text_columns: Sequence[str], processes: int = 1, uncertain: int = -1
) -> Iterator[ReadReport]:
    """Reads the reports of a table in its order, in one process if it has fewer than 256 rows.

    A column is an impression if its name contains impression, conclusion, Beurteilung, opinion or summary. The other
    columns form the findings section. For ``uncertain`` see ``read_report``.
    """
    sections = [_sections(row.values, text_columns) for row in table.rows]
    processes = processes if len(sections) >= _FEW_ROWS else 1
    chunks = {str(start): sections[start : start + _ROWS_PER_TASK] for start in range(0, len(sections), _ROWS_PER_TASK)}
    waiting, done = list(chunks), dict[str, list[ReadReport]]()
    for outcome in parallel_map(partial(_read_chunk, uncertain=uncertain), chunks, processes, fatal=Exception):
        if outcome.problem:
            raise ValueError(f"{table.path}: reports cannot be read: {outcome.problem}")
        done[outcome.key] = outcome.result
        while waiting and waiting[0] in done:
            yield from done.pop(waiting.pop(0))


def _sections(values: dict[str, str], text_columns: Sequence[str]) -> tuple[str, str]:
    impression = [values[name] for name in text_columns if _IMPRESSION.search(name)]
    findings = [values[name] for name in text_columns if not _IMPRESSION.search(name)]
    return "\n\n".join(findings), "\n\n".join(impression)


def _read_chunk(sections: Sequence[tuple[str, str]], uncertain: int) -> list[ReadReport]:
    return [read_report(findings, impression, uncertain) for findings, impression in sections]
