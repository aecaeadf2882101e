"""Where new CT series are: a folder of DICOM files in any layout, or a DICOMweb server."""

import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pydicom
from pydicom.datadict import tag_for_keyword

from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.files.folders import files_below
from bundle.ctfindings.inference.watch.connections import Unreachable, answering, dicomweb_client
from bundle.ctfindings.scan.body_part import BODY_PART_HEADERS, other_body_part
from bundle.ctfindings.scan.dicom_frames import ENHANCED_CT
from bundle.ctfindings.scan.dicom_headers import read_headers
from bundle.ctfindings.scan.dicom_series import MIN_IMAGES


class Series(NamedTuple):
    """A series by its SeriesInstanceUID, its study, a text that changes when images are added, the seconds since then
    as far as they are known, and why it is left out, empty if it is not.
    """

    uid: str
    study: str
    state: str
    age: float = 0.0
    left_out: str = ""


def search_from(texts: Sequence[str]) -> dict[str, str]:
    """Value by keyword from texts such as ``BodyPartExamined=CHEST``, and CT; ValueError if one is not of that form."""
    search = {"Modality": "CT"} | dict(text.partition("=")[::2] for text in texts)
    for keyword, value in search.items():
        if tag_for_keyword(keyword) is None or not value:
            problem = f"expected KEYWORD=VALUE with a DICOM keyword, got {keyword!r}"
            raise ValueError(f"--search: {problem}; an example is Modality=CT")
    return search


def _left_out(headers: Mapping[str, str], search: Mapping[str, str]) -> str:
    """Why a series is left out; a search for a body part takes what it finds."""
    return "" if BODY_PART_HEADERS[0] in search else other_body_part(headers)


_TAGS = ("SeriesInstanceUID", "StudyInstanceUID", "SOPClassUID", "NumberOfFrames")


class _Identity(NamedTuple):
    """Series, empty if the header names none, study, number of slices, and why it is left out, of a file."""

    series: str
    study: str
    slices: int
    left_out: str


def _slices(kind: str, frames: str) -> int:
    """Slices of an image by its SOPClassUID and NumberOfFrames."""
    return int(frames or 1) if kind in ENHANCED_CT else 1


class FolderArchive:
    """The series among the files of a folder. A header that can be read is read once while the program runs.

    Args:
        folder: DICOM files in any layout. Zips are not opened.
        search: value by keyword that the header of a series must have; ``*`` and ``?`` are wildcards.

    Attributes:
        ignored: files of the last list without a SeriesInstanceUID, which belong to no series.
    """

    def __init__(self, folder: Path, search: Mapping[str, str]) -> None:
        self.folder, self.search, self.ignored = folder, search, 0
        self._known: dict[Path, tuple[tuple[int, int], _Identity | None]] = {}
        self._files: dict[str, list[Path]] = {}

    def listed(self) -> list[Series]:
        """The series that the search finds and that have at least ``MIN_IMAGES`` images, or frames of Enhanced CT.

        Unreachable if the folder, or one in it, cannot be read.
        """
        known, self._known = self._known, {}
        found: dict[str, list[tuple[Path, os.stat_result, _Identity]]] = defaultdict(list)
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
            size_and_time = stat.st_size, stat.st_mtime_ns
            before, identity = known.get(path, (None, None))
            damage = ""
            if before != size_and_time:
                (header,) = read_headers([path], [*_TAGS, *BODY_PART_HEADERS, *self.search], self._identity)
                identity, damage = header.content, header.damage
            if not damage:  # A file that cannot be opened now may be opened later, without another size or time.
                self._known[path] = size_and_time, identity
            if identity is not None:
                found[identity.series].append((path, stat, identity))
        self.ignored = len(found.pop("", []))
        self._files = {uid: [path for path, _, _ in images] for uid, images in found.items()}
        series = []
        for uid, images in found.items():
            if sum(identity.slices for _, _, identity in images) >= MIN_IMAGES:
                stats = [stat for _, stat, _ in images]
                state = f"{len(stats)}:{sum(s.st_size for s in stats)}:{max(s.st_mtime_ns for s in stats)}"
                # The time of a copy, where the modification time may be that of the original.
                age = time.time() - max(s.st_ctime for s in stats)
                left_out = min(identity.left_out for _, _, identity in images)  # Empty if one may be of the chest.
                series.append(Series(uid, images[-1][2].study, state, age, left_out))
        return series

    def fetching(self, series: Series) -> Callable[[Path], None]:
        """What puts the images of a series into an empty folder, as links; nothing is copied.

        ValueError if fewer images are there than were listed.
        """
        return partial(_link, [path.resolve() for path in self._files[series.uid]])

    def _identity(self, header: pydicom.Dataset) -> _Identity | None:
        """None for a file that the search does not find."""
        found = all(fnmatchcase(str(header.get(name) or ""), value) for name, value in self.search.items())
        series, study, kind, frames = (str(header.get(name) or "") for name in _TAGS)
        left_out = _left_out({name: str(header.get(name) or "") for name in BODY_PART_HEADERS}, self.search)
        return _Identity(series, study, _slices(kind, frames), left_out) if found else None


