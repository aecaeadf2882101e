"""Converts a study of a DICOM archive to a NIfTI file in HU without names, numbers or dates."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np

from bundle.ctfindings.files.atomic_write import atomic_path
from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.files.fingerprint import signature_of_files
from bundle.ctfindings.scan.dicom_headers import DicomFile, unpacked
from bundle.ctfindings.scan.dicom_series import read_dicom_files
from bundle.ctfindings.scan.hu_check import to_hu
from bundle.ctfindings.scan.storage import Stored

VERSION = 2
"""Increased whenever the same files would give another NIfTI, so that older ones are converted again."""


class Conversion(NamedTuple):
    """A study to convert, with its name in errors and warnings, its DICOM files and the NIfTI file to write."""

    id: str
    files: Sequence[DicomFile]
    target: Path


def signature(files: Sequence[DicomFile]) -> str:
    """Number and size of the files of a study, and the time of the newest."""
    found = signature_of_files({file.path for file in files})
    return f"{VERSION}:{len(files)}:{found.bytes}:{found.newest_ns}"


def convert(conversion: Conversion) -> dict[str, Any]:
    """Write the axial series of a study that covers the chest best, HU as int16.

    A study without one has a ``problem`` and raises nothing.

    Returns the ``problem`` and its ``kind``, empty if there is none, and ``warnings``, one sentence each. OSError if
    the disk is full. No incomplete file remains.
    """
    try:
        with unpacked(conversion.files) as paths:
            volume = read_dicom_files(paths, conversion.id)
            hu = to_hu(conversion.id, volume, Stored())
    except ScanError as error:
        # The error of a zip names the zip and its members, which may identify the patient.
        own = str(error).startswith(conversion.id)
        problem = _bare(str(error), conversion.id) if own else f"a zip of the study cannot be read ({error.code})"
        return {"problem": problem, "kind": error.code, "warnings": []}
    image = nib.Nifti1Image(np.rint(hu).clip(-32768, 32767).astype(np.int16), volume.affine)
    image.header.set_xyzt_units("mm")
    with atomic_path(conversion.target) as temporary:
        nib.save(image, temporary)
    return {"problem": "", "kind": "", "warnings": [_bare(warning, conversion.id) for warning in volume.warnings]}


def _bare(message: str, identity: str) -> str:
    """A message without the name of the study."""
    return message.replace(f"{identity}: ", "").replace(f"{identity} ", "")
