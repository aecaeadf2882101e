"""A group's own table: each row a scan with its report, labels and masks, in columns of any name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from bundle.ctfindings.files.csv_table import Row, Table, read_table
from bundle.ctfindings.sources.preparation.candidate import Candidate
from bundle.ctfindings.sources.preparation.columns import ColumnMapping, load_mapping, map_columns
from bundle.ctfindings.sources.preparation.ledger import Ledger
from bundle.ctfindings.sources.preparation.make_datalist import Source
from bundle.ctfindings.sources.preparation.table_row import fill_from_row, value_of

SCAN_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".zip")


def read_source(path: Path, mapping_file: Path | None, columns: Mapping[str, str], scans: Path | None) -> Source:
    """The studies of a table.

    Args:
        path: the table.
        mapping_file: column by field as JSON, see ``load_mapping``.
        columns: the same; these win.
        scans: folder where paths of the table start; None for that of the table.

    Raises:
        ValueError: when a file or folder is missing, or a column, label or split cannot be read.
    """
    table = read_table(path)
    mapping = map_columns(table, (load_mapping(mapping_file) if mapping_file else {}) | dict(columns))
    folder = scans or path.resolve().parent
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder; check --scans")
    ledger = Ledger()
    candidates = read_candidates(table, mapping, folder, ledger)
    if scans:
        notice_unlisted(candidates, table, mapping, folder, ledger)
    origin = {
        "table": f"{path.name}, {len(table.rows)} rows",
        "columns": {**mapping.fields, **{f"label {finding}": column for finding, column in mapping.labels.items()}},
        "patients": "from the table"
        if "patient" in mapping.fields
        else "unknown: each study counts as a patient of its own",
        "splits": "the table's where it names one, else drawn by patient",
    }
    return Source(path, path.stem, "", origin, candidates, ledger)


def read_candidates(table: Table, mapping: ColumnMapping, folder: Path, ledger: Ledger) -> list[Candidate]:
    """The rows that name a scan which is there and no other row names; the others go to the ledger.

    Args:
        folder: where paths of the table start, and where the scan of an id lies when the table has no image column.
        ledger: gets every row that is left out, and masks and report files that are not there.

    Raises:
        TableError: when a label is none of 1, 0, -1 and empty, or a split is unknown.
    """
    scans = _scans_by_name(folder) if "image" not in mapping.fields else {}
    candidates = []
    for row in table.rows:
        identity = value_of(row, mapping, "id") or _stem(Path(value_of(row, mapping, "image")).name)
        if not identity:
            ledger.drop(row.line, "", "no id", "the row has neither an id nor an image")
            continue
        image = _image(row, mapping, folder, identity, scans, ledger)
        if image is None:
            continue
        candidate = Candidate(row.line, identity, value_of(row, mapping, "patient"), image)
        fill_from_row(candidate, table, row, mapping, folder, ledger)
        for name in ("anatomy", "finding_masks"):
            if value := value_of(row, mapping, name):
                mask = (folder / value).resolve()
                if mask.exists():
                    candidate.masks[name] = mask
                else:
                    ledger.notice(
                        row.line,
                        identity,
                        f"no such {name} file",
                        f"{value} is not there; the study is kept without it",
                    )
        candidates.append(candidate)
    return _unique(candidates, ledger)


def _stem(name: str) -> str:
    """A file name without the suffix of a scan."""
    suffix = next((each for each in SCAN_SUFFIXES if name.lower().endswith(each)), "")
    return name[: len(name) - len(suffix)] if suffix else name


def _scans_by_name(folder: Path) -> dict[str, list[Path]]:
    """Scan files and folders directly below ``folder``, by their name without suffix."""
    found: dict[str, list[Path]] = {}
    for item in sorted(folder.iterdir()):
        if (item.is_dir() or item.name.lower().endswith(SCAN_SUFFIXES)) and not item.name.startswith("."):
            found.setdefault(_stem(item.name), []).append(item.resolve())
    return found


def _image(
    row: Row, mapping: ColumnMapping, folder: Path, identity: str, scans: Mapping[str, Sequence[Path]], ledger: Ledger
) -> Path | None:
    if "image" in mapping.fields:
        value = value_of(row, mapping, "image")
        image = (folder / value).resolve()
        if value and image.exists():
            return image
        ledger.drop(row.line, identity, "no such scan", f"{value or 'an empty cell'}: there is no such file or folder")
        return None
    same_name = scans.get(_stem(identity), [])
    if len(same_name) == 1:
        return same_name[0]
    if same_name:
        ledger.drop(
            row.line,
            identity,
            "two scans of one name",
            f"{', '.join(path.name for path in same_name)}: remove all but one",
        )
    else:
        ledger.drop(row.line, identity, "no such scan", "no file or folder of this name")
    return None


def _unique(candidates: Sequence[Candidate], ledger: Ledger) -> list[Candidate]:
    """Without rows that share an id or a scan: which of them is right cannot be told."""
    ids = Counter(candidate.id for candidate in candidates)
    images = Counter(candidate.image for candidate in candidates)
    kept = []
    for candidate in candidates:
        if ids[candidate.id] > 1:
            ledger.drop(candidate.line, candidate.id, "id in several rows", f"{ids[candidate.id]} rows have this id")
        elif images[candidate.image] > 1:
            ledger.drop(
                candidate.line,
                candidate.id,
                "scan in several rows",
                f"{images[candidate.image]} rows name {candidate.image.name}",
            )
        else:
            kept.append(candidate)
    return kept


def notice_unlisted(
    candidates: Sequence[Candidate], table: Table, mapping: ColumnMapping, folder: Path, ledger: Ledger
) -> None:
    """Notes the scans directly below ``folder`` that no row names; folders only where the table names none by path."""
    named = {candidate.image for candidate in candidates}
    named |= {(folder / value_of(row, mapping, "image")).resolve() for row in table.rows if "image" in mapping.fields}
    named |= {mask for candidate in candidates for mask in candidate.masks.values()}
    listed = {_stem(value_of(row, mapping, "id")) for row in table.rows} if "image" not in mapping.fields else set()
    for name, paths in _scans_by_name(folder).items():
        for path in paths:
            other = path.is_dir() and "image" in mapping.fields
            if path not in named and name not in listed and not other:
                ledger.notice(0, path.name, "scan without a row", "it is not used")