def _link(images: Sequence[Path], folder: Path) -> None:
    for number, image in enumerate(images):
        os.symlink(image, folder / f"{number:06d}.dcm")
    there = sum(image.is_file() for image in images)
    if there < len(images):
        raise ValueError(f"{there} of {len(images)} images are there; it is tried again later")


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
        """As that of ``FolderArchive``; Unreachable if the server does not answer with a list."""
        try:
            with answering():
                found = all_series(self.client, self.search, ["NumberOfSeriesRelatedInstances", *BODY_PART_HEADERS])
                series = [self._series(each) for each in found]
                self._counted = {each: self._number_of_slices(each) for each in series}
        except ValueError as error:
            raise Unreachable(str(error)) from error
        return [each for each in series if self._counted[each] >= MIN_IMAGES]

    def fetching(self, series: Series) -> Callable[[Path], None]:
        """As that of ``FolderArchive``, on any machine that reaches the server.

        ValueError if fewer images arrive than were listed, Unreachable if the server does not answer.
        """
        return partial(_download, self.url, series)

    def _series(self, found: Mapping[str, Any]) -> Series:
        uid, study, images = (first_value(found, tag) for tag in ("0020000E", "0020000D", "00201209"))
        headers = {name: first_value(found, f"{tag_for_keyword(name):08X}") for name in BODY_PART_HEADERS}
        return Series(uid, study, images, left_out=_left_out(headers, self.search))

    def _number_of_slices(self, series: Series) -> int:
        """Of a series with few images, the images are asked once how many frames they have."""
        images = int(series.state or 0)
        if images >= MIN_IMAGES:
            return images
        if series.state and series in self._counted:
            return self._counted[series]
        found = self.client.search_for_instances(series.study, series.uid, fields=["NumberOfFrames"])
        return sum(_slices(first_value(each, "00080016"), first_value(each, "00280008")) for each in found)


def all_series(client: Any, search: Mapping[str, Any], fields: Sequence[str] = ()) -> list[Mapping[str, Any]]:
    """The series of all pages of a search, each once. It ends with a page that brings no new one, because a server that
    does not know ``offset`` answers with the same page for ever.

    Args:
        client: of the DICOMweb server.
        search: QIDO-RS filter by keyword.
        fields: keywords of further attributes.

    Returns:
        Attributes of each series, DICOM JSON by tag.
    """
    found: dict[str, Mapping[str, Any]] = {}
    offset = 0
    while True:
        page = client.search_for_series(search_filters=dict(search), fields=list(fields), offset=offset)
        new = {uid: each for each in page if (uid := first_value(each, "0020000E")) not in found}
        if not new:
            return list(found.values())
        found |= new
        offset += len(page)


def _download(url: str, series: Series, folder: Path) -> None:
    kept = (("application/dicom", "*"),)  # As they are stored, without decompression.
    with answering():
        count = 0
        for image in dicomweb_client(url).iter_series(series.study, series.uid, media_types=kept):
            count += 1
            image.save_as(folder / f"{count:06d}.dcm", enforce_file_format=True)
    if count < int(series.state or 0):
        raise ValueError(f"{count} of {series.state} images arrived; it is fetched again later")


def first_value(found: Mapping[str, Any], tag: str) -> str:
    """The first value of an element in DICOM JSON, or an empty text."""
    return str((found.get(tag, {}).get("Value") or [""])[0] or "")
