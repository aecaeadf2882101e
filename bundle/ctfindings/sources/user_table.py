"""The user's own table as a source: each row a scan with its report, labels and masks, in columns of any name."""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from bundle.ctfindings.files.csv_table import Row, read_table
from bundle.ctfindings.scan.file_format import SCAN_SUFFIXES, is_scan_name
from bundle.ctfindings.sources.preparation.columns import ColumnMapping, fill_from_row, map_columns, value_of
from bundle.ctfindings.sources.preparation.source import Candidate, Ledger, Source


def read_source(path: Path, columns: Mapping[str, str], scans: Path | None) -> Source:
    """The studies of a table, with its columns as in ``map_columns``.

    Paths in the table are relative to ``scans``, or to the folder of the table if ``scans`` is None. ValueError if a
    file or folder is missing, or a column, label or split is invalid.
    """
    table = read_table(path)
    mapping = map_columns(table, columns)
    folder = scans or path.resolve().parent
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; check --scans")
    ledger = Ledger()
    candidates = _candidates(mapping, folder, ledger)
    if scans:
        _notice_unlisted(candidates, mapping, folder, ledger)
    origin = {
        "table": f"{path.name}, {len(table.rows)} rows",
        "columns": {**mapping.fields, **{f"label {finding}": column for finding, column in mapping.labels.items()}},
        "patients": "from the table"
        if "patient" in mapping.fields
        else "unknown: each study counts as its own patient",
        "splits": "from the table if given, else drawn by patient",
    }
    return Source(path, path.stem, "", origin, candidates, ledger)


def _candidates(mapping: ColumnMapping, folder: Path, ledger: Ledger) -> list[Candidate]:
    """The rows with an existing scan that no other row names. The ledger gets the others, and missing files."""
    scans = _scans_by_name(folder) if "image" not in mapping.fields else {}
    candidates = []
    for row in mapping.table.rows:
        identity = value_of(row, mapping, "id") or _stem(Path(value_of(row, mapping, "image")).name)
        if not identity:
            ledger.drop(row.line, "", "no id", "the row has neither an id nor an image")
            continue
        image = _image(row, mapping, folder, identity, scans, ledger)
        if image is None:
            continue
        candidate = Candidate(row.line, identity, value_of(row, mapping, "patient"), image)
        fill_from_row(candidate, row, mapping, folder, ledger)
        for name in ("anatomy", "finding_masks"):
            if value := value_of(row, mapping, name):
                if mask := _existing(folder, value):
                    candidate.masks[name] = mask
                else:
                    detail = f"{value} does not exist; the study is kept without it"
                    ledger.notice(row.line, identity, f"no such {name} file", detail)
        candidates.append(candidate)
    return _unique(candidates, ledger)


def _existing(folder: Path, value: str) -> Path | None:
    """The file or folder that a cell names, also with backslashes (Windows) or with accents apart from their letters
    (macOS); None without one.
    """
    forms = [unicodedata.normalize(form, value.replace("\\", "/")) for form in ("NFC", "NFD")]
    for written in [value, *forms] if value else []:
        try:
            path = (folder / written).resolve()
            if path.exists():
                return path
        except (OSError, ValueError):  # too long for a name, or with a NUL
            continue
    return None


def _stem(name: str) -> str:
    """A file name without the suffix of a scan, its accents as part of their letters."""
    name = unicodedata.normalize("NFC", name)
    suffix = next((each for each in SCAN_SUFFIXES if name.lower().endswith(each)), "")
    return name[: len(name) - len(suffix)]


def _scans_by_name(folder: Path) -> dict[str, list[Path]]:
    """Scan files and folders directly in ``folder``, by their name without suffix."""
    found: dict[str, list[Path]] = {}
    for item in sorted(folder.iterdir()):
        if (item.is_dir() or is_scan_name(item.name)) and not item.name.startswith(".") and item.name != "__MACOSX":
            found.setdefault(_stem(item.name), []).append(item.resolve())
    return found


def _image(
    row: Row, mapping: ColumnMapping, folder: Path, identity: str, scans: Mapping[str, Sequence[Path]], ledger: Ledger
) -> Path | None:
    if "image" in mapping.fields:
        value = value_of(row, mapping, "image")
        if image := _existing(folder, value):
            return image
        ledger.drop(row.line, identity, "no such scan", f"{value or 'an empty cell'}: no such file or folder")
        return None
    same_name = scans.get(_stem(identity), [])
    if len(same_name) == 1:
        return same_name[0]
    if same_name:
        names = ", ".join(path.name for path in same_name)
        ledger.drop(row.line, identity, "two scans of one name", f"{names}: remove all but one")
    else:
        ledger.drop(row.line, identity, "no such scan", "no file or folder of this name")
    return None


def _unique(candidates: Sequence[Candidate], ledger: Ledger) -> list[Candidate]:
    """The candidates without rows that share an id or a scan: nothing tells which of them is right."""
    ids = Counter(candidate.id for candidate in candidates)
    images = Counter(candidate.image for candidate in candidates)
    kept = []
    for each in candidates:
        if ids[each.id] > 1:
            ledger.drop(each.line, each.id, "id in several rows", f"{ids[each.id]} rows have this id")
        elif images[each.image] > 1:
            ledger.drop(each.line, each.id, "scan in several rows", f"{images[each.image]} rows name {each.image.name}")
        else:
            kept.append(each)
    return kept


def _notice_unlisted(candidates: Sequence[Candidate], mapping: ColumnMapping, folder: Path, ledger: Ledger) -> None:
    """Note the scans directly in ``folder`` that no row names; folders only if the table names no scan by path."""
    by_path, rows = "image" in mapping.fields, mapping.table.rows
    named = {candidate.image for candidate in candidates}
    named |= {path for row in rows if by_path and (path := _existing(folder, value_of(row, mapping, "image")))}
    named |= {mask for candidate in candidates for mask in candidate.masks.values()}
    listed = set() if by_path else {_stem(value_of(row, mapping, "id")) for row in rows}
    for name, paths in _scans_by_name(folder).items():
        for path in paths:
            if path not in named and name not in listed and not (path.is_dir() and by_path):
                ledger.notice(0, path.name, "scan without a row", "it is not used")
