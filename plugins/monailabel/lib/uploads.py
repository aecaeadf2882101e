"""Files that clients send: kept under names of ours in the temporary folder, and removed with the request."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastapi import UploadFile

from .scan_files import SCAN_SUFFIXES, scan_suffix
from .usage_error import UsageError


@contextmanager
def received(upload: UploadFile) -> Iterator[Path]:
    """A file that was sent along, for this request only; UsageError if its name is not that of a scan."""
    folder = Path(tempfile.mkdtemp(prefix="upload-"))
    try:
        yield saved(upload, folder / f"scan{suffix_of(upload)}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def suffix_of(upload: UploadFile) -> str:
    """The suffix of an upload that says how to read it; UsageError for another."""
    suffix = scan_suffix(upload.filename or "")
    if suffix is None:
        raise UsageError(
            422, f"the upload is of no known format; send {', '.join(SCAN_SUFFIXES)}, or the files of a DICOM series"
        )
    return suffix


def saved(upload: UploadFile, path: Path) -> Path:
    """The upload under a path of ours."""
    with path.open("wb") as file:
        shutil.copyfileobj(upload.file, file, 1 << 20)
    return path
