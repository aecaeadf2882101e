"""A group's own table: each row a scan with its report, labels and masks, in columns of any name."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundle.ctfindings.data.csv_table import Row, Table, TableError, read_table
from bundle.ctfindings.data.sources.candidate import Candidate
from bundle.ctfindings.data.sources.datalist_run import Source
from bundle.ctfindings.data.sources.drops import Ledger
from bundle.ctfindings.data.sources.splits import split_name
from bundle.ctfindings.findings import FINDING_NAMES

FIELDS: dict[str, tuple[str, ...]] = {
    "id": ("id", "study_id", "VolumeName", "AccessionNo", "AccessionNumber", "accession"),
    "patient": ("patient", "patient_id", "PatientID", "subject", "subject_id"),
    "image": ("image", "scan", "file", "path", "image_path", "scan_path"),
    "findings": ("findings", "Findings_EN", "Befund"),
    "impression": ("impression", "impressions", "Impressions_EN", "Beurteilung"),
    "report": ("report", "report_text", "text"),
    "report_file": ("report_file", "report_path"),
    "anatomy": ("anatomy", "mask", "anatomy_mask"),
    "finding_masks": ("finding_masks",),
    "split": ("split", "set", "subset"),
}
"""What a row may hold, and the column names that are taken for it when none is given."""

SCAN_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".zip")
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


@dataclass(frozen=True)
class ColumnMapping:
    """Which column holds what.

    Attributes:
        fields: column by field name of ``FIELDS``; a field without a column is absent.
        labels: column by finding name; a finding without a column is unknown.
    """

    fields: Mapping[str, str]
    labels: Mapping[str, str]


def map_columns(table: Table, given: Mapping[str, str]) -> ColumnMapping:
    """The columns of a table: those that are named, else those with a usual name; labels by the names of the 18 findings.

    Args:
        given: column by field name, or by ``label:FINDING``.

    Raises:
        TableError: when a field, finding or column is unknown, or the table has neither an id nor an image.
    """
    fields: dict[str, str] = {}
    labels: dict[str, str] = {}
    for name, column in given.items():
        if name.startswith("label:"):
            finding = next((each for each in FINDING_NAMES if each.lower() == name[6:].strip().lower()), None)
            if finding is None:
                raise TableError(table.path, f"{name[6:].strip()!r} is none of the findings {', '.join(FINDING_NAMES)}; name one of them")
            labels[finding] = table.column(column, name)
        elif name in FIELDS:
            fields[name] = table.column(column, name)
        else:
            raise TableError(table.path, f"{name!r} is no field; known are {', '.join(FIELDS)}, and label:FINDING")
    for name, usual in FIELDS.items():
        found = table.first_of(usual)
        if name not in fields and found is not None and found not in fields.values():
            fields[name] = found
    for finding in FINDING_NAMES:
        found = table.first_of([finding])
        if finding not in labels and found is not None:
            labels[finding] = found
    if "id" not in fields and "image" not in fields:
        raise TableError(table.path, f"has neither an id nor an image; name a column with --columns id=... ({', '.join(table.columns)})")
    if "report" in fields and ("findings" in fields or "impression" in fields):
        fields.pop("report" if "report" not in given else "findings", None)
    return ColumnMapping(fields, labels)


def load_mapping(path: Path) -> dict[str, str]:
    """A mapping from a JSON file: ``{"image": "Pfad", "label:Pleural effusion": "Erguss"}``.

    Raises:
        ValueError: when the file is missing or no such object.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; check the path of the mapping")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: is no valid JSON ({error}); correct it") from error
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise ValueError(f'{path}: is no object of texts such as {{"image": "Pfad"}}; correct it')
    return content


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
        "patients": "from the table" if "patient" in mapping.fields else "unknown: each study counts as a patient of its own",
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
        identity = _value(row, mapping, "id") or _stem(Path(_value(row, mapping, "image")).name)
        if not identity:
            ledger.drop(row.line, "", "no id", "the row has neither an id nor an image")
            continue
        image = _image(row, mapping, folder, identity, scans, ledger)
        if image is None:
            continue
        candidate = Candidate(row.line, identity, _value(row, mapping, "patient"), image)
        fill_from_row(candidate, table, row, mapping, folder, ledger)
        for name in ("anatomy", "finding_masks"):
            if value := _value(row, mapping, name):
                mask = (folder / value).resolve()
                if mask.exists():
                    candidate.masks[name] = mask
                else:
                    ledger.notice(row.line, identity, f"no such {name} file", f"{value} is not there; the study is kept without it")
        candidates.append(candidate)
    return _unique(candidates, ledger)


