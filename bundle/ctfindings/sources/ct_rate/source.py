"""CT-RATE as a source, version 1 and 2: volumes by name; reports, labels and metadata from its tables."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from bundle.ctfindings.files.csv_table import Row, Table, read_table
from bundle.ctfindings.files.folders import files_below
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.sources.ct_rate.metadata import COLUMNS, grid_of, stored_of
from bundle.ctfindings.sources.ct_rate.volume_names import (
    FIXED,
    KNOWN_BROKEN,
    SUFFIX,
    VolumeName,
    bare_name,
    examination_of,
    read_skip_list,
    skip_reason,
    volume_name,
)
from bundle.ctfindings.sources.preparation.columns import read_labels, text_of
from bundle.ctfindings.sources.preparation.source import Candidate, Ledger, Source
from bundle.ctfindings.sources.preparation.splits import draw_split

NAME_COLUMN, REPORT_COLUMNS = "VolumeName", ("Findings_EN", "Impressions_EN")
MASK_FOLDERS = ("ts_seg", "ts_total")
"""Folders of segmentations, which have the same file names as the volumes."""

_TABLE_PLACES = {
    "reports": ("radiology_text_reports", "_reports.csv"),
    "labels": ("multi_abnormality_labels", "_labels.csv"),
    "metadata": ("metadata", "_metadata.csv"),
    "skip": ("metadata", ".txt"),
}


class CtRateOptions(NamedTuple):
    """How CT-RATE is read.

    Attributes:
        intensities: "raw" if volumes need the rescale of the metadata table, "hu" if not; "folder" decides by folder:
            folders of version 2 end with ``_fixed``.
        geometry: source of the affine of raw volumes: "table" or "file".
        reconstructions: "all" volumes of an examination, or the "first".
        dev_share: share of the training patients for validation, drawn with ``seed``. The publisher's validation
            patients are the test split.
    """

    intensities: Literal["folder", "raw", "hu"]
    geometry: Literal["table", "file"]
    reconstructions: Literal["all", "first"]
    dev_share: float
    seed: int


class _Volume(NamedTuple):
    """A file of a volume; ``raw`` if it needs the rescale of the table."""

    name: VolumeName
    path: Path
    raw: bool


class _Tables(NamedTuple):
    """Rows of the tables of one kind by volume or examination, and the names with contradicting rows."""

    rows: dict[str, tuple[Table, Row]]
    conflicts: set[str]


def read_source(root: Path, tables: Mapping[str, Sequence[Path]], options: CtRateOptions) -> Source:
    """The volumes in a folder with their reports, labels and rescale.

    Args:
        root: the download with its folders (``dataset/train``, ``dataset/metadata``, ...), or a folder with volumes.
        tables: files by "reports", "labels", "metadata" and "skip"; a missing entry is found at its usual place.

    Raises:
        ValueError: if the folder or a table is missing or invalid, there is no volume, raw volumes have no metadata, or
            the validation share is not in [0, 1).
    """
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; give the folder of CT-RATE")
    if not 0 <= options.dev_share < 1:
        raise ValueError(f"--dev-share: expected a number from 0 to below 1, got {options.dev_share:g}")
    ledger = Ledger()
    files = files_below(root.absolute())  # Links, as in a hub's cache, keep their names.
    volumes = _volumes(files, options, ledger)
    if not volumes:
        raise ValueError(f"{root}: found no volume such as train_1_a_1.nii.gz; give the folder of CT-RATE")
    found = {purpose: list(tables.get(purpose) or _usual(files, purpose)) for purpose in _TABLE_PLACES}
    skipped = dict(KNOWN_BROKEN)
    for path in found["skip"]:
        skipped |= read_skip_list(path)
    reports = _index(found["reports"], REPORT_COLUMNS)
    labels = _index(found["labels"], FINDING_NAMES)
    metadata = _index(found["metadata"], COLUMNS)
    if not metadata.rows and any(volume.raw for volume in volumes):
        raise ValueError(
            f"{root}: volumes in folders without {FIXED} need the rescale of a metadata table; give "
            "train_metadata.csv or validation_metadata.csv with --metadata, or --intensities hu if they are in HU"
        )
    chosen = _choose(volumes, skipped, options, ledger)
    candidates = [each for volume in chosen if (each := _candidate(volume, reports, labels, metadata, options, ledger))]
    _missing_scans(reports, volumes, ledger)
    raw, share = sum(bool(candidate.stored) for candidate in candidates), f"{options.dev_share:g} (seed {options.seed})"
    origin = {
        "licence": "CT-RATE, CC BY-NC-SA 4.0: not for commercial use, share alike, name the source",
        "tables": ", ".join(path.name for purpose in found for path in found[purpose]) or "none",
        "intensities": f"{raw} volumes rescaled by the metadata table, {len(candidates) - raw} already in HU",
        "reconstructions": options.reconstructions,
        "labels": "CT-RATE's table, extracted from the reports by a text classifier",
        "splits": f"test: the publisher's validation; validation: {share} of the training patients",
    }
    return Source(root, "CT-RATE", "Chest CT with reports and 18 findings (CT-RATE).", origin, candidates, ledger)


def _usual(files: Sequence[Path], purpose: str) -> list[Path]:
    folder, ending = _TABLE_PLACES[purpose]
    return [path for path in files if path.parent.name == folder and path.name.endswith(ending)]


def _volumes(files: Sequence[Path], options: CtRateOptions, ledger: Ledger) -> list[_Volume]:
    """Each volume once: that of version 2 if there are both; none if a version has two files of one name."""
    by_name: dict[VolumeName, list[_Volume]] = {}
    for path in files:
        is_mask = any(part in MASK_FOLDERS for part in path.parent.parts)
        if not path.name.endswith(SUFFIX) or path.name.startswith(".") or is_mask:
            continue
        if (name := volume_name(path.name)) is None:
            ledger.notice(0, path.name, "not a volume of CT-RATE", "it is not used")
            continue
        fixed = any(part.endswith(FIXED) for part in path.parent.parts)
        raw = options.intensities == "raw" or (options.intensities == "folder" and not fixed)
        by_name.setdefault(name, []).append(_Volume(name, path, raw))
    volumes = []
    for name, same in sorted(by_name.items()):
        best = [volume for volume in same if not volume.raw] or same
        if len(best) > 1:
            folders = ", ".join(str(volume.path.parent) for volume in best)
            ledger.drop(0, name.volume, "two scans of one name", f"in {folders}: remove all but one")
            continue
        if len(same) > 1:
            ledger.notice(0, name.volume, "raw and fixed volume", "the one in HU is used")
        volumes.append(best[0])
    return volumes


def _index(paths: Sequence[Path], columns: Sequence[str]) -> _Tables:
    rows: dict[str, tuple[Table, Row]] = {}
    conflicts: set[str] = set()
    for path in paths:
        table = read_table(path)
        for column in (NAME_COLUMN, *columns):
            table.column(column, "CT-RATE")
        for row in table.rows:
            name = bare_name(row.values[NAME_COLUMN])
            known = rows.setdefault(name, (table, row))
            if any(known[1].values.get(column) != row.values[column] for column in columns):
                conflicts.add(name)
    return _Tables(rows, conflicts)


def _choose(
    volumes: Sequence[_Volume], skipped: Mapping[str, str], options: CtRateOptions, ledger: Ledger
) -> list[_Volume]:
    """The volumes that are not skipped; only the first of each examination if so requested."""
    chosen: list[_Volume] = []
    seen: set[str] = set()
    for volume in sorted(volumes):
        if reason := skip_reason(volume.name, skipped):
            ledger.drop(0, volume.name.volume, reason, "left out by its name")
        elif options.reconstructions == "first" and volume.name.examination in seen:
            ledger.drop(0, volume.name.volume, "further reconstruction", "the first of the examination is used")
        else:
            seen.add(volume.name.examination)
            chosen.append(volume)
    return chosen


def _candidate(
    volume: _Volume, reports: _Tables, labels: _Tables, metadata: _Tables, options: CtRateOptions, ledger: Ledger
) -> Candidate | None:
    """The study of a volume; None if it cannot be converted to HU, or its rows contradict each other."""
    name = volume.name
    report = _report(name, reports)
    line = report.line if report else 0
    for known, what in ((reports, "reports"), (labels, "labels"), (metadata, "metadata")):
        if known.conflicts & {name.volume, name.examination}:
            ledger.drop(line, name.volume, "rows that contradict each other", f"two rows of the {what} differ")
            return None
    candidate = Candidate(line, name.volume, name.patient, volume.path, examination=name.examination)
    shares = (1 - options.dev_share, options.dev_share, 0.0)
    candidate.split = "test" if name.split == "valid" else draw_split(name.patient, shares, options.seed)
    table, row = metadata.rows.get(name.volume, (None, None))
    candidate.grid = grid_of(row) if row else None
    if volume.raw:
        if row is None or table is None:
            ledger.drop(line, name.volume, "no row of metadata", "a raw volume cannot be rescaled without it")
            return None
        try:
            candidate.stored = stored_of(row, options.geometry == "table").record()
        except ValueError as error:
            ledger.drop(row.line, name.volume, "invalid metadata", f"{table.path.name}: {error}")
            return None
    if name.volume in labels.rows:
        candidate.labels = read_labels(*labels.rows[name.volume], {finding: finding for finding in FINDING_NAMES})
    elif labels.rows:
        ledger.notice(line, name.volume, "no labels", "the study is kept without labels")
    if report is not None:
        candidate.findings, candidate.impression = (text_of(report.values[column]) for column in REPORT_COLUMNS)
    if not candidate.findings and not candidate.impression:
        ledger.notice(line, name.volume, "no report", "the study is kept without text")
    return candidate


def _report(name: VolumeName, reports: _Tables) -> Row | None:
    """The row of the volume, else of its examination, else of another reconstruction; None without one."""
    names = [name.volume, name.examination, *(f"{name.examination}_{number}" for number in range(1, 10))]
    return next((reports.rows[each][1] for each in names if each in reports.rows), None)


def _missing_scans(reports: _Tables, volumes: Sequence[_Volume], ledger: Ledger) -> None:
    """Put reports without a scan into the ledger; only their number for a split without any scan."""
    there = {volume.name.examination for volume in volumes}
    splits = {volume.name.split for volume in volumes}
    absent: Counter[str] = Counter()
    for name, (table, row) in reports.rows.items():
        examination = examination_of(name)
        if not examination:
            expected = f"{table.path.name}: expected a name such as train_1_a_1"
            ledger.drop(row.line, name, "not a name of CT-RATE", expected)
        elif examination not in there:
            if (split := examination.split("_")[0]) in splits:
                ledger.drop(row.line, name, "no such scan", f"{table.path.name}: no volume of this examination")
            else:
                absent[split] += 1
    for split, count in absent.items():
        ledger.notice(0, split, "no volume of a split", f"{count} reports of {split} are not used")
