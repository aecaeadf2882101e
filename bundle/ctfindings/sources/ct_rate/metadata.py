"""Rescale and geometry of a CT-RATE volume from its row in the metadata table."""

import json

import numpy as np

from bundle.ctfindings.files.csv_table import Row
from bundle.ctfindings.scan.coordinates import LPS_TO_RAS
from bundle.ctfindings.scan.storage import Stored
from bundle.ctfindings.sources.preparation.source import Grid

COLUMNS = (
    "RescaleSlope", "RescaleIntercept", "XYSpacing", "ZSpacing", "ImagePositionPatient", "ImageOrientationPatient"
)  # fmt: skip
SIZE_COLUMNS = ("Columns", "Rows", "NumberofSlices")


def stored_of(row: Row, geometry: bool = True) -> Stored:
    """Rescale of the raw volume of a row and, with ``geometry``, its affine.

    Voxel (i, j, k) is column i, row j, slice k of the DICOM series. Slices follow the normal of the images, which
    points to the head for axial ones. fVLM reconstructs the volumes in the same way. ValueError if a value is missing
    or not a number.
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
    ras = (LPS_TO_RAS @ affine).round(6) + 0.0  # Avoids negative zeros in the datalist.
    return Stored(slope, intercept, tuple(tuple(float(value) for value in values) for values in ras))


def grid_of(row: Row) -> Grid | None:
    """Shape and voxel size of a row; None if it lacks them."""
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
        expected = "a number" if count == 1 else f"{count} numbers"
        raise ValueError(f"line {row.line}: expected {expected} in {column}, got {text!r}")
    return values
