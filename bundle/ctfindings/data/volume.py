"""A 3D image as it is stored, before anything is asked of it, and the error of a file that cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class ScanError(ValueError):
    """A file that cannot be used. The message is one line: ``FILE: what is wrong; remedy``.

    Attributes:
        kind: the problem in a few words that are the same for all files that have it, to count by.
    """

    def __init__(self, path: str | Path, problem: str, kind: str = "unusable scan") -> None:
        super().__init__(f"{path}: " + " ".join(problem.split()))
        self.kind = kind


class Volume(NamedTuple):
    """A 3D image as stored.

    Attributes:
        array: voxels, (X, Y, Z) in the order of storage, any number type, with the file's rescale applied once.
        affine: voxel indices to RAS world in mm, (4, 4) float64.
        source_format: nifti, nrrd, metaimage, npz or dicom.
        warnings: what a reader should know, one sentence each.
    """

    array: np.ndarray
    affine: np.ndarray
    source_format: str
    warnings: list[str]
