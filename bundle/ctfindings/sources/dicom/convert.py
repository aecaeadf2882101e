"""One study of a DICOM archive becomes one NIfTI file in HU, which carries no name, number or date."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np

from bundle.ctfindings.files.atomic_write import atomic_path
from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.files.fingerprint import signature_of_files
from bundle.ctfindings.scan.dicom_series import read_dicom_files
from bundle.ctfindings.scan.hu_check import to_hu
from bundle.ctfindings.scan.storage import Stored
from bundle.ctfindings.sources.dicom.archive_index import ArchiveFile, unpacked

VERSION = 1
"""Raised whenever the same files would give another NIfTI, so that older ones are written again."""

_INT16 = (-32768, 32767)


class Conversion(NamedTuple):
    """A study to be converted.

    Attributes:
        id: what errors and warnings call it.
        files: of the study.
        target: the NIfTI file.
    """

    id: str
    files: Sequence[ArchiveFile]
    target: Path


def signature(files: Sequence[ArchiveFile]) -> str:
    """Number of files of a study, and size and time of the newest of them on the disk."""
    found = signature_of_files({file.path for file in files})
    return f"{VERSION}:{len(files)}:{found.bytes}:{found.newest_ns}"


def convert(conversion: Conversion) -> dict[str, Any]:
    """Writes the longest axial series of a study, HU as int16. A study without one has a ``problem`` and raises
    nothing.

    Returns:
        ``problem`` and its ``kind``, empty when all is well; ``warnings``, one sentence each.

    Raises:
        OSError: when the disk is full. Nothing half-written stays.
    """
    try:
        with unpacked(conversion.files) as paths:
            volume = read_dicom_files(paths, conversion.id)
        hu = to_hu(conversion.id, volume, Stored())
    except ScanError as error:
        return {"problem": _bare(str(error), conversion.id), "kind": error.kind, "warnings": []}
    image = nib.Nifti1Image(np.rint(hu).clip(*_INT16).astype(np.int16), volume.affine)
    image.header.set_xyzt_units("mm")
    with atomic_path(conversion.target) as temporary:
        nib.save(image, temporary)
    return {"problem": "", "kind": "", "warnings": [_bare(warning, conversion.id) for warning in volume.warnings]}


def _bare(message: str, identity: str) -> str:
    """A message without the name of the study in front."""
    return message.replace(f"{identity}: ", "").replace(f"{identity} ", "")
