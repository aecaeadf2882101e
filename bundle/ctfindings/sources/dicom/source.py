"""An archive of DICOM and a table of reports: studies joined with their rows, identified by salted hashes only, and
converted.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
import secrets
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from tqdm import tqdm

from bundle.ctfindings.files.atomic_write import atomic_path
from bundle.ctfindings.files.csv_table import Row, Table, read_table
from bundle.ctfindings.files.folders import files_below
from bundle.ctfindings.files.journal import resume
from bundle.ctfindings.sources.dicom.archive_index import ArchiveStudy, Index, index_archive
from bundle.ctfindings.sources.dicom.convert import Conversion, convert, signature
from bundle.ctfindings.sources.preparation.candidate import Candidate
from bundle.ctfindings.sources.preparation.columns import ColumnMapping, load_mapping, map_columns
from bundle.ctfindings.sources.preparation.ledger import Ledger
from bundle.ctfindings.sources.preparation.make_datalist import Source
from bundle.ctfindings.sources.preparation.table_row import fill_from_row

SALT, SCANS, JOURNAL = "salt.txt", "scans", "conversions.jsonl"
DAMAGED = "DICOM files with a damaged header"
Join = Literal["accession", "study", "patient", "folder"]


class Options(NamedTuple):
    """What the user decides.

    Attributes:
        reports: table of reports, labels and splits; None without one.
        mapping: JSON file of columns, see ``load_mapping``; None without one.
        columns: column by field; "id" is the one that joins.
        join: what "id" is compared with; None tries accession number, then StudyInstanceUID, then the name of the
            folder or zip.
        salt: file with the secret of the hashes; None keeps one in the output folder, made when missing.
        key: file that will join hashes with the numbers of the source; None, the default, writes none.
    """

    reports: Path | None = None
    mapping: Path | None = None
    columns: Mapping[str, str] = {}
    join: Join | None = None
    salt: Path | None = None
    key: Path | None = None


class _Reports(NamedTuple):
    table: Table
    mapping: ColumnMapping


def read_source(root: Path, options: Options, output: Path, workers: int) -> Source:
    """Indexes an archive, joins the reports and converts each study.

    Args:
        root: folder of DICOM, in any layout, with zips or without.
        output: gets ``scans/ID.nii.gz``, and ``salt.txt`` unless the options name another.
        workers: processes.

    Raises:
        ValueError: when the folder, table, column or salt cannot be used, or there is no study.
        OSError: when the disk is full; what was converted stays, and is not converted again.
    """
    if not root.is_dir():
        raise ValueError(f"{root}: there is no such folder; give the folder of the DICOM archive")
    reports = _read_reports(options) if options.reports else None
    index = _index(root, workers)
    if not index.studies:
        raise ValueError(f"{root}: holds no DICOM study; give the folder of the DICOM archive")
    salt = _salt(options.salt or output / SALT)
    ids = {uid: _hashed(salt, "study", uid, "s") for uid in index.studies}
    if options.key is not None:
        _write_key(options.key, index, ids)
    ledger = Ledger()
    for count, reason in ((index.others, "files that are no DICOM"), (index.zips, "zips that cannot be opened")):
        if count:
            ledger.notice(0, "", reason, f"{count} of them; they are not used")
    if index.damaged:
        kinds = ", ".join(sorted(set(index.damaged.values())))
        ledger.notice(
            0, "", DAMAGED, f"{len(index.damaged)} of them ({kinds}); they are not used, and --key names them"
        )
    rows = _join(reports, options.join, index, ids, ledger) if reports else {}
    usable = {
        uid: study for uid, study in index.studies.items() if _one_patient(study, ids[uid], rows.get(uid), ledger)
    }
    converted = _convert(usable, ids, output, workers)
    candidates = []
    for uid, study in usable.items():
        row, result = rows.get(uid), converted[ids[uid]]
        line = row.line if row else 0
        if result["problem"]:
            ledger.drop(line, ids[uid], result["kind"], result["problem"])
            continue
        patient = _hashed(salt, "patient", next(iter(study.patients)), "p") if study.patients else ""
        if not patient:
            ledger.notice(line, ids[uid], "no patient id", "the study counts as a patient of its own")
        candidate = Candidate(
            line, ids[uid], patient, (output / SCANS / f"{ids[uid]}.nii.gz").absolute(), warnings=result["warnings"]
        )
        candidate.dicom = sorted({file.path for file in study.files})
        if row and reports:
            _fill(candidate, reports, row, ledger)
        elif reports:
            ledger.notice(0, ids[uid], "no report", "no row of the table belongs to the study; it is kept without text")
        candidates.append(candidate)
    origin = {
        "archive": f"DICOM: {index.files} files of {len(index.studies)} studies",
        "identifiers": "salted hashes; numbers, names and dates of the headers are left out, reports are as they were",
        "reports": f"{len(reports.table.rows)} rows, {len(rows)} joined" if reports else "none",
        "splits": "the table's where it names one, else drawn by patient",
    }
    if reports:
        origin["columns"] = ", ".join(f"{name}: {column}" for name, column in reports.mapping.fields.items())
    return Source(root, "DICOM archive", "", dict(origin), candidates, ledger)


def _read_reports(options: Options) -> _Reports:
    assert options.reports is not None
    table = read_table(options.reports)
    given = (load_mapping(options.mapping) if options.mapping else {}) | dict(options.columns)
    mapping = map_columns(table, given)
    if "id" not in mapping.fields:
        raise ValueError(
            f"{table.path}: no column joins it with the studies; name one with --columns id=... ({', '.join(table.columns)})"
        )
    fields = {
        name: column
        for name, column in mapping.fields.items()
        if name not in ("image", "patient", "anatomy", "finding_masks")
    }
    return _Reports(table, ColumnMapping(fields, mapping.labels))


def _index(root: Path, workers: int) -> Index:
    total = len(files_below(root))
    with tqdm(desc="headers", total=total, unit="", disable=None) as bar:
        for progress in index_archive(root, workers):
            if isinstance(progress, Index):
                return progress
            bar.update(progress)
    raise AssertionError("the index comes last")


def _salt(path: Path) -> bytes:
    """The secret of the hashes: that of the file, or a new one that only its owner may read.

    Raises:
        ValueError: when the file holds fewer than 16 characters.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_text(secrets.token_hex(32) + "\n", encoding="ascii")
    salt = path.read_bytes().strip()
    if len(salt) < 16:
        raise ValueError(
            f"{path}: a salt of at least 16 characters is expected; remove the file, and a new one is made"
        )
    return salt


