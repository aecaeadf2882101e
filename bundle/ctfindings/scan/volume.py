"""A 3D image as stored, with its affine."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


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
