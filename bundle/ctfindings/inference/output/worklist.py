"""The worklist of a watched archive, sorted by what was found: ``worklist.csv`` and ``worklist.html``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bundle.ctfindings.files.atomic_write import write_text
from bundle.ctfindings.files.csv_table import write_table
from bundle.ctfindings.files.html_page import render_page
from bundle.ctfindings.inference.findings_record import DISCLAIMER

_TEMPLATE = Path(__file__).parent / "templates" / "worklist.html.jinja"
_STATUS = ("done", "waiting", "failed", "left out")


class Entry(NamedTuple):
    """A series: its UIDs, ``done``, ``waiting``, ``failed`` or ``left out`` with a reason, and what was found.

    ``present`` has the probability of each present finding, ``folder`` is that of the results inside the output.
    """

    series: str
    study: str
    status: str
    reason: str = ""
    notice: str = ""
    present: Mapping[str, float] = {}
    folder: str = ""
    objects: int = 0
    date: str = ""
    accession: str = ""

    @property
    def found(self) -> str:
        """The present findings by falling probability, such as "Pleural effusion 0.94; Lung opacity 0.61"."""
        ordered = sorted(self.present.items(), key=lambda item: -item[1])
        return "; ".join(f"{name} {probability:.2f}" for name, probability in ordered)


def write_worklist(output: Path, entries: Sequence[Entry], first: Sequence[str] = ()) -> list[Entry]:
    """Writes both files into ``output``, whole or not at all; returns the entries in their order.

    Series with a finding of ``first`` come first, in the order of that list; then those with more present findings,
    then those with the higher probability. Series without results come last.
    """

    def order(entry: Entry) -> tuple[int, int, int, float, str]:
        rank = next((number for number, name in enumerate(first) if name in entry.present), len(first))
        highest = max(entry.present.values(), default=0.0)
        return _STATUS.index(entry.status), rank, -len(entry.present), -highest, entry.series

    ordered = sorted(entries, key=order)
    columns = ["status", "findings", "notice", "reason", "date", "accession", "study", "series", "folder", "objects"]
    rows = [[each.found if name == "findings" else getattr(each, name) for name in columns] for each in ordered]
    write_table(output / "worklist.csv", columns, rows)
    page = render_page(_TEMPLATE, entries=ordered, disclaimer=DISCLAIMER, first=first)
    write_text(output / "worklist.html", page)
    return ordered