def _hashed(salt: bytes, what: str, value: str, letter: str) -> str:
    return letter + hmac.new(salt, f"{what}\0{value}".encode(), hashlib.sha256).hexdigest()[:16]


def _names(study: ArchiveStudy, join: Join) -> set[str]:
    """What a row may call a study."""
    return {"accession": study.accessions, "study": {study.uid}, "patient": study.patients, "folder": study.folders}[
        join
    ]


def _join(reports: _Reports, join: Join | None, index: Index, ids: Mapping[str, str], ledger: Ledger) -> dict[str, Row]:
    """The row of each study; rows that belong to none, to several, or to one that has another row go to the ledger by
    line.
    """
    called: dict[str, set[str]] = {}
    for kind in [join] if join else ("folder", "study", "accession"):
        by_name: dict[str, set[str]] = {}
        for uid, study in index.studies.items():
            for name in _names(study, kind):
                by_name.setdefault(name, set()).add(uid)
        called |= by_name  # The accession number is asked first: it comes last.
    column = reports.mapping.fields["id"]
    joined: dict[str, Row] = {}
    matches = [(row, called.get(row.values[column].removesuffix(".zip"), set())) for row in reports.table.rows]
    times = Counter(next(iter(uids)) for _, uids in matches if len(uids) == 1)
    for row, uids in matches:
        if not uids:
            ledger.drop(row.line, "", "no such scan", "no study of the archive has the number in this line")
        elif len(uids) > 1:
            ledger.drop(
                row.line, "", "several studies of one number", f"{len(uids)} studies have the number in this line"
            )
        elif times[next(iter(uids))] > 1:
            ledger.drop(
                row.line,
                ids[next(iter(uids))],
                "study in several rows",
                "which row is right cannot be told; its text is not used",
            )
        else:
            joined[next(iter(uids))] = row
    return joined


def _one_patient(study: ArchiveStudy, identity: str, row: Row | None, ledger: Ledger) -> bool:
    """Whether the study is of one patient; one of two would be in two splits."""
    if len(study.patients) > 1:
        detail = f"its headers have {len(study.patients)} patient ids"
        ledger.drop(row.line if row else 0, identity, "study of two patients", detail)
    return len(study.patients) <= 1


def _convert(
    studies: Mapping[str, ArchiveStudy], ids: Mapping[str, str], output: Path, workers: int
) -> dict[str, dict]:
    folder = output / SCANS
    tasks = {}
    for uid, study in studies.items():
        target = folder / f"{ids[uid]}.nii.gz"
        tasks[ids[uid]] = (signature(study.files), Conversion(ids[uid], study.files, target))

    def holds(key: str, result: Mapping) -> bool:
        return bool(result["problem"]) or (folder / f"{key}.nii.gz").is_file()

    outcomes = resume(convert, tasks, output / JOURNAL, workers, holds=holds, fatal=Exception, progress="studies")
    return {
        outcome.key: outcome.result or {"problem": outcome.problem, "kind": "worker killed", "warnings": []}
        for outcome in outcomes
    }


def _fill(candidate: Candidate, reports: _Reports, row: Row, ledger: Ledger) -> None:
    """Labels, split and texts of a row; names of report files, which may hold numbers, stay out of the ledger."""
    own = Ledger()
    fill_from_row(candidate, reports.table, row, reports.mapping, reports.table.path.resolve().parent, own)
    for entry in own.noticed:
        ledger.notice(
            entry.line,
            entry.id,
            entry.reason,
            "as this line of the table has it" if "file" in entry.reason else entry.detail,
        )


def _write_key(path: Path, index: Index, ids: Mapping[str, str]) -> None:
    """Which study each hash stands for, and which files are damaged; readable by its owner only.

    One that says the same, of a run that was stopped, is left.

    Raises:
        ValueError: when there is another file.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["id", "StudyInstanceUID", "AccessionNumber", "PatientID", "folder"])
    for uid, study in sorted(index.studies.items()):
        writer.writerow(
            [ids[uid], uid, *(" ".join(sorted(names)) for names in (study.accessions, study.patients, study.folders))]
        )
    writer.writerows([DAMAGED, "", "", "", str(file.path / file.member)] for file in sorted(index.damaged))
    content = text.getvalue().encode()
    if path.exists():
        if path.read_bytes() != content:
            raise ValueError(f"{path}: exists already and says otherwise; choose another --key or remove it")
        return
    with atomic_path(path) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_bytes(content)
