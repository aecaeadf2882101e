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
from pydicom.errors import InvalidDicomError

from bundle.ctfindings.data.sources.journal import in_parallel

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
        files: how many were DICOM.
        others: how many were not.
        damaged: zips that could not be opened.
    """

    studies: dict[str, ArchiveStudy]
    files: int
    others: int
    damaged: int


def index_archive(root: Path, workers: int) -> Iterator[int | Index]:
    """Reads all headers. Yields the number of files of each finished part, for a progress bar, and the index last.

    Args:
        root: folder, in any layout; zips in it are looked into.
        workers: processes.
    """
    files = sorted(path for path in root.rglob("*") if path.is_file())
    loose = [path for path in files if path.suffix.lower() != ".zip"]
    parts = [loose[start : start + FILES_OF_A_TASK] for start in range(0, len(loose), FILES_OF_A_TASK)]
    parts += [[path] for path in files if path.suffix.lower() == ".zip"]
    tasks = {str(number): part for number, part in enumerate(parts)}
    found: dict[str, tuple[list[_Header], int, int]] = {}
    for key, result in in_parallel(_read_part, tasks, workers):
        found[key] = result
        yield len(tasks[key])
    studies: dict[str, ArchiveStudy] = {}
    for key in tasks:  # In the order of the files, whichever part was finished first.
        for header in found[key][0]:
            study = studies.setdefault(header.uid, ArchiveStudy(header.uid))
            study.files.append(header.file)
            study.accessions |= {header.accession} - {""}
            study.patients |= {header.patient} - {""}
            study.folders.add(header.file.path.stem if header.file.member else header.file.path.parent.name)
    results = list(found.values())
    dicom = sum(len(headers) for headers, _, _ in results)
    yield Index(studies, dicom, sum(others for _, others, _ in results), sum(damaged for _, _, damaged in results))


def _read_part(paths: Sequence[Path]) -> tuple[list[_Header], int, int]:
    headers: list[_Header] = []
    others = damaged = 0
    for path in paths:
        if path.suffix.lower() != ".zip":
            header = _read_header(path, ArchiveFile(path, ""))
            headers += [header] if header else []
            others += int(header is None)
            continue
        try:
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    if not member.is_dir() and "__MACOSX" not in member.filename:
                        header = _read_header(io.BytesIO(archive.read(member)), ArchiveFile(path, member.filename))
                        headers += [header] if header else []
                        others += int(header is None)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError, zlib.error):
            damaged += 1
    return headers, others, damaged


def _read_header(source: Path | io.BytesIO, file: ArchiveFile) -> _Header | None:
    """What a file says of its study; None when it is no DICOM, or says nothing of it."""
    try:
        header = pydicom.dcmread(source, stop_before_pixels=True, specific_tags=_TAGS)
    except (InvalidDicomError, EOFError, OSError):
        return None
    if not header.get("Modality"):
        return None  # DICOMDIR has none.
    # Some exports leave the uid out; what lies in one folder or zip is then taken for one study.
    uid = str(header.get("StudyInstanceUID") or f"folder {file.path if file.member else file.path.parent}")
    return _Header(file, uid, str(header.get("AccessionNumber") or "").strip(), str(header.get("PatientID") or "").strip())


@contextmanager
def unpacked(files: Sequence[ArchiveFile]) -> Iterator[list[Path]]:
    """The files as paths; members of zips under names of our own in a temporary folder, so that no name can point out of it."""
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
