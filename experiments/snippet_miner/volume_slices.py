"""Positions of the slices of a volume without DICOM headers."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bundle.ctfindings.reports.snippets.slice_positions import Position
from bundle.ctfindings.scan.coordinates import voxel_spacing


class VolumeSlices(NamedTuple):
    """Images of a volume without DICOM headers, counted from the top: image 1 is the most superior slice.

    Most scanners count in this order, but not all: positions resolved this way have low confidence.

    Attributes:
        affine: voxel indices to RAS world mm, (4, 4).
        shape: voxels, (X, Y, Z) in the order of storage.
        superior_first: False when image 1 is the most inferior slice.
    """

    affine: np.ndarray
    shape: Sequence[int]
    superior_first: bool = True

    def position(self, series: int | None, first: int, last: int | None = None) -> Position:
        """World z of an image, or of the middle of a range, in any ``series``."""
        axes = np.asarray(self.affine, np.float64)[:3, :3]
        body_axis = int(np.abs(axes[2] / voxel_spacing(self.affine)).argmax())
        count = int(self.shape[body_axis])
        if not all(1 <= image <= count for image in (first, last or first)):
            return Position(None, series, "no such image")
        middle = (first + (last or first)) / 2
        upwards = axes[2, body_axis] > 0
        index = (np.asarray(self.shape, np.float64) - 1) / 2
        index[body_axis] = count - middle if upwards == self.superior_first else middle - 1
        return Position(float((np.asarray(self.affine) @ [*index, 1.0])[2]), series)
