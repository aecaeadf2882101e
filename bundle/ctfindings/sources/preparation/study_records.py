"""From checked scans and their reports to a datalist with splits: the part that all sources share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from bundle.ctfindings.data.datalist import SPLITS
from bundle.ctfindings.files.folders import path_from
from bundle.ctfindings.reports.captions import read_report
from bundle.ctfindings.reports.snippets.miner import mine_report
from bundle.ctfindings.reports.snippets.slice_positions import read_files
from bundle.ctfindings.sources.preparation.candidate import Candidate, Grid
from bundle.ctfindings.sources.preparation.ledger import Ledger
from bundle.ctfindings.sources.preparation.scan_facts import ScanFacts
from bundle.ctfindings.sources.preparation.splits import draw_split, patients_in_two_splits, pseudonym

SPACING_TOLERANCE = 0.02
"""Share by which the voxel size of a file may differ from that of its table."""


class Settings(NamedTuple):
    """How a datalist is made.

    Attributes:
        fractions: shares of training, validation and test, where the table names no split.
        seed: of the splits and of the patients' pseudonyms.
        labels_from_reports: whether findings that the table leaves unknown get a label read from the report.
        snippets: whether sentences with a slice reference are mined, where the scan is DICOM.
    """

    fractions: tuple[float, ...]
    seed: int = 0
    labels_from_reports: bool = False
    snippets: bool = True


def drop_unusable(candidates: Sequence[Candidate], facts: Mapping[Path, ScanFacts], ledger: Ledger) -> list[Candidate]:
    """The candidates whose scan can be used; the others go to the ledger, and so do the warnings of their readers."""
    kept = []
    for candidate in candidates:
        known = facts[candidate.image]
        if known.problem:
            ledger.drop(candidate.line, candidate.id, known.kind, known.problem)
            continue
        for warning in (*candidate.warnings, *known.warnings):
            ledger.notice(candidate.line, candidate.id, "scan with a warning", warning)
        if candidate.grid and (difference := _difference(candidate.grid, known)):
            ledger.notice(candidate.line, candidate.id, "size or spacing differs from the table", difference)
        kept.append(candidate)
    return kept


def _difference(told: Grid, known: ScanFacts) -> str:
    """In what a file differs from what its table says; axes may be in another order."""
    if sorted(told.shape) != sorted(known.shape):
        return f"the file has {' x '.join(map(str, known.shape))} voxels, the table says {' x '.join(map(str, told.shape))}"
    pairs = zip(sorted(told.spacing_mm), sorted(known.spacing_mm), strict=True)
    if any(abs(expected - own) > SPACING_TOLERANCE * expected for expected, own in pairs):
        shown = [" x ".join(f"{step:g}" for step in steps) for steps in (known.spacing_mm, told.spacing_mm)]
        return f"the file has voxels of {shown[0]} mm, the table says {shown[1]}"
    return ""


def drop_copies(candidates: Sequence[Candidate], facts: Mapping[Path, ScanFacts], ledger: Ledger) -> list[Candidate]:
    """Without scans that hold the same voxels as another: of one examination the first is kept, of several none.

    The same scan under two examinations has two reports, of which one is wrong, and may be in two splits.
    """
    same: dict[tuple[str, tuple[int, ...]], list[Candidate]] = {}
    for candidate in candidates:
        known = facts[candidate.image]
        same.setdefault((known.content, known.shape), []).append(candidate)
    dropped: set[str] = set()
    for copies in same.values():
        several = len({candidate.examination or candidate.id for candidate in copies}) > 1
        for candidate in copies if several else copies[1:]:
            others = ", ".join(other.id for other in copies if other is not candidate)
            ledger.drop(candidate.line, candidate.id, "copy of another scan", f"holds the same voxels as {others}")
            dropped.add(candidate.id)
    return [candidate for candidate in candidates if candidate.id not in dropped]


def assign_splits(candidates: Sequence[Candidate], settings: Settings, table: Path) -> dict[str, str]:
    """The split of each study id: the table's where it names one, else drawn by patient.

    A patient of whom one study has a split in the table has all studies in it.

    Raises:
        ValueError: when the table puts a patient into two splits.
    """
    named: dict[str, set[str]] = {}
    for candidate in candidates:
        if candidate.split:
            named.setdefault(patient_of(candidate), set()).add(candidate.split)
    double = patients_in_two_splits(named)
    if double:
        lines = [str(candidate.line) for candidate in candidates if patient_of(candidate) == double[0]]
        raise ValueError(
            f"{table}: patients in two splits: {len(double)}, the first in lines {', '.join(lines)}; give each patient one split"
        )
    splits = {}
    for candidate in candidates:
        patient = patient_of(candidate)
        splits[candidate.id] = (
            next(iter(named[patient])) if patient in named else draw_split(patient, settings.fractions, settings.seed)
        )
    return splits


def patient_of(candidate: Candidate) -> str:
    """What stands for the patient: the table's, else the study itself."""
    return candidate.patient or f"study {candidate.id}"


