"""Reads the DICOM headers in folders and zips, within limits on what a zip may hold."""

import io
import logging
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import pydicom
import pydicom.config
from pydicom.errors import InvalidDicomError

from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.files.folders import is_of_macos
from bundle.ctfindings.scan.file_format import is_dicom

Found = TypeVar("Found")

MAX_ZIP_MEMBERS = 20_000
MAX_MEMBER_BYTES = 2 * 1024**3
MAX_ZIP_BYTES = 8 * 1024**3
MAX_ZIP_RATIO = 250.0
"""Unpacked over packed size of a whole zip; a CT shrinks to a third, and to a tenth where most of it is padding."""

MAX_TILT_DEGREES = 30.0
"""Largest gantry tilt of an axial image."""

# pydicom prints what it then raises, or mends.
logging.getLogger("pydicom").setLevel(logging.ERROR)
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

_DAMAGE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError, struct.error)
"""What a value raises that does not fit its tag."""


class DicomFile(NamedTuple):
    """A file on disk, or a member of a zip; ``member`` is empty for a file on disk."""

    path: Path
    member: str = ""


class Header(NamedTuple, Generic[Found]):
    """What was found in one file.

    ``content`` is the result of ``extract``; None if the file is not DICOM, damaged or cannot be opened. ``damage`` is
    the kind of error that was raised, empty if none. The message itself may name the patient.
    """

    file: DicomFile
    content: Found | None
    damage: str = ""


def read_headers(
    paths: Iterable[Path], tags: Sequence[str], extract: Callable[[pydicom.Dataset], Found | None]
) -> Iterator[Header[Found]]:
    """Read the header of every file and, for a path that ends in .zip, of every member of the zip.

    Args:
        tags: keywords of the elements to read.
        extract: function of the header without pixels. An error it raises counts as damage of the file.

    Raises:
        ScanError: if a zip is damaged, encrypted or beyond the limits.
    """
    for path in paths:
        if path.suffix.lower() != ".zip":
            yield _read_header(path, DicomFile(path), tags, extract)
            continue
        with _members(path) as (archive, members):
            for member in members:
                with archive.open(member) as packed:
                    # Only the header is unpacked: pydicom stops before the pixels.
                    source = io.BufferedReader(packed, 1 << 16)  # type: ignore[type-var]
                    yield _read_header(source, DicomFile(path, member.filename), tags, extract)


@contextmanager
def unpacked(files: Iterable[DicomFile]) -> Iterator[list[Path]]:
    """Files as paths, with members of zips in a temporary folder; a zip without a member stands for all of its members.

    Members get new names, so that no name in a zip can point out of the folder. ScanError if a zip is damaged,
    encrypted or beyond the limits.
    """
    paths: list[Path] = []
    wanted: dict[Path, set[str]] = {}
    for file in files:
        if file.path.suffix.lower() == ".zip":
            wanted.setdefault(file.path, set()).add(file.member)
        else:
            paths.append(file.path)
    with tempfile.TemporaryDirectory(prefix="ctfindings_") as folder:
        for path, names in wanted.items():
            with _members(path) as (archive, members):
                for member in members:
                    if "" in names or member.filename in names:
                        paths.append(Path(folder) / f"{len(paths):06d}")
                        with archive.open(member) as packed, paths[-1].open("wb") as plain:
                            shutil.copyfileobj(packed, plain, 1 << 20)
        yield paths


@contextmanager
def _members(path: Path) -> Iterator[tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]]:
    """A zip and the files in it, within the limits. Errors of the zip become a ScanError."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [each for each in archive.infolist() if not each.is_dir() and not is_of_macos(each.filename)]
            _check_limits(members, path)
            yield archive, members
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise ScanError(path, f"is a damaged zip ({error}); copy or download it again", "damaged-zip") from error
    except (RuntimeError, NotImplementedError) as error:
        problem = "is encrypted or packed by an unsupported method; unpack it and give the folder"
        raise ScanError(path, problem, "encrypted-zip") from error


def _check_limits(members: Sequence[zipfile.ZipInfo], path: Path) -> None:
    """Python never unpacks more of a member than the size it declares."""
    total, packed = (sum(each.file_size for each in members), sum(each.compress_size for each in members))
    for found, limit, unit in (
        (len(members), MAX_ZIP_MEMBERS, "files"),
        (max((each.file_size for each in members), default=0), MAX_MEMBER_BYTES, "bytes in one file"),
        (total, MAX_ZIP_BYTES, "bytes in all"),
        (total / max(packed, 1), MAX_ZIP_RATIO, "times its packed size"),
    ):
        if found > limit:
            problem = f"unpacks to {found:,.0f} {unit}; at most {limit:,.0f} are allowed. Unpack it and give the folder"
            raise ScanError(path, problem, "zip-beyond-limits")


def _read_header(
    source: "Path | io.BufferedReader[Any]", file: DicomFile, tags: Sequence[str], extract: Callable[..., Found | None]
) -> Header[Found]:
    started_well = False
    try:
        if isinstance(source, Path):
            with source.open("rb") as start:
                started_well = is_dicom(start.read(132))
        else:
            started_well = is_dicom(source.peek(132)[:132])
        # A forced read also takes files without a preamble.
        header = pydicom.dcmread(source, stop_before_pixels=True, specific_tags=list(tags), force=started_well)
        header.decode()  # Otherwise a damaged value raises later, when it is first used.
    except InvalidDicomError:
        return Header(file, None)
    except OSError as error:  # Nobody can tell whether a file that cannot be opened is an image of the series.
        return Header(file, None, type(error).__name__)
    except Exception as error:  # pydicom raises errors of many kinds.
        return Header(file, None, type(error).__name__ if started_well else "")
    try:
        return Header(file, extract(header))
    except _DAMAGE as error:
        return Header(file, None, type(error).__name__)


def image_type(header: pydicom.Dataset) -> set[str]:
    """The values of ImageType, such as ORIGINAL, SECONDARY or LOCALIZER."""
    value = header.get("ImageType") or []
    return {str(part).upper() for part in ([value] if isinstance(value, str) else value)}


def orientation(header: pydicom.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (3,), LPS, along a row and along a column of the image."""
    cosines = np.asarray(header.ImageOrientationPatient, np.float64)
    return cosines[:3], cosines[3:]


def is_axial(header: pydicom.Dataset) -> bool:
    """Whether an image with an orientation is an axial slice, within a gantry tilt, and not a localizer."""
    upright = abs(np.cross(*orientation(header))[2]) >= np.cos(np.radians(MAX_TILT_DEGREES))
    return bool(upright) and "LOCALIZER" not in image_type(header)
