"""The label map of the anatomies: the most specific one wins, on the scan's own grid."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.ctfindings.anatomy import anatomy_index
from bundle.ctfindings.inference.output.anatomy_map import write_anatomy

TOKENS = np.diag([10.0, 10.0, 10.0, 1.0])


def label_map(tmp_path: Path, **logits: list[float]) -> list[int]:
    """Labels of four voxels at the centres of four tokens in a row; anatomies that are not named are nowhere."""
    maps = np.full((6, 4, 2, 2), -5.0)
    for name, values in logits.items():
        maps[anatomy_index(name)] = np.array(values)[:, None, None]
    write_anatomy(tmp_path / "a.nii.gz", maps, TOKENS, TOKENS, (4, 2, 2))
    return np.asarray(nib.load(tmp_path / "a.nii.gz").dataobj)[:, 0, 0].tolist()


def test_a_part_wins_over_the_region_that_contains_it(tmp_path: Path) -> None:
    thorax, mediastinum, heart = [5.0, 5, 5, -5], [-5.0, 5, 5, -5], [-5.0, -5, 1, -5]
    assert label_map(tmp_path, thorax=thorax, mediastinum=mediastinum, heart=heart) == [6, 5, 2, 0]


def test_of_equal_parts_the_surer_one_wins(tmp_path: Path) -> None:
    assert label_map(tmp_path, lung=[3.0, 1, -1, -1], aorta=[1.0, 3, 2, -1]) == [1, 4, 4, 0]


def test_borders_lie_between_tokens_where_the_logit_is_zero(tmp_path: Path) -> None:
    maps = np.full((6, 2, 2, 2), -4.0)
    maps[anatomy_index("lung"), 0] = 4.0
    fine = np.diag([1.0, 10.0, 10.0, 1.0])
    write_anatomy(tmp_path / "a.nii.gz", maps, TOKENS, fine, (11, 2, 2))
    assert np.asarray(nib.load(tmp_path / "a.nii.gz").dataobj)[:, 0, 0].tolist() == [1] * 5 + [0] * 6


def test_maps_that_are_no_anatomies_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got 5 maps"):
        write_anatomy(tmp_path / "a.nii.gz", np.zeros((5, 2, 2, 2)), TOKENS, TOKENS, (2, 2, 2))
