"""Position of a slice: (series, image) to world z in mm, from DICOM headers."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pydicom

from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.files.folders import files_below
from bundle.ctfindings.scan.dicom_frames import ENHANCED_CT, FRAME_TAGS, frame_headers
from bundle.ctfindings.scan.dicom_headers import DicomFile, Header, image_type, is_axial, orientation, read_headers

SAME_PLACE_MM = 0.5
"""Images with one number within this distance are copies; at a larger distance the number is ambiguous."""

_NUMBER_TAGS = ["AccessionNumber", "InstanceNumber", "SeriesNumber", "StudyInstanceUID"]
_KIND_TAGS = ["ConcatenationFrameOffsetNumber", "ImageType", "Modality", "NumberOfFrames", "SOPClassUID", *FRAME_TAGS]
_PLACE_TAGS = ["Columns", "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "Rows"]

Problem = Literal["no such series", "no such image", "series not named", "not axial", "ambiguous", "not a CT image"]


class Position(NamedTuple):
    """World z of the centre of an image in mm, the same in RAS and LPS, or the reason why it is unknown.

    ``series`` is the requested series, or the only axial one if none was requested. ``problem`` is empty if z is known.
    """

    z_mm: float | None
    series: int | None
    problem: Problem | Literal[""] = ""


class _Header(NamedTuple):
    """World z of an image; None with a problem when it is not an axial CT image."""

    z_mm: float | None
    problem: Problem | Literal[""]


class _Numbered(NamedTuple):
    """An image with the numbers that a report may use for it."""

    series: int | None
    image: int
    study: str
    accession: str
    entry: _Header


@dataclass
class StudyTable:
    """The images of a study by series and image number."""

    images: dict[int | None, dict[int, list[_Header]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )

    def position(self, series: int | None, first: int, last: int | None = None) -> Position:
        """World z of an image, or of the middle of a range, by instance numbers.

        A reference without series is resolved when the study has exactly one axial CT series.
        """
        if series is None:
            axial = [
                number
                for number, images in self.images.items()
                if any(header.z_mm is not None for headers in images.values() for header in headers)
            ]
            if len(axial) != 1:
                return Position(None, None, "series not named")
            series = axial[0]
        elif series not in self.images:
            return Position(None, series, "no such series")
        ends = [self._z(series, image) for image in {first, last or first}]
        for _, problem in ends:
            if problem:
                return Position(None, series, problem)
        return Position(float(np.mean([z for z, _ in ends])), series)

    def _z(self, series: int | None, image: int) -> tuple[float, Problem | Literal[""]]:
        found = self.images[series].get(image, [])
        places = [header.z_mm for header in found if header.z_mm is not None]
        if found and not places:
            return 0.0, found[0].problem
        if not found:
            problems = {header.problem for headers in self.images[series].values() for header in headers}
            return 0.0, "not a CT image" if problems == {"not a CT image"} else "no such image"
        if max(places) - min(places) > SAME_PLACE_MM:
            return 0.0, "ambiguous"
        return places[0], ""


class Studies:
    """The studies of a folder by the id of a report.

    The id is the name of a folder or zip directly below ``folder``, or the AccessionNumber or StudyInstanceUID of the
    images in any layout. Only headers are read. ScanError when the folder is missing.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ScanError(folder, "folder not found; give the folder of the DICOM studies", "no-dicom-images")
        self.folder = folder
        self.files = 0
        self._by_name: dict[str, StudyTable] = defaultdict(StudyTable)
        self._by_number: dict[str, StudyTable] = defaultdict(StudyTable)
        self._uids: set[str] = set()
        self.everything = StudyTable()

    def read(self) -> Iterator[Path]:
        """Reads all headers; yields each path for a progress bar. Raises ScanError when no file is DICOM."""
        for path in files_below(self.folder):
            self.add(path)
            yield path
        if not self.files:
            raise ScanError(
                self.folder, "contains no DICOM images; give the folder of the DICOM studies", "no-dicom-images"
            )

    def add(self, path: Path, members: Collection[str] = ()) -> None:
        """Reads the headers of a file, folder or zip, or only of these members of a zip.

        ScanError if a zip is damaged, encrypted or too large.
        """
        tags = _NUMBER_TAGS + _KIND_TAGS + _PLACE_TAGS
        for header in read_headers(files_below(path) if path.is_dir() else [path], tags, _numbered):
            if not members or header.file.member in members:
                self._add(header)

    def _add(self, header: Header[list[_Numbered]]) -> None:
        path = header.file.path
        if not header.content:  # Not an image, or damaged, perhaps in the very number that a sentence refers to.
            return
        name = ""
        if header.file.member:
            name = path.stem
        elif path.parent != self.folder and path.is_relative_to(self.folder):
            name = path.relative_to(self.folder).parts[0]
        self.files += 1
        first = header.content[0]
        uid = first.study or name or "?"
        self._uids.add(uid)
        tables = [self.everything, *(self._by_number[key] for key in {uid, first.accession} - {""})]
        for table in [*tables, self._by_name[name]] if name else tables:
            for numbered in header.content:
                table.images[numbered.series][numbered.image].append(numbered.entry)

    @property
    def only_study(self) -> StudyTable | None:
        """The study of a folder with exactly one."""
        return self._by_number[next(iter(self._uids))] if len(self._uids) == 1 else None

    def find(self, identity: str) -> StudyTable | None:
        """The study with this folder or zip name, AccessionNumber or StudyInstanceUID, or None."""
        return self._by_name.get(identity) or self._by_number.get(identity)


