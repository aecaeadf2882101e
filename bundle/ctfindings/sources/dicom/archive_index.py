"""Which study each file of a DICOM archive belongs to: headers of files and of zips in any layout, read in processes."""

from __future__ import annotations

import io
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pydicom

from bundle.ctfindings.files.folders import files_below
from bundle.ctfindings.files.parallel_map import parallel_map
from bundle.ctfindings.scan.dicom_header import DamagedHeader, read_header

FILES_OF_A_TASK = 500
_TAGS = ["StudyInstanceUID", "AccessionNumber", "PatientID", "Modality"]


class ArchiveFile(NamedTuple):
    """A file, or a member of a zip; ``member`` is empty for a file."""

    path: Path
    member: str


@dataclass
class ArchiveStudy:
    """The files of one StudyInstanceUID, and what joins it with other tables. All of it identifies the patient.

    Attributes:
        uid: StudyInstanceUID; of files without one, "folder" and the folder or zip they lie in.
        accessions: accession numbers in its headers; one, if all is well.
        patients: patient ids in its headers; the same.
        folders: names of the folders and zips it lies in, without paths.
        files: all of them, also those that are no CT.
    """

    uid: str
    accessions: set[str] = field(default_factory=set)
    patients: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    files: list[ArchiveFile] = field(default_factory=list)


class _Header(NamedTuple):
    file: ArchiveFile
    uid: str
    accession: str
    patient: str


class Index(NamedTuple):
    """The studies of an archive.

    Attributes:
        studies: by StudyInstanceUID.
        files: how many were DICOM that can be read.
        others: how many were none.
        zips: how many zips could not be opened.
        damaged: DICOM whose header cannot be read, with the kind of error. The name of a file may identify the patient.
    """

    studies: dict[str, ArchiveStudy]
    files: int
    others: int
    zips: int
    damaged: dict[ArchiveFile, str]


class _Part(NamedTuple):
    """What some files or one zip hold, as in ``Index``."""

    headers: list[_Header]
    damaged: dict[ArchiveFile, str]
    others: int = 0
    zips: int = 0


def index_archive(root: Path, workers: int) -> Iterator[int | Index]:
    """Reads all headers. Yields the number of files of each finished part, for a progress bar, and the index last.

    Args:
        root: folder, in any layout; zips in it are looked into.
        workers: processes.
    """
    files = files_below(root)
    loose = [path for path in files if path.suffix.lower() != ".zip"]
    parts = [loose[start : start + FILES_OF_A_TASK] for start in range(0, len(loose), FILES_OF_A_TASK)]
    parts += [[path] for path in files if path.suffix.lower() == ".zip"]
    tasks = {str(number): part for number, part in enumerate(parts)}
    found: dict[str, _Part] = {}
    for outcome in parallel_map(_read_part, tasks, workers, fatal=Exception):
        if outcome.problem:
            raise ValueError(f"{root}: headers cannot be read: {outcome.problem}")
        found[outcome.key] = outcome.result
        yield len(tasks[outcome.key])
    studies: dict[str, ArchiveStudy] = {}
    for key in tasks:  # In the order of the files, whichever part was finished first.
        for header in found[key].headers:
            study = studies.setdefault(header.uid, ArchiveStudy(header.uid))
            study.files.append(header.file)
            study.accessions |= {header.accession} - {""}
            study.patients |= {header.patient} - {""}
            study.folders.add(header.file.path.stem if header.file.member else header.file.path.parent.name)
    results = [found[key] for key in tasks]
    yield Index(
        studies,
        sum(len(part.headers) for part in results),
        sum(part.others for part in results),
        sum(part.zips for part in results),
        {file: problem for part in results for file, problem in part.damaged.items()},
    )


def _read_part(paths: Sequence[Path]) -> _Part:
    headers: list[_Header] = []
    damaged: dict[ArchiveFile, str] = {}
    others = zips = 0

    def add(source: Path | io.BytesIO, file: ArchiveFile) -> bool:
        """Whether the file is DICOM."""
        try:
            identity = read_header(source, _TAGS, _identity)
        except DamagedHeader as error:
            damaged[file] = str(error)
            return True
        if identity is None:
            return False
        # Some exports leave the uid out; what lies in one folder or zip is then taken for one study.
        uid = identity[0] or f"folder {file.path if file.member else file.path.parent}"
        headers.append(_Header(file, uid, *identity[1:]))
        return True

    for path in paths:
        if path.suffix.lower() != ".zip":
            others += not add(path, ArchiveFile(path, ""))
            continue
        try:
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    if not member.is_dir() and "__MACOSX" not in member.filename:
                        others += not add(io.BytesIO(archive.read(member)), ArchiveFile(path, member.filename))
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError, zlib.error):
            zips += 1
    return _Part(headers, damaged, others, zips)


def _identity(header: pydicom.Dataset) -> tuple[str, str, str] | None:
    """Study, accession number and patient; None for a DICOMDIR, which has no modality."""
    if not header.get("Modality"):
        return None
    study, accession, patient = (
        str(header.get(tag) or "").strip() for tag in ("StudyInstanceUID", "AccessionNumber", "PatientID")
    )
    return study, accession, patient


@contextmanager
def unpacked(files: Sequence[ArchiveFile]) -> Iterator[list[Path]]:
    """The files as paths; members of zips under names of our own in a temporary folder, so that no name can point out
    of it.
    """
    with tempfile.TemporaryDirectory(prefix="ctfindings_") as folder:
        paths: list[Path] = []
        by_zip: dict[Path, list[str]] = {}
        for file in files:
            if file.member:
                by_zip.setdefault(file.path, []).append(file.member)
            else:
                paths.append(file.path)
        for path, members in by_zip.items():
            with zipfile.ZipFile(path) as archive:
                for member in members:
                    target = Path(folder) / f"{len(paths):06d}"
                    with archive.open(member) as packed, target.open("wb") as plain:
                        shutil.copyfileobj(packed, plain, 1 << 20)
                    paths.append(target)
        yield paths