def fill_from_row(candidate: Candidate, table: Table, row: Row, mapping: ColumnMapping, folder: Path, ledger: Ledger) -> None:
    """Puts the labels, the split and the texts of a row into a candidate.

    Raises:
        TableError: when a label is none of 1, 0, -1 and empty, or a split is unknown.
    """
    candidate.labels = read_labels(table, row, mapping.labels)
    candidate.split = _split(table, row, mapping)
    _read_texts(candidate, row, mapping, folder, ledger)


def _value(row: Row, mapping: ColumnMapping, name: str) -> str:
    column = mapping.fields.get(name)
    value = row.values[column] if column else ""
    return "" if value.lower() in EMPTY else value


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
        value = _value(row, mapping, "image")
        image = (folder / value).resolve()
        if value and image.exists():
            return image
        ledger.drop(row.line, identity, "no such scan", f"{value or 'an empty cell'}: there is no such file or folder")
        return None
    same_name = scans.get(_stem(identity), [])
    if len(same_name) == 1:
        return same_name[0]
    if same_name:
        ledger.drop(row.line, identity, "two scans of one name", f"{', '.join(path.name for path in same_name)}: remove all but one")
    else:
        ledger.drop(row.line, identity, "no such scan", "no file or folder of this name")
    return None


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
                raise TableError(table.path, f"line {row.line}: {finding} is {value!r}; labels are 1, 0, and -1 or empty for unknown")
            labels[index] = _LABEL_WORDS[value.lower()]
    return labels


def _split(table: Table, row: Row, mapping: ColumnMapping) -> str | None:
    value = _value(row, mapping, "split")
    if not value:
        return None
    split = split_name(value)
    if split is None:
        raise TableError(table.path, f"line {row.line}: {value!r} is no split; use training, validation or test")
    return split


def _read_texts(candidate: Candidate, row: Row, mapping: ColumnMapping, folder: Path, ledger: Ledger) -> None:
    candidate.findings = _value(row, mapping, "findings") or _value(row, mapping, "report")
    candidate.impression = _value(row, mapping, "impression")
    if name := _value(row, mapping, "report_file"):
        path = folder / name
        try:
            candidate.findings = path.read_text(encoding="utf-8-sig").strip() if path.is_file() else ""
        except UnicodeDecodeError:
            ledger.notice(
                candidate.line, candidate.id, "report file is not UTF-8", f"{name}: save it as UTF-8; the study is kept without it"
            )
        if not path.is_file():
            ledger.notice(candidate.line, candidate.id, "no such report file", f"{name} is not there; the study is kept without it")
    if not candidate.findings and not candidate.impression:
        ledger.notice(candidate.line, candidate.id, "no report", "the study is kept without text")


def _unique(candidates: Sequence[Candidate], ledger: Ledger) -> list[Candidate]:
    """Without rows that share an id or a scan: which of them is right cannot be told."""
    ids = Counter(candidate.id for candidate in candidates)
    images = Counter(candidate.image for candidate in candidates)
    kept = []
    for candidate in candidates:
        if ids[candidate.id] > 1:
            ledger.drop(candidate.line, candidate.id, "id in several rows", f"{ids[candidate.id]} rows have this id")
        elif images[candidate.image] > 1:
            ledger.drop(candidate.line, candidate.id, "scan in several rows", f"{images[candidate.image]} rows name {candidate.image.name}")
        else:
            kept.append(candidate)
    return kept


def notice_unlisted(candidates: Sequence[Candidate], table: Table, mapping: ColumnMapping, folder: Path, ledger: Ledger) -> None:
    """Notes the scans directly below ``folder`` that no row names; folders only where the table names none by path."""
    named = {candidate.image for candidate in candidates}
    named |= {(folder / _value(row, mapping, "image")).resolve() for row in table.rows if "image" in mapping.fields}
    named |= {mask for candidate in candidates for mask in candidate.masks.values()}
    listed = {_stem(_value(row, mapping, "id")) for row in table.rows} if "image" not in mapping.fields else set()
    for name, paths in _scans_by_name(folder).items():
        for path in paths:
            other = path.is_dir() and "image" in mapping.fields
            if path not in named and name not in listed and not other:
                ledger.notice(0, path.name, "scan without a row", "it is not used")
