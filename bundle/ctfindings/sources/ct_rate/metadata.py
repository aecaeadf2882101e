"""A row of CT-RATE's metadata table: the rescale to HU and the geometry, as the DICOM headers had them."""

from __future__ import annotations

import json

import numpy as np

from bundle.ctfindings.files.csv_table import Row
from bundle.ctfindings.scan.storage import Stored
from bundle.ctfindings.scan.volume import LPS_TO_RAS
from bundle.ctfindings.sources.preparation.candidate import Grid

COLUMNS = (
    "RescaleSlope",
    "RescaleIntercept",
    "XYSpacing",
    "ZSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
)
SIZE_COLUMNS = ("Columns", "Rows", "NumberofSlices")


def stored_of(row: Row, geometry: bool = True) -> Stored:
    """How the raw volume of a row becomes HU in the patient.

    The voxel (i, j, k) is column i, row j, slice k of the DICOM series; slices follow the normal of the images, which
    points to the head for axial ones. This is how fVLM rebuilds the volumes.

    Args:
        geometry: whether the affine is taken from the row; without, the file's own holds.

    Raises:
        ValueError: when a value is missing or no number.
    """
    slope, intercept = _numbers(row, "RescaleSlope", 1)[0], _numbers(row, "RescaleIntercept", 1)[0]
    if not geometry:
        return Stored(slope, intercept)
    along_column, along_row = _numbers(row, "XYSpacing", 2)
    cosines = np.asarray(_numbers(row, "ImageOrientationPatient", 6))
    affine = np.eye(4)
    affine[:3, 0] = cosines[:3] * along_row
    affine[:3, 1] = cosines[3:] * along_column
    affine[:3, 2] = np.cross(cosines[:3], cosines[3:]) * _numbers(row, "ZSpacing", 1)[0]
    affine[:3, 3] = _numbers(row, "ImagePositionPatient", 3)
    ras = (LPS_TO_RAS @ affine).round(6) + 0.0  # No minus zeros in the datalist.
    return Stored(slope, intercept, tuple(tuple(float(value) for value in values) for values in ras))


def grid_of(row: Row) -> Grid | None:
    """Size and voxel size as the row gives them; None when it does not."""
    try:
        shape = tuple(int(_numbers(row, column, 1)[0]) for column in SIZE_COLUMNS)
        return Grid(shape, (*_numbers(row, "XYSpacing", 2)[::-1], *_numbers(row, "ZSpacing", 1)))
    except ValueError:
        return None


def _numbers(row: Row, column: str, count: int) -> list[float]:
    """A number, or a list of them such as ``[0.7, 0.7]``."""
    text = row.values.get(column, "")
    try:
        value = json.loads(text)
        values = [float(each) for each in (value if isinstance(value, list) else [value])]
    except (TypeError, ValueError):
        values = []
    if len(values) != count or not np.isfinite(values).all():
        expected = "a number is" if count == 1 else f"{count} numbers are"
        raise ValueError(f"line {row.line}: {column} is {text!r}; {expected} expected")
    return values