def read_files(files: Sequence[DicomFile]) -> StudyTable:
    """The table of one study from its files, or from a folder or zip without other studies.

    ScanError when there are no DICOM images with a number, or a zip is damaged.
    """
    members: dict[Path, set[str]] = defaultdict(set)
    for file in files:
        members[file.path] |= {file.member} - {""}
    studies = Studies(files[0].path.parent)
    for path, wanted in members.items():
        studies.add(path, wanted)
    if not studies.files:
        raise ScanError(
            files[0].path,
            "contains no DICOM images with an image number; give the folder of the DICOM study",
            "no-dicom-images",
        )
    return studies.everything


def _numbered(header: pydicom.Dataset) -> list[_Numbered]:
    """The image of a file, or each frame of an Enhanced CT: viewers number its frames, and those of a concatenation as
    one. Empty for an object without image number, such as a DICOM report.
    """
    if header.get("InstanceNumber") is None or "Modality" not in header:
        return []
    series = header.get("SeriesNumber")
    study, accession = (str(header.get(tag) or "") for tag in ("StudyInstanceUID", "AccessionNumber"))
    images = {int(header.InstanceNumber): header}
    if header.get("SOPClassUID") in ENHANCED_CT:
        first = int(header.get("ConcatenationFrameOffsetNumber") or 0) + 1
        images = dict(enumerate(frame_headers(header), start=first))
    return [
        _Numbered(None if series is None else int(series), number, study, accession, _entry(image))
        for number, image in images.items()
    ]


def _entry(header: pydicom.Dataset) -> _Header:
    """World z of the centre of an axial CT image, or the problem with it."""
    several = int(header.get("NumberOfFrames") or 1) > 1 and header.get("SOPClassUID") not in ENHANCED_CT
    if header.get("Modality") != "CT" or several:
        return _Header(None, "not a CT image")
    position, cosines, spacing = (
        header.get(tag) for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    )
    if not position or not cosines or not spacing or "SECONDARY" in image_type(header):
        return _Header(None, "not a CT image")
    along_row, along_column = orientation(header)
    if not is_axial(header):
        return _Header(None, "not axial")
    rows, columns = (int(header.get(tag) or 1) for tag in ("Rows", "Columns"))
    half_row = along_row[2] * float(spacing[1]) * (columns - 1) / 2
    half_column = along_column[2] * float(spacing[0]) * (rows - 1) / 2
    return _Header(float(position[2] + half_row + half_column), "")
