"""CT-RATE, version 1 and 2: volumes by their names, reports, labels and metadata from its tables, HU exactly once."""

from __future__ import annotations

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
from bundle.ctfindings.sources.preparation.candidate import Candidate
from bundle.ctfindings.sources.preparation.ledger import Ledger
from bundle.ctfindings.sources.preparation.make_datalist import Source
from bundle.ctfindings.sources.preparation.splits import draw_split
from bundle.ctfindings.sources.preparation.table_row import read_labels, text_of

LICENCE = "CT-RATE, CC BY-NC-SA 4.0: not for commercial use, share alike, name the source"
NAME_COLUMN = "VolumeName"
MASK_FOLDERS = ("ts_seg", "ts_total")
"""Segmentations that lie beside the volumes under the same file names."""

_TABLE_PLACES = {
    "reports": ("radiology_text_reports", "_reports.csv"),
    "labels": ("multi_abnormality_labels", "_labels.csv"),
    "metadata": ("metadata", "_metadata.csv"),
    "skip": ("metadata", ".txt"),
}


class Choices(NamedTuple):
    """What the user decides.

    Attributes:
        intensities: "raw" when volumes still need the rescale of the metadata table, "hu" when not; "folder" tells by
            the name of the
            folder: those of version 2 end with ``_fixed``.
        geometry: of raw volumes: "table" or "file".
        reconstructions: "all" volumes of an examination, or the "first".
        dev_share: share of the training patients that become the validation split; the publisher's validation patients
            are the test split.
        seed: of that draw.
    """

    intensities: Literal["folder", "raw", "hu"] = "folder"
    geometry: Literal["table", "file"] = "table"
    reconstructions: Literal["all", "first"] = "all"
    dev_share: float = 0.05
    seed: int = 0


class _Volume(NamedTuple):
    """A file of a volume, and whether it needs the rescale of the table."""

    name: VolumeName
    path: Path
    raw: bool


class _Tables(NamedTuple):
    """Rows of tables of one purpose by volume or examination, and the names whose rows contradict each other."""

    rows: dict[str, tuple[Table, Row]]
    conflicts: set[str]


def read_source(root: Path, tables: Mapping[str, Sequence[Path]], choices: Choices) -> Source:
    """The volumes below a folder with their reports, labels and rescale.

    Args:
        root: the download, as its folders are (``dataset/train``, ``dataset/metadata``, ...), or any folder with the
            volumes in it.
        tables: files of "reports", "labels", "metadata" and "skip"; those that are not given are looked for at their
            usual place.
        choices: see there.

    Raises:
        ValueError: when the folder or a table is missing or cannot be read, there is no volume, raw ones have no
            metadata, or the share is no share.
    """
    if not root.is_dir():
        raise ValueError(f"{root}: there is no such folder; give the folder of CT-RATE")
    if not 0 <= choices.dev_share < 1:
        raise ValueError(f"--dev-share {choices.dev_share:g} is no share; give a number from 0 to below 1")
    ledger = Ledger()
    # Links to files, as a hub's cache has them, keep their names.
    files = files_below(root.absolute())
    volumes = _volumes(files, choices, ledger)
    if not volumes:
        raise ValueError(f"{root}: holds no volume such as train_1_a_1.nii.gz; give the folder of CT-RATE")
    found = {purpose: list(tables.get(purpose) or _usual(files, purpose)) for purpose in _TABLE_PLACES}
    skipped = dict(KNOWN_BROKEN)
    for path in found["skip"]:
        skipped |= read_skip_list(path)
    reports = _index(found["reports"], ("Findings_EN", "Impressions_EN"))
    labels = _index(found["labels"], FINDING_NAMES)
    metadata = _index(found["metadata"], COLUMNS)
    if not metadata.rows and any(volume.raw for volume in volumes):
        raise ValueError(
            f"{root}: volumes in folders without {FIXED} need the rescale of the metadata table, and there is none; give "
            "train_metadata.csv or validation_metadata.csv with --metadata, or say --intensities hu when they are in HU"
        )
    chosen = _choose(volumes, skipped, choices, ledger)
    candidates = [each for volume in chosen if (each := _candidate(volume, reports, labels, metadata, choices, ledger))]
    _missing_scans(reports, volumes, ledger)
    raw = sum(bool(candidate.stored) for candidate in candidates)
    origin = {
        "licence": LICENCE,
        "tables": ", ".join(path.name for purpose in found for path in found[purpose]) or "none",
        "intensities": f"{raw} volumes rescaled by the metadata table, {len(candidates) - raw} in HU as they are",
        "reconstructions": choices.reconstructions,
        "labels": "CT-RATE's table, read from the reports by a text classifier",
        "splits": f"test: the publisher's validation; validation: {choices.dev_share:g} of the training patients, seed {choices.seed}",
    }
    return Source(root, "CT-RATE", "Chest CT with reports and 18 findings (CT-RATE).", origin, candidates, ledger)


