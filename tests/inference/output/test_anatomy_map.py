"""The label map of the anatomies: the most specific one wins, on the scan's own grid."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.ctfindings.anatomy import anatomy_index
from bundle.ctfindings.inference.output.anatomy_map import write_anatomy

GRID = np.diag([10.0, 10.0, 10.0, 1.0])


def label_map(tmp_path: Path, **regions: list[float]) -> list[int]:
    """Labels of four voxels at the centres of four voxels of the regions; anatomies that are not named are nowhere."""
    maps = np.zeros((6, 4, 2, 2))
    for name, values in regions.items():
        maps[anatomy_index(name)] = np.array(values)[:, None, None]
    write_anatomy(tmp_path / "a.nii.gz", maps, GRID, GRID, (4, 2, 2))
    return np.asarray(nib.load(tmp_path / "a.nii.gz").dataobj)[:, 0, 0].tolist()


def test_a_part_wins_over_the_region_that_contains_it(tmp_path: Path) -> None:
    thorax, mediastinum, heart = [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0]
    assert label_map(tmp_path, thorax=thorax, mediastinum=mediastinum, heart=heart) == [6, 5, 2, 0]


def test_of_equal_parts_the_one_that_covers_more_of_a_voxel_wins(tmp_path: Path) -> None:
    assert label_map(tmp_path, lung=[0.9, 0.6, 0.4, 0], aorta=[0.6, 0.9, 0.8, 0]) == [1, 4, 4, 0]


def test_borders_lie_half_way_between_voxels(tmp_path: Path) -> None:
    maps = np.zeros((6, 2, 2, 2))
    maps[anatomy_index("lung"), 0] = 1
    fine = np.diag([1.0, 10.0, 10.0, 1.0])
    write_anatomy(tmp_path / "a.nii.gz", maps, GRID, fine, (11, 2, 2))
    assert np.asarray(nib.load(tmp_path / "a.nii.gz").dataobj)[:, 0, 0].tolist() == [1] * 5 + [0] * 6


def test_maps_that_are_no_anatomies_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got 5"):
        write_anatomy(tmp_path / "a.nii.gz", np.zeros((5, 2, 2, 2)), GRID, GRID, (2, 2, 2))
