"""A 3D image as stored, with its affine."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Volume(NamedTuple):
    """A 3D image as stored.

    Attributes:
        array: voxels (X, Y, Z) in storage order, any number type, with the file's own rescale applied.
        affine: voxel index to RAS world mm, (4, 4) float64.
        source_format: nifti, nrrd, metaimage, npz or dicom.
        warnings: one sentence each.
    """

    array: np.ndarray
    affine: np.ndarray
    source_format: str
    warnings: list[str]
