"""Builds the study records of a datalist from checked candidates and their reports."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.files.folders import path_from
from bundle.ctfindings.reports.captions import read_report
from bundle.ctfindings.reports.snippets.miner import mine_report
from bundle.ctfindings.reports.snippets.slice_positions import read_files
from bundle.ctfindings.scan.dicom_headers import DicomFile
from bundle.ctfindings.sources.preparation.datalist_settings import DatalistSettings
from bundle.ctfindings.sources.preparation.scan_facts import ScanFacts
from bundle.ctfindings.sources.preparation.source import Candidate, Grid, Ledger
from bundle.ctfindings.sources.preparation.splits import patient_of, pseudonym

SPACING_TOLERANCE = 0.02
"""Relative difference allowed between the voxel size of a file and that of its table."""


def drop_unusable(candidates: Sequence[Candidate], facts: Mapping[Path, ScanFacts], ledger: Ledger) -> list[Candidate]:
    """The candidates with a usable scan. The ledger gets the others, and the warnings of all."""
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


def _difference(expected: Grid, known: ScanFacts) -> str:
    """How a file differs from its table, with axes in any order; empty if it does not."""
    if sorted(expected.shape) != sorted(known.shape):
        own, table = (" x ".join(map(str, shape)) for shape in (known.shape, expected.shape))
        return f"the file has {own} voxels, the table says {table}"
    pairs = zip(sorted(expected.spacing_mm), sorted(known.spacing_mm), strict=True)
    if any(abs(step - own) > SPACING_TOLERANCE * step for step, own in pairs):
        own, table = (" x ".join(f"{step:g}" for step in steps) for steps in (known.spacing_mm, expected.spacing_mm))
        return f"the file has voxels of {own} mm, the table says {table}"
    return ""


def drop_copies(candidates: Sequence[Candidate], facts: Mapping[Path, ScanFacts], ledger: Ledger) -> list[Candidate]:
    """The candidates without copies of the same voxels.

    Of copies with the same report and labels the first is kept. Of others none is kept: all but one are wrong.
    """
    same: dict[tuple[str, tuple[int, ...]], list[Candidate]] = {}
    for candidate in candidates:
        known = facts[candidate.image]
        same.setdefault((known.content, tuple(known.shape)), []).append(candidate)
    dropped: set[str] = set()
    for copies in same.values():
        said = {(candidate.findings, candidate.impression, tuple(candidate.labels)) for candidate in copies}
        for candidate in copies if len(said) > 1 else copies[1:]:
            others = ", ".join(other.id for other in copies if other is not candidate)
            ledger.drop(candidate.line, candidate.id, "copy of another scan", f"has the same voxels as {others}")
            dropped.add(candidate.id)
    return [candidate for candidate in candidates if candidate.id not in dropped]


def study_records(
    candidates: Sequence[Candidate], settings: DatalistSettings, folder: Path, ledger: Ledger
) -> Iterator[dict[str, Any]]:
    """The study record of each candidate, as ``load_datalist`` reads it; paths are relative to its ``folder``.

    The ledger gets slice references that cannot be resolved.
    """
    for candidate in candidates:
        record: dict[str, Any] = {"id": candidate.id, "patient": pseudonym(patient_of(candidate), settings.seed)}
        record |= {
            name: _relative(path, folder) for name, path in {"image": candidate.image, **candidate.masks}.items()
        }
        if candidate.stored:
            record["stored"] = candidate.stored
        if candidate.examination:
            record["examination"] = candidate.examination
        labels = list(candidate.labels)
        if candidate.findings or candidate.impression:
            record["report"] = {"findings": candidate.findings, "impression": candidate.impression}
            unmentioned = 0 if settings.unmentioned_absent else -1
            read = read_report(candidate.findings, candidate.impression, unmentioned=unmentioned)
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
    """``path`` relative to ``folder``, so that both can move together; absolute if they share little."""
    relative = path_from(path, folder)
    return path.as_posix() if relative.startswith("../../../") else relative


def _snippets(candidate: Candidate, ledger: Ledger) -> list[dict[str, Any]]:
    """Sentences that refer to a slice of this scan whose position its headers give."""
    is_dicom = candidate.image.is_dir() or candidate.image.suffix.lower() == ".zip"
    if not (candidate.dicom or is_dicom):
        return []
    mined = mine_report([text for text in (candidate.findings, candidate.impression) if text])
    if not mined.snippets:
        return []
    try:
        table = read_files(candidate.dicom or [DicomFile(candidate.image)])
    except ScanError as error:  # Its message names a file, which may identify the patient.
        detail = f"no slice that the report refers to ({len(mined.snippets)}) can be looked up in the headers"
        ledger.notice(candidate.line, candidate.id, f"snippet: {error.code}", detail)
        return []
    records = []
    for snippet in mined.snippets:
        place = table.position(snippet.series, snippet.first, snippet.last)
        if place.z_mm is None:
            detail = f"series {snippet.series}, image {snippet.image}"
            ledger.notice(candidate.line, candidate.id, f"snippet: {place.problem}", detail)
        else:
            z_mm = round(place.z_mm, 3)
            records.append({"text": snippet.text, "series": place.series, "image": snippet.image, "z_mm": z_mm})
    return records