def _usual(files: Sequence[Path], purpose: str) -> list[Path]:
    folder, ending = _TABLE_PLACES[purpose]
    return [path for path in files if path.parent.name == folder and path.name.endswith(ending)]


def _volumes(files: Sequence[Path], choices: Choices, ledger: Ledger) -> list[_Volume]:
    """The volumes, each once: that of version 2 where both are there, and none where a version has two files of a name."""
    by_name: dict[VolumeName, list[_Volume]] = {}
    for path in files:
        is_mask = any(part in MASK_FOLDERS for part in path.parent.parts)
        if path.name.endswith(SUFFIX) and not path.name.startswith(".") and not is_mask:
            name = volume_name(path.name)
            if name is None:
                ledger.notice(0, path.name, "no volume of CT-RATE", "it is not used")
                continue
            fixed = any(part.endswith(FIXED) for part in path.parent.parts)
            raw = choices.intensities == "raw" or (choices.intensities == "folder" and not fixed)
            by_name.setdefault(name, []).append(_Volume(name, path, raw))
    volumes = []
    for name, same in sorted(by_name.items()):
        in_hu = [volume for volume in same if not volume.raw]
        best = in_hu or same
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


def _choose(volumes: Sequence[_Volume], skipped: Mapping[str, str], choices: Choices, ledger: Ledger) -> list[_Volume]:
    """Without those on a list, and one of each examination where only the first is asked for."""
    chosen: list[_Volume] = []
    seen: set[str] = set()
    for volume in sorted(volumes):
        if reason := skip_reason(volume.name, skipped):
            ledger.drop(0, volume.name.volume, reason, "left out by its name")
        elif choices.reconstructions == "first" and volume.name.examination in seen:
            ledger.drop(0, volume.name.volume, "further reconstruction", "the first of the examination is used")
        else:
            seen.add(volume.name.examination)
            chosen.append(volume)
    return chosen


def _candidate(
    volume: _Volume, reports: _Tables, labels: _Tables, metadata: _Tables, choices: Choices, ledger: Ledger
) -> Candidate | None:
    """The study of a volume; None when it cannot be brought to HU, or its rows contradict each other."""
    name = volume.name
    report = _report(name, reports)
    line = report.line if report else 0
    for known, what in ((reports, "reports"), (labels, "labels"), (metadata, "metadata")):
        if known.conflicts & {name.volume, name.examination}:
            ledger.drop(line, name.volume, "rows that contradict each other", f"two rows of the {what} differ")
            return None
    candidate = Candidate(line, name.volume, name.patient, volume.path, examination=name.examination)
    shares = (1 - choices.dev_share, choices.dev_share, 0.0)
    candidate.split = "test" if name.split == "valid" else draw_split(name.patient, shares, choices.seed)
    row = metadata.rows.get(name.volume)
    if row is not None:
        candidate.grid = grid_of(row[1])
    if volume.raw:
        if row is None:
            ledger.drop(line, name.volume, "no row of metadata", "a raw volume cannot be rescaled without it")
            return None
        try:
            candidate.stored = stored_of(row[1], choices.geometry == "table").record()
        except ValueError as error:
            ledger.drop(row[1].line, name.volume, "metadata that cannot be read", f"{row[0].path.name}: {error}")
            return None
    if name.volume in labels.rows:
        candidate.labels = read_labels(*labels.rows[name.volume], {finding: finding for finding in FINDING_NAMES})
    elif labels.rows:
        ledger.notice(line, name.volume, "no labels", "the study is kept without labels")
    if report is not None:
        candidate.findings, candidate.impression = (
            text_of(report.values[column]) for column in ("Findings_EN", "Impressions_EN")
        )
    if not candidate.findings and not candidate.impression:
        ledger.notice(line, name.volume, "no report", "the study is kept without text")
    return candidate


def _report(name: VolumeName, reports: _Tables) -> Row | None:
    """The row of the volume, of its examination, or of another reconstruction; None without one."""
    names = [name.volume, name.examination, *(f"{name.examination}_{number}" for number in range(1, 10))]
    return next((reports.rows[each][1] for each in names if each in reports.rows), None)


def _missing_scans(reports: _Tables, volumes: Sequence[_Volume], ledger: Ledger) -> None:
    """Reports without a scan, by row; of a split of which no scan was downloaded, only how many there are."""
    there = {volume.name.examination for volume in volumes}
    splits = {volume.name.split for volume in volumes}
    absent: dict[str, int] = {}
    for name, (table, row) in reports.rows.items():
        examination = examination_of(name)
        if not examination:
            ledger.drop(
                row.line, name, "no name of CT-RATE", f"{table.path.name}: a name such as train_1_a_1 is expected"
            )
        elif examination not in there:
            if (split := examination.split("_")[0]) in splits:
                ledger.drop(
                    row.line, name, "no such scan", f"{table.path.name}: there is no volume of this examination"
                )
            else:
                absent[split] = absent.get(split, 0) + 1
    for split, count in absent.items():
        ledger.notice(0, split, "no volume of a split", f"{count} reports of {split} are not used")
