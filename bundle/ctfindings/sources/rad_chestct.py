"""Rad-ChestCT as a source: arrays at 0.8 mm, and 84 abnormalities that map to the 18 findings; no reports."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from bundle.ctfindings.files.csv_table import Row, TableError, stream_table
from bundle.ctfindings.files.folders import files_below
from bundle.ctfindings.findings import FINDINGS, LABEL_SETS, Finding
from bundle.ctfindings.scan.storage import Stored
from bundle.ctfindings.sources.preparation.source import Candidate, Ledger, Source
from bundle.ctfindings.sources.preparation.splits import split_name

STORED = Stored(axes="IPL", spacing_mm=(0.8, 0.8, 0.8))
"""The axes of the arrays run from head to feet, front to back and right to left; their HU are clipped to +-1000."""

ID_COLUMNS = ("NoteAcc_DEID", "")
"""Column with the names of the scans in the label tables; the publisher's examples leave it unnamed."""

SUFFIX = ".npz"
_LABELS = {"1": 1, "1.0": 1, "0": 0, "0.0": 0}

Labelling = Literal["standard", "extended"]


class _Labels(NamedTuple):
    """A row of a label table, the split of the table, and the 18 labels."""

    table: Path
    line: int
    split: str
    labels: list[int]


def mapped_abnormalities(finding: Finding, labelling: Labelling) -> tuple[str, ...]:
    """The abnormalities that make a finding positive; empty if the labelling does not include the finding.

    "standard" is the mapping of the literature with the 16 findings of ``LABEL_SETS["radchest16"]``. "extended" is
    clinically closer and includes all 18; its results are not comparable with published ones.
    """
    if labelling == "extended":
        return finding.radchestct if finding.radchestct_extended is None else finding.radchestct_extended
    return finding.radchestct if finding.name in LABEL_SETS["radchest16"] else ()


def read_source(root: Path, tables: Sequence[Path], labelling: Labelling, all_test: bool) -> Source:
    """The scans in a folder, ``.npz`` at any depth, that a label table names.

    Args:
        tables: one per split, with train, valid or test in the file name; empty to find them in ``root``.
        all_test: whether all scans form the test split, as in published evaluations, instead of the publisher's splits.

    Raises:
        ValueError: if the folder or the tables are missing, a table lacks an abnormality, a label is not 1 or 0, or a
            scan is in two tables.
    """
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; give the folder of the Rad-ChestCT scans")
    files = files_below(root)
    found = list(tables) or [path for path in files if path.match("img*Labels*.csv")]
    if not found:
        raise ValueError(
            f"{root}: found no label table such as imgtrain_Abnormality_and_Location_Labels.csv; give it with --labels"
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
            ledger.drop(line, name, "no such scan", f"{table.name}: no such file as {name}{SUFFIX}")
        else:
            candidate = Candidate(line, name, "", paths[0], labels=values, stored=STORED.record())
            candidate.split = "test" if all_test else split
            candidates.append(candidate)
    for name in sorted(set(scans) - {name.lower() for name in labels}):
        detail = "no table names the scan, and Rad-ChestCT has only labels to learn from"
        ledger.drop(0, name, "no row of labels", detail)
    mapped = [finding.name for finding in FINDINGS if mapped_abnormalities(finding, labelling)]
    comparable = "(LABEL_SETS radchest16)" if labelling == "standard" else "(not comparable with published numbers)"
    origin = {
        "tables": ", ".join(path.name for path in found),
        "labels": f"Rad-ChestCT's, {labelling} mapping to {len(mapped)} findings {comparable}",
        "intensities": "HU, clipped to -1000..1000 by the publisher",
        "patients": "not in the label tables: each scan counts as its own patient",
        "splits": "all scans are test" if all_test else "the publisher's",
    }
    return Source(
        root, "Rad-ChestCT", "Chest CT with labels from reports (Rad-ChestCT); no reports.", origin, candidates, ledger
    )


def _read_tables(paths: Sequence[Path], labelling: Labelling, ledger: Ledger) -> dict[str, _Labels]:
    """Labels by scan name. Raises a TableError if a scan is in two tables, or a table is invalid."""
    labels: dict[str, _Labels] = {}
    twice: set[str] = set()
    for path in paths:
        split = next((split_name(word) for word in ("train", "valid", "test") if word in path.name.lower()), None)
        if split is None:
            raise TableError(path, "expected train, valid or test in the file name, which gives the split; rename it")
        for name, entry in _rows(path, split, labelling):
            other = labels.setdefault(name, entry)
            if other.table != path:
                problem = f"line {entry.line}: {name} is also in {other.table.name}, line {other.line}; remove one"
                raise TableError(path, problem)
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
    columns: dict[str, list[str]] = {}  # Of each abnormality: one per location, or a single one.
    for column in table.columns:
        columns.setdefault(column.split("*")[0], []).append(column)
    wanted: list[list[str]] = []
    for finding in FINDINGS:
        abnormalities = mapped_abnormalities(finding, labelling)
        missing = [each for each in abnormalities if each not in columns]
        if missing:
            problem = f"has no column {missing[0]!r} or '{missing[0]}*LOCATION' for {finding.name}"
            raise TableError(path, f"{problem}; give the original table")
        wanted.append([column for abnormality in abnormalities for column in columns[abnormality]])
    for row in rows:
        name = row.values[id_column].removesuffix(SUFFIX)
        yield name, _Labels(path, row.line, split, [_label(path, row, each) for each in wanted])


def _label(path: Path, row: Row, columns: Sequence[str]) -> int:
    """1 if any of the columns is 1, else 0; -1 without columns."""
    values = []
    for column in columns:
        value = _LABELS.get(row.values[column])
        if value is None:
            raise TableError(path, f"line {row.line}: {column} is {row.values[column]!r}; labels are 1 and 0")
        values.append(value)
    return max(values, default=-1)
