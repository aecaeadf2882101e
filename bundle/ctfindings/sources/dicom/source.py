"""A DICOM archive and a table of reports as a source: studies are joined with rows, de-identified and converted."""

import csv
import hashlib
import hmac
import io
import secrets
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from bundle.ctfindings.files.atomic_write import atomic_path
from bundle.ctfindings.files.csv_table import Row, read_table
from bundle.ctfindings.files.journal import resume
from bundle.ctfindings.sources.dicom.archive_index import ArchiveStudy, Index, index_archive
from bundle.ctfindings.sources.dicom.convert import Conversion, convert, signature
from bundle.ctfindings.sources.preparation.columns import ColumnMapping, fill_from_row, map_columns
from bundle.ctfindings.sources.preparation.source import Candidate, Ledger, Source

SALT, JOURNAL = "salt.txt", "conversions.jsonl"
DAMAGED = "files that cannot be opened, or DICOM files with a damaged header"
REPORT_FIELDS = ("id", "findings", "impression", "report", "report_file", "split")
"""Fields of a table that describe a study; the archive itself gives the others."""
Join = Literal["accession", "study", "patient", "folder"]


class ArchiveOptions(NamedTuple):
    """How an archive is joined and de-identified.

    Attributes:
        reports: table of reports, labels and splits; None without one.
        columns: column by field; the column of "id" joins the table with the studies.
        join: what "id" contains; None tries accession number, StudyInstanceUID and name of the folder or zip.
        salt: file with the secret of the hashes; None keeps one in the output folder.
        key: file to write that assigns the hashes to the identifiers of the archive; None writes none.
    """

    reports: Path | None = None
    columns: Mapping[str, str] = {}
    join: Join | None = None
    salt: Path | None = None
    key: Path | None = None


def read_source(root: Path, options: ArchiveOptions, output: Path, workers: int) -> Source:
    """Index an archive, join the reports and convert each study.

    Args:
        root: folder with DICOM files and zips in any layout.
        output: folder for ``scans/ID.nii.gz``, and for ``salt.txt`` unless the options name another.

    Raises:
        ValueError: if the folder, table, column or salt cannot be used, or there is no study.
        OSError: if the disk is full; converted studies are kept and not converted again.
    """
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; give the folder of the DICOM archive")
    reports = _read_reports(options.reports, options.columns) if options.reports else None
    index = index_archive(root, workers)
    if not index.studies:
        raise ValueError(f"{root}: contains no DICOM study; give the folder of the DICOM archive")
    salt = _salt(options.salt or output / SALT)
    ids = {uid: _hashed(salt, "study", uid, "s") for uid in index.studies}
    if options.key is not None:
        _write_key(options.key, index, ids)
    ledger = Ledger()
    if index.others:
        ledger.notice(0, "", "files that are not DICOM", f"{index.others} files; they are not used")
    if index.bad_zips:
        kinds = ", ".join(sorted(set(index.bad_zips)))
        ledger.notice(0, "", "zips that cannot be opened", f"{len(index.bad_zips)} zips ({kinds}); they are not used")
    if index.damaged:
        kinds = ", ".join(sorted(set(index.damaged.values())))
        ledger.notice(0, "", DAMAGED, f"{len(index.damaged)} files ({kinds}); they are not used. --key lists them")
    rows = _join(reports, options.join, index, ids, ledger) if reports else {}
    lines = {uid: rows[uid].line if uid in rows else 0 for uid in index.studies}
    for uid, study in index.studies.items():
        if len(study.patients) > 1:  # It could be in two splits.
            detail = f"its headers have {len(study.patients)} patient ids"
            ledger.drop(lines[uid], ids[uid], "study of two patients", detail)
    usable = {uid: study for uid, study in index.studies.items() if len(study.patients) <= 1}
    converted = _convert(usable, ids, output, workers)
    candidates = []
    for uid, study in usable.items():
        row, line, result = rows.get(uid), lines[uid], converted[ids[uid]]
        if result["problem"]:
            ledger.drop(line, ids[uid], result["kind"], result["problem"])
            continue
        patient = _hashed(salt, "patient", next(iter(study.patients)), "p") if study.patients else ""
        if not patient:
            ledger.notice(line, ids[uid], "no patient id", "the study counts as its own patient")
        image = _target(output, ids[uid]).absolute()
        candidate = Candidate(line, ids[uid], patient, image, warnings=result["warnings"])
        candidate.dicom = study.files
        if row and reports:
            _fill(candidate, reports, row, ledger)
        elif reports:
            ledger.notice(0, ids[uid], "no report", "no row of the table matches the study; it is kept without text")
        candidates.append(candidate)
    origin = {
        "archive": f"DICOM: {index.files} files of {len(index.studies)} studies",
        "identifiers": "salted hashes without numbers, names and dates of the headers; reports are unchanged",
        "reports": f"{len(reports.table.rows)} rows, {len(rows)} joined" if reports else "none",
        "splits": "from the table if given, else drawn by patient",
    }
    if reports:
        origin["columns"] = ", ".join(f"{name}: {column}" for name, column in reports.fields.items())
    return Source(root, "DICOM archive", "", dict(origin), candidates, ledger)


