"""Groups the files of a DICOM archive by study: headers of files and zips in any layout, read in parallel."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pydicom

from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.files.folders import files_below
from bundle.ctfindings.files.parallel_map import parallel_map
from bundle.ctfindings.files.progress import progress_bar
from bundle.ctfindings.scan.dicom_headers import DicomFile, Header, read_headers

FILES_PER_TASK = 500
_TAGS = ["StudyInstanceUID", "AccessionNumber", "PatientID", "Modality"]


@dataclass
class ArchiveStudy:
    """The files of one study and the identifiers that join it with a table. All of them identify the patient.

    ``uid`` is the StudyInstanceUID; for files without one, "folder" and their folder or zip. A study normally has one
    accession number and one patient id. ``folders`` are names without paths; ``files`` include those that are not CT.
    """

    uid: str
    accessions: set[str] = field(default_factory=set)
    patients: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    files: list[DicomFile] = field(default_factory=list)


class Index(NamedTuple):
    """The studies of an archive.

    Attributes:
        studies: by StudyInstanceUID.
        files, others: numbers of readable DICOM files and of readable files that are not DICOM.
        bad_zips: for each zip that cannot be opened, the problem in a few words.
        damaged: kind of error by file that has a damaged header or cannot be opened. The name of a file may identify
            the patient.
    """

    studies: dict[str, ArchiveStudy]
    files: int
    others: int
    bad_zips: list[str]
    damaged: dict[DicomFile, str]


def index_archive(root: Path, workers: int) -> Index:
    """Read all headers in a folder with DICOM files and zips in any layout, in ``workers`` processes."""
    files = files_below(root)
    loose = [path for path in files if path.suffix.lower() != ".zip"]
    parts = [loose[start : start + FILES_PER_TASK] for start in range(0, len(loose), FILES_PER_TASK)]
    parts += [[path] for path in files if path.suffix.lower() == ".zip"]
    tasks = {str(number): part for number, part in enumerate(parts)}
    found: dict[str, tuple[list[Header[tuple[str, str, str]]], str]] = {}
    with progress_bar(label="headers", total=len(files), unit="") as bar:
        for outcome in parallel_map(_read_part, tasks, workers, fatal=Exception):
            if outcome.problem:
                raise ValueError(f"{root}: headers cannot be read: {outcome.problem}")
            found[outcome.key] = outcome.result
            bar.update(len(tasks[outcome.key]))
    parts_in_order = [found[key] for key in tasks]
    headers = [header for part, _ in parts_in_order for header in part]
    studies: dict[str, ArchiveStudy] = {}
    for file, identity, _ in headers:
        if identity is not None:
            # Some exports omit the UID; the files of one folder or zip are then one study.
            uid = identity[0] or f"folder {file.path if file.member else file.path.parent}"
            study = studies.setdefault(uid, ArchiveStudy(uid))
            study.files.append(file)
            study.accessions |= {identity[1]} - {""}
            study.patients |= {identity[2]} - {""}
            study.folders.add(file.path.stem if file.member else file.path.parent.name)
    damaged = {file: damage for file, _, damage in headers if damage}
    used = sum(len(study.files) for study in studies.values())
    bad_zips = [problem for _, problem in parts_in_order if problem]
    return Index(studies, used, len(headers) - used - len(damaged), bad_zips, damaged)


def _read_part(paths: Sequence[Path]) -> tuple[list[Header[tuple[str, str, str]]], str]:
    """What ``_identity`` found in some files, or in one zip, and the problem if that cannot be read to its end."""
    found = []
    try:
        for header in read_headers(paths, _TAGS, _identity):
            found.append(header)
    except ScanError as error:
        return found, error.code
    return found, ""


def _identity(header: pydicom.Dataset) -> tuple[str, str, str] | None:
    """Study, accession number and patient; None for a DICOMDIR, which has no modality."""
    if not header.get("Modality"):
        return None
    study, accession, patient = (
        str(header.get(tag) or "").strip() for tag in ("StudyInstanceUID", "AccessionNumber", "PatientID")
    )
    return study, accession, patient
