"""Where new CT series are: a folder of DICOM files in any layout, or a DICOMweb server."""

import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pydicom
from pydicom.datadict import tag_for_keyword

from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.files.folders import files_below
from bundle.ctfindings.inference.watch.connections import Unreachable, answering, dicomweb_client
from bundle.ctfindings.scan.dicom_frames import ENHANCED_CT
from bundle.ctfindings.scan.dicom_headers import read_headers
from bundle.ctfindings.scan.dicom_series import MIN_IMAGES


class Series(NamedTuple):
    """A series by its SeriesInstanceUID, its study, a text that changes when images are added, and the seconds since
    then as far as they are known.
    """

    uid: str
    study: str
    state: str
    age: float = 0.0


def search_from(texts: Sequence[str]) -> dict[str, str]:
    """Value by keyword from texts such as ``BodyPartExamined=CHEST``, and CT; ValueError if one is not of that form."""
    search = {"Modality": "CT"} | dict(text.partition("=")[::2] for text in texts)
    for keyword, value in search.items():
        if tag_for_keyword(keyword) is None or not value:
            problem = f"expected KEYWORD=VALUE with a DICOM keyword, got {keyword!r}"
            raise ValueError(f"--search: {problem}; an example is Modality=CT")
    return search


class Archive(Protocol):
    """A place of series.

    Attributes:
        ignored: files without a SeriesInstanceUID in the last list, which belong to no series.
    """

    ignored: int

    def listed(self) -> list[Series]:
        """The series that the search finds and that have at least ``MIN_IMAGES`` images, or frames of Enhanced CT."""

    def fetching(self, series: Series) -> Callable[[Path], None]:
        """What puts the images of a series into an empty folder, on any machine that reaches the archive."""


_TAGS = ("SeriesInstanceUID", "StudyInstanceUID", "SOPClassUID", "NumberOfFrames")


class _Identity(NamedTuple):
    """Series, empty if the header names none, study, and number of slices of a file."""

    series: str
    study: str
    slices: int


def _slices(kind: str, frames: str) -> int:
    """Slices of an image by its SOPClassUID and NumberOfFrames."""
    return int(frames or 1) if kind in ENHANCED_CT else 1


class FolderArchive:
    """The series among the files of a folder. The header of a file is read once while the program runs.

    Args:
        folder: DICOM files in any layout. Zips are not opened.
        search: value by keyword that the header of a series must have; ``*`` and ``?`` are wildcards.
    """

    def __init__(self, folder: Path, search: Mapping[str, str]) -> None:
        self.folder, self.search, self.ignored = folder, search, 0
        self._known: dict[Path, tuple[tuple[int, int], _Identity | None]] = {}
        self._files: dict[str, list[Path]] = {}

    def listed(self) -> list[Series]:
        """Unreachable if the folder, or one in it, cannot be read."""
        known, self._known = self._known, {}
        files: dict[str, list[Path]] = defaultdict(list)
        states: dict[str, list[tuple[int, int]]] = defaultdict(list)
        changed: dict[str, float] = defaultdict(float)
        studies: dict[str, str] = {}
        slices: Counter[str] = Counter()
        try:
            paths = files_below(self.folder)
        except ScanError as error:
            problem = "the folder, or one in it, cannot be read; check the path and the permissions"
            raise Unreachable(problem) from error
        for path in paths:
            if path.suffix.lower() == ".zip":
                continue
            try:
                stat = path.stat()
            except OSError:
                continue  # It was moved away since it was listed.
            state = stat.st_size, stat.st_mtime_ns
            before, identity = known.get(path, (None, None))
            if before != state:
                (header,) = read_headers([path], [*_TAGS, *self.search], self._identity)
                identity = header.content
            self._known[path] = state, identity
            if identity is not None:
                uid = identity.series
                studies[uid] = identity.study
                slices[uid] += identity.slices
                files[uid].append(path)
                states[uid].append(state)
                # The time of a copy, where the modification time may be that of the original.
                changed[uid] = max(changed[uid], stat.st_ctime)
        self.ignored = len(files.pop("", []))
        states.pop("", None)
        self._files = dict(files)
        return [
            Series(
                uid,
                studies[uid],
                f"{len(each)}:{sum(size for size, _ in each)}:{max(when for _, when in each)}",
                time.time() - changed[uid],
            )
            for uid, each in states.items()
            if slices[uid] >= MIN_IMAGES
        ]

    def fetching(self, series: Series) -> Callable[[Path], None]:
        """The images as links; nothing is copied."""
        return partial(_link, [path.resolve() for path in self._files[series.uid]])

    def _identity(self, header: pydicom.Dataset) -> _Identity | None:
        """None for a file that the search does not find."""
        found = all(fnmatchcase(str(header.get(name) or ""), value) for name, value in self.search.items())
        series, study, kind, frames = (str(header.get(name) or "") for name in _TAGS)
        return _Identity(series, study, _slices(kind, frames)) if found else None


def _link(images: Sequence[Path], folder: Path) -> None:
    for number, image in enumerate(images):
        os.symlink(image, folder / f"{number:06d}.dcm")


class DicomWebArchive:
    """The series of a DICOMweb server.

    Args:
        url: of the service, such as ``http://127.0.0.1:8042/dicom-web``.
        search: QIDO-RS filter by keyword, such as ``{"Modality": "CT"}``.
    """

    def __init__(self, url: str, search: Mapping[str, str]) -> None:
        self.url, self.client, self.search, self.ignored = url, dicomweb_client(url), dict(search), 0
        self._counted: dict[Series, int] = {}

    def listed(self) -> list[Series]:
        """Unreachable if the server does not answer with a list."""
        try:
            with answering():
                found = self.client.search_for_series(
                    search_filters=self.search, fields=["NumberOfSeriesRelatedInstances"], get_remaining=True
                )
                series = [
                    Series(_value(each, "0020000E"), _value(each, "0020000D"), _value(each, "00201209"))
                    for each in found
                ]
                self._counted = {each: self._number_of_slices(each) for each in series}
        except ValueError as error:
            raise Unreachable(str(error)) from error
        return [each for each in series if self._counted[each] >= MIN_IMAGES]

    def fetching(self, series: Series) -> Callable[[Path], None]:
        """ValueError if fewer images arrive than were listed, Unreachable if the server does not answer."""
        return partial(_download, self.url, series)

    def _number_of_slices(self, series: Series) -> int:
        """Of a series with few images, the images are asked once how many frames they have."""
        images = int(series.state or 0)
        if images >= MIN_IMAGES:
            return images
        if series in self._counted:
            return self._counted[series]
        found = self.client.search_for_instances(series.study, series.uid, fields=["NumberOfFrames"])
        return sum(_slices(_value(each, "00080016"), _value(each, "00280008")) for each in found)


def _download(url: str, series: Series, folder: Path) -> None:
    kept = (("application/dicom", "*"),)  # As they are stored, without decompression.
    with answering():
        count = 0
        for image in dicomweb_client(url).iter_series(series.study, series.uid, media_types=kept):
            count += 1
            image.save_as(folder / f"{count:06d}.dcm", enforce_file_format=True)
    if count < int(series.state):
        raise ValueError(f"{count} of {series.state} images arrived; it is fetched again later")


def _value(found: Mapping[str, Any], tag: str) -> str:
    values = found.get(tag, {}).get("Value") or [""]
    return str(values[0])
