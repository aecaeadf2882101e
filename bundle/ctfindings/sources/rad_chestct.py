"""Rad-ChestCT: arrays without geometry at 0.8 mm, and labels of 84 abnormalities that map onto the 18 findings. It has
no reports.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from bundle.ctfindings.files.csv_table import Row, Table, TableError, stream_table
from bundle.ctfindings.files.folders import files_below
from bundle.ctfindings.findings import FINDINGS, LABEL_SETS, Finding
from bundle.ctfindings.scan.storage import Stored
from bundle.ctfindings.sources.preparation.candidate import Candidate
from bundle.ctfindings.sources.preparation.ledger import Ledger
from bundle.ctfindings.sources.preparation.make_datalist import Source
from bundle.ctfindings.sources.preparation.splits import split_name

STORED = Stored(axes="IPL", spacing_mm=(0.8, 0.8, 0.8))
"""The first axis runs from head to feet, the second from front to back, the third from right to left. HU were clipped
to [-1000, 1000].
"""

ID_COLUMNS = ("NoteAcc_DEID", "")
"""Name of a scan in the label tables; in the publisher's examples the column has no name."""

SUFFIX = ".npz"
_LABELS = {"1": 1, "1.0": 1, "0": 0, "0.0": 0}

Labelling = Literal["standard", "extended"]


class _Labels(NamedTuple):
    """A row of a label table: where it stands, the split of the table and the 18 labels."""

    table: Path
    line: int
    split: str
    labels: list[int]


def mapped_abnormalities(finding: Finding, labelling: Labelling) -> tuple[str, ...]:
    """The abnormalities that make a finding positive; none where the labelling does not ask for it.

    "standard" is that of the literature, with the 16 findings of ``LABEL_SETS["radchest16"]``. "extended" is clinically
    closer, knows all 18, and its numbers compare with nobody's.
    """
    if labelling == "extended":
        return finding.radchestct if finding.radchestct_extended is None else finding.radchestct_extended
    return finding.radchestct if finding.name in LABEL_SETS["radchest16"] else ()


def read_source(root: Path, tables: Sequence[Path], labelling: Labelling, all_test: bool) -> Source:
    """The scans below a folder that a label table names.

    Args:
        root: folder with the ``.npz`` files, in any depth.
        tables: the label tables, one for each split, with the word train, valid or test in the name; empty to take
            those below ``root``.
        labelling: see ``mapped_abnormalities``.
        all_test: whether all scans form the test split, as in published evaluations; else the splits are the
            publisher's.

    Raises:
        ValueError: when the folder or the tables are missing, a table lacks an abnormality, a label is none of 1 and 0,
            or a scan is in two tables.
    """
    if not root.is_dir():
        raise ValueError(f"{root}: there is no such folder; give the folder of the Rad-ChestCT scans")
    files = files_below(root)
    found = list(tables) or [path for path in files if path.match("img*Labels*.csv")]
    if not found:
        raise ValueError(
            f"{root}: holds no label table such as imgtrain_Abnormality_and_Location_Labels.csv; name them with --labels"
        )
    ledger = Ledger()
    scans: dict[str, list[Path]] = {}
    for path in (path for path in files if path.name.endswith(SUFFIX)):
        scans.setdefault(path.name.lower().removesuffix(SUFFIX), []).append(path.absolute())
    labels = _read_tables(found, labelling, ledger)
    candidates = []
    for name, (table, line, split, values) in labels.items():
        paths = scans.get(name.lower(), [])
        if len(paths) > 1:
            folders = ", ".join(str(path.parent) for path in paths)
            ledger.drop(line, name, "two scans of one name", f"in {folders}: remove all but one")
        elif not paths:
            ledger.drop(line, name, "no such scan", f"{table.name}: there is no file {name}{SUFFIX}")
        else:
            candidate = Candidate(line, name, "", paths[0], labels=values, stored=STORED.record())
            candidate.split = "test" if all_test else split
            candidates.append(candidate)
    known = {name.lower() for name in labels}
    for name in sorted(set(scans) - known):
        ledger.drop(0, name, "no row of labels", "no table names the scan, and labels are all there is to learn from")
    mapped = [finding.name for finding in FINDINGS if mapped_abnormalities(finding, labelling)]
    origin = {
        "tables": ", ".join(path.name for path in found),
        "labels": f"Rad-ChestCT's, {labelling} mapping onto {len(mapped)} findings"
        + ("; not comparable with published numbers" if labelling == "extended" else " (LABEL_SETS radchest16)"),
        "intensities": "HU, clipped to -1000..1000 by the publisher",
        "patients": "not in the label tables: each scan counts as a patient of its own",
        "splits": "all scans are test" if all_test else "the publisher's",
    }
    return Source(
        root, "Rad-ChestCT", "Chest CT with labels from reports (Rad-ChestCT); no reports.", origin, candidates, ledger
    )


def _read_tables(paths: Sequence[Path], labelling: Labelling, ledger: Ledger) -> dict[str, _Labels]:
    """Labels by scan name.

    Raises:
        TableError: when a scan is in two tables, or a table cannot be read.
    """
    labels: dict[str, _Labels] = {}
    twice: set[str] = set()
    for path in paths:
        split = next((split_name(word) for word in ("train", "valid", "test") if word in path.name.lower()), None)
        if split is None:
            raise TableError(path, "its name has none of train, valid and test, which says the split; rename it")
        for name, entry in _rows(path, split, labelling):
            other = labels.setdefault(name, entry)
            if other.table != path:
                raise TableError(
                    path,
                    f"line {entry.line}: {name} is in {other.table.name} too, line {other.line}; a scan has one split",
                )
            if other is not entry:
                ledger.drop(entry.line, name, "id in several rows", f"{path.name}: line {other.line} has this id too")
                twice.add(name)
    for name in twice:
        first = labels.pop(name)
        ledger.drop(first.line, name, "id in several rows", f"{first.table.name}: a later line has this id too")
    return labels


def _rows(path: Path, split: str, labelling: Labelling) -> Iterator[tuple[str, _Labels]]:
    table, rows = stream_table(path)
    id_column = table.first_of(ID_COLUMNS)
    if id_column is None:
        raise TableError(path, f"has no column {ID_COLUMNS[0]!r} with the names of the scans; add it")
    columns = _columns(table)
    wanted: list[list[str]] = []
    for finding in FINDINGS:
        abnormalities = mapped_abnormalities(finding, labelling)
        missing = [abnormality for abnormality in abnormalities if abnormality not in columns]
        if missing:
            raise TableError(
                path,
                f"has no column {missing[0]!r} or '{missing[0]}*LOCATION' for {finding.name}; give the original table",
            )
        wanted.append([column for abnormality in abnormalities for column in columns[abnormality]])
    for row in rows:
        name = row.values[id_column].removesuffix(SUFFIX)
        yield name, _Labels(path, row.line, split, [_label(path, row, each) for each in wanted])


def _columns(table: Table) -> Mapping[str, list[str]]:
    """Columns of each abnormality: one for each location it may be at, or one in all."""
    columns: dict[str, list[str]] = {}
    for column in table.columns:
        columns.setdefault(column.split("*")[0], []).append(column)
    return columns


def _label(path: Path, row: Row, columns: Sequence[str]) -> int:
    """1 when any of the columns says so, 0 when none does, -1 without columns."""
    values = []
    for column in columns:
        value = _LABELS.get(row.values[column])
        if value is None:
            raise TableError(path, f"line {row.line}: {column} is {row.values[column]!r}; labels are 1 and 0")
        values.append(value)
    return max(values, default=-1)
