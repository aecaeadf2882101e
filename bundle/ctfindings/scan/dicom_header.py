"""Reading the header of a file that may be DICOM, may be something else, and may be damaged."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pydicom
from pydicom.errors import InvalidDicomError

Found = TypeVar("Found")

_DAMAGE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError, struct.error)
"""What pydicom raises for a value that it cannot decode, or that is of another kind than its tag."""


class DamagedHeader(Exception):
    """A file is DICOM, but its header cannot be read. The message is the kind of error: a value may be the name of a
    patient.
    """


def read_header(
    source: Path | io.BytesIO, tags: Sequence[str], extract: Callable[[pydicom.Dataset], Found]
) -> Found | None:
    """What is extracted from the header of a file; None when it is no DICOM.

    Args:
        source: the file.
        tags: keywords of the elements that are read.
        extract: a function of the header, without pixels. Values are decoded when it asks for them.

    Raises:
        DamagedHeader: when it cannot be decoded.
    """
    try:
        header = pydicom.dcmread(source, stop_before_pixels=True, specific_tags=list(tags))
        # What is not asked for by now may be later, where nobody expects it to fail.
        header.decode()
        return extract(header)
    except (InvalidDicomError, EOFError, OSError):
        return None
    except _DAMAGE as error:
        raise DamagedHeader(type(error).__name__) from error
