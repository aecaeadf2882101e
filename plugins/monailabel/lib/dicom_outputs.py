"""Answers as DICOM objects on the images of the scan: segmentation, structured report, secondary capture, or all."""

import zipfile
from io import BytesIO
from pathlib import Path

from bundle.ctfindings.inference.output.dicom.scan_answers import ScanAnswers

from .limits import Limits
from .usage_error import UsageError

DICOM_OUTPUTS = {"dicom_seg": ".dcm", "dicom_sr": ".dcm", "dicom_sc": ".dcm", "dicom": ".zip"}
"""Suffix of the file by value of ``output``."""


def write_objects(path: Path, limits: Limits, file: str, output: str, segment: str, answers: ScanAnswers) -> None:
    """Writes what ``output`` asks for into ``file``; a function for ``Reader``. The UIDs are those of ``--dicom_dir``.

    Args:
        segment: ``anatomies`` or ``evidence``, what ``dicom_seg`` shows.
        answers: answers about the scan at ``path``.

    Raises:
        UsageError: if an answer without a region is asked for as a segmentation.
    """
    # It needs highdicom, which nothing else here does; the fork server has imported it.
    from bundle.ctfindings.inference.output.dicom.write_dicom import KINDS, dicom_objects

    wanted = {"dicom_seg": [segment], "dicom_sr": ["report"], "dicom_sc": ["capture"], "dicom": KINDS}[output]
    objects = dicom_objects(path, answers, wanted=wanted)
    if not objects:
        raise UsageError(404, f"{path.name}: the answer has no region; ask for output=json")
    if output != "dicom":
        next(iter(objects.values())).save_as(file, enforce_file_format=True)
        return
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, each in objects.items():
            each.save_as(content := BytesIO(), enforce_file_format=True)
            archive.writestr(f"{name}.dcm", content.getvalue())
