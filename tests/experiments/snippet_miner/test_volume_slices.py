"""Positions of the slices of a volume without DICOM headers."""

import numpy as np
import pytest

from experiments.snippet_miner.volume_slices import VolumeSlices


@pytest.mark.parametrize("upside_down", [False, True])
def test_volume_without_headers_counts_from_the_top_however_it_is_stored(upside_down: bool) -> None:
    shape = (64, 52, 44)
    affine = np.diag([2.0, 2.5, 3.0, 1.0])
    affine[:3, 3] = [-60, -70, -300]
    if upside_down:
        affine = affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 43], [0, 0, 0, 1]], float)
    slices = VolumeSlices(affine, shape)
    assert slices.position(2, 1).z_mm == pytest.approx(-300 + 43 * 3)
    assert slices.position(2, 44).z_mm == pytest.approx(-300)
    assert slices.position(2, 10, 12).z_mm == pytest.approx(-300 + (44 - 11) * 3)
    assert slices.position(2, 45).problem == "no such image"
    assert slices.position(None, 0).problem == "no such image"
    assert VolumeSlices(affine, shape, superior_first=False).position(2, 1).z_mm == pytest.approx(-300)