def _read_reports(path: Path, given: Mapping[str, str]) -> ColumnMapping:
    table = read_table(path)
    mapping = map_columns(table, given)
    if "id" not in mapping.fields:
        columns = ", ".join(table.columns)
        raise ValueError(
            f"{table.path}: no column joins it with the studies; give one with --columns id=... ({columns})"
        )
    fields = {name: column for name, column in mapping.fields.items() if name in REPORT_FIELDS}
    return mapping._replace(fields=fields)


def _salt(path: Path) -> bytes:
    """The secret of the hashes from a file, which is created for its owner alone if missing."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_text(secrets.token_hex(32) + "\n", encoding="ascii")
    salt = path.read_bytes().strip()
    if len(salt) < 16:
        raise ValueError(
            f"{path}: expected a salt of at least 16 characters, found {len(salt)}; remove it for a new one"
        )
    return salt


def _hashed(salt: bytes, what: str, value: str, letter: str) -> str:
    return letter + hmac.new(salt, f"{what}\0{value}".encode(), hashlib.sha256).hexdigest()[:16]


def _join(
    reports: ColumnMapping, join: Join | None, index: Index, ids: Mapping[str, str], ledger: Ledger
) -> dict[str, Row]:
    """The row of each study. The ledger gets rows that match no study, several, or one with another row."""
    called: dict[str, set[str]] = {}
    for kind in [join] if join else ("folder", "study", "accession"):
        by_name: dict[str, set[str]] = {}
        for uid, study in index.studies.items():
            names = {"accession": study.accessions, "study": {uid}, "patient": study.patients, "folder": study.folders}
            for name in names[kind]:
                by_name.setdefault(name, set()).add(uid)
        called |= by_name  # The accession number takes precedence: it comes last.
    column = reports.fields["id"]
    joined: dict[str, Row] = {}
    matches = [(row, called.get(row.values[column].removesuffix(".zip"), set())) for row in reports.table.rows]
    times = Counter(next(iter(uids)) for _, uids in matches if len(uids) == 1)
    for row, uids in matches:
        uid = next(iter(uids), "")
        if not uids:
            ledger.drop(row.line, "", "no such scan", "no study of the archive has the number in this line")
        elif len(uids) > 1:
            detail = f"{len(uids)} studies have the number in this line"
            ledger.drop(row.line, "", "several studies of one number", detail)
        elif times[uid] > 1:
            ledger.drop(row.line, ids[uid], "study in several rows", "nothing tells which row is right; none is used")
        else:
            joined[uid] = row
    return joined


def _target(output: Path, identity: str) -> Path:
    return output / "scans" / f"{identity}.nii.gz"


def _convert(
    studies: Mapping[str, ArchiveStudy], ids: Mapping[str, str], output: Path, workers: int
) -> dict[str, dict]:
    tasks = {
        ids[uid]: (signature(study.files), Conversion(ids[uid], study.files, _target(output, ids[uid])))
        for uid, study in studies.items()
    }

    def holds(key: str, result: Mapping) -> bool:
        return bool(result["problem"]) or _target(output, key).is_file()

    outcomes = resume(convert, tasks, output / JOURNAL, workers, holds=holds, fatal=Exception, progress="studies")
    return {
        outcome.key: outcome.result or {"problem": outcome.problem, "kind": "worker killed", "warnings": []}
        for outcome in outcomes
    }


def _fill(candidate: Candidate, reports: ColumnMapping, row: Row, ledger: Ledger) -> None:
    """Labels, split and texts of a row. The ledger gets no names of report files: they may identify the patient."""
    own = Ledger()
    fill_from_row(candidate, row, reports, reports.table.path.resolve().parent, own)
    for entry in own.flagged:
        detail = "see this line of the table" if "file" in entry.reason else entry.detail
        ledger.notice(entry.line, entry.id, entry.reason, detail)


def _write_key(path: Path, index: Index, ids: Mapping[str, str]) -> None:
    """Write the study of each hash, and the damaged files, for the owner of the file alone."""
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
        if path.read_bytes() == content:  # From a run that was stopped.
            return
        raise ValueError(f"{path}: exists already with other content; choose another --key or remove it")
    with atomic_path(path) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_bytes(content)
