"""Answers in DICOM: each output alone is the object that the zip of all holds."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pydicom

from plugins.monailabel.lib.dicom_outputs import write_objects
from plugins.monailabel.lib.limits import Limits
from tests.inference.output.test_dicom import Written
from tests.small_scan import WriteDicom


def test_an_object_is_the_same_alone_and_in_the_zip(
    tmp_path: Path, hu: np.ndarray, affine: np.ndarray, write_dicom: WriteDicom
) -> None:
    scan = Written(write_dicom(tmp_path / "scan", hu, affine))
    file = tmp_path / "answer"
    write_objects(scan.path, Limits(), str(file), "dicom", "evidence", scan.answers())
    with zipfile.ZipFile(file) as archive:
        objects = {name: pydicom.dcmread(io.BytesIO(archive.read(name))) for name in archive.namelist()}
    assert sorted(objects) == ["anatomies.dcm", "capture.dcm", "evidence-1.dcm", "report.dcm"]
    for output, segment, name in (
        ("dicom_sr", "evidence", "report"),
        ("dicom_sc", "evidence", "capture"),
        ("dicom_seg", "evidence", "evidence-1"),
        ("dicom_seg", "anatomies", "anatomies"),
    ):
        write_objects(scan.path, Limits(), str(file), output, segment, scan.answers())
        assert pydicom.dcmread(file) == objects[f"{name}.dcm"]