def studies(
    candidates: Sequence[Candidate], settings: Settings, folder: Path, ledger: Ledger
) -> Iterator[dict[str, Any]]:
    """The study record of each candidate, as ``load_datalist`` reads it.

    Args:
        folder: of the datalist; paths are relative to it where they can be.
    """
    for candidate in candidates:
        record: dict[str, Any] = {"id": candidate.id, "patient": pseudonym(patient_of(candidate), settings.seed)}
        record["image"] = _relative(candidate.image, folder)
        record |= {name: _relative(path, folder) for name, path in candidate.masks.items()}
        if candidate.stored:
            record["stored"] = candidate.stored
        if candidate.examination:
            record["examination"] = candidate.examination
        labels = list(candidate.labels)
        if candidate.findings or candidate.impression:
            record["report"] = {"findings": candidate.findings, "impression": candidate.impression}
            read = read_report(candidate.findings, candidate.impression)
            if read.captions:
                record["captions"] = {anatomy: asdict(caption) for anatomy, caption in read.captions.items()}
            if settings.labels_from_reports:
                labels = [told if own == -1 else own for own, told in zip(labels, read.labels, strict=True)]
            if settings.snippets and (snippets := _snippets(candidate, ledger)):
                record["snippets"] = snippets
        if any(label != -1 for label in labels):
            record["labels"] = labels
        yield record


def _relative(path: Path, folder: Path) -> str:
    """``path`` from ``folder``, so that both can move together; absolute where they have little in common."""
    relative = path_from(path, folder)
    return path.as_posix() if relative.startswith("../../../") else relative


def _snippets(candidate: Candidate, ledger: Ledger) -> list[dict[str, Any]]:
    """Sentences that point at a slice of this scan, where its headers say which slice that is."""
    is_dicom = candidate.image.is_dir() or candidate.image.suffix.lower() == ".zip"
    if not (candidate.dicom or is_dicom):
        return []
    mined = mine_report([text for text in (candidate.findings, candidate.impression) if text])
    table = read_files(candidate.dicom or [candidate.image]) if mined.snippets else None
    records = []
    for snippet in mined.snippets:
        place = table.position(snippet.series, snippet.first, snippet.last) if table else None
        if place is None or place.z_mm is None:
            reason = place.problem if place else "no such study"
            ledger.notice(
                candidate.line, candidate.id, f"snippet: {reason}", f"series {snippet.series}, image {snippet.image}"
            )
        else:
            records.append(
                {"text": snippet.text, "series": place.series, "image": snippet.image, "z_mm": round(place.z_mm, 3)}
            )
    return records


def assemble(
    name: str, description: str, records: Sequence[Mapping[str, Any]], splits: Mapping[str, str]
) -> dict[str, Any]:
    """The datalist of the records, by split."""
    datalist: dict[str, Any] = {"name": name, "description": description}
    for split in SPLITS:
        datalist[split] = [record for record in records if splits[record["id"]] == split]
    return datalist
