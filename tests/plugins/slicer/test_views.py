"""Drawn by Slicer's own slice views: heat inside the box and none outside, the right slice, opacity, outlines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.plugins.slicer.program import Program

AFFINE = np.array([[-1.5, 0, 0, 120], [0, -1.5, 0, 90], [0, 0, 2.5, -140], [0, 0, 0, 1.0]])
SHAPE = (110, 120, 160)
"""(K, J, I)."""

BOX = ((-60.0, -30.0, -20.0), (-20.0, 20.0, 30.0))
CENTRE = (-40.0, -5.0, 5.0)


def _inside(low: tuple[float, ...], high: tuple[float, ...]) -> np.ndarray:
    k, j, i = np.indices(SHAPE)
    world = np.stack([AFFINE[axis, axis] * index + AFFINE[axis, 3] for axis, index in enumerate((i, j, k))])
    return np.all([(world[axis] >= low[axis]) & (world[axis] <= high[axis]) for axis in range(3)], axis=0)


@pytest.fixture
def shown(slice_views: dict[str, Any], program: Program) -> dict[str, Any]:
    """A grey scan with a made-up heat map that fills a box, shown by the module."""
    from ctfindings_client import nodes
    from ctfindings_client.client import Evidence
    from ctfindings_client.study import Studies

    volume = program.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "scan")
    nodes.fill_volume(volume, np.zeros(SHAPE, dtype=np.int16), AFFINE)
    volume.CreateDefaultDisplayNodes()
    volume.GetDisplayNode().AutoWindowLevelOff()
    volume.GetDisplayNode().SetWindowLevel(400, 0)
    studies = Studies()
    heat_map = np.where(_inside(*BOX), np.uint8(204), np.uint8(26))
    studies.show_evidence(volume, Evidence("x", 0.8, heat_map, 204, AFFINE, ((-140.0, 0.1), (5.0, 0.8)), CENTRE, BOX))
    nodes.remove(volume, "box")  # its lines would count as colour
    return {**slice_views, "studies": studies, "volume": volume}


def _coloured(pixels: np.ndarray) -> np.ndarray:
    return pixels.max(axis=-1).astype(int) - pixels.min(axis=-1) > 12


def _box_in(view: Any) -> np.ndarray:
    """Pixels that lie in the box, by the view's own geometry, ``(height, width)``."""
    width, height, _ = view.node.GetDimensions()
    to_ras = np.array([[view.node.GetXYToRAS().GetElement(row, column) for column in range(4)] for row in range(4)])
    y, x = np.mgrid[height - 1 : -1 : -1, 0:width]
    world = np.stack([x, y, np.zeros_like(x), np.ones_like(x)], axis=-1) @ to_ras.T
    return np.all((world[..., :3] >= BOX[0]) & (world[..., :3] <= BOX[1]), axis=-1)


@pytest.mark.parametrize("name", ["Red", "Green", "Yellow"])
def test_heat_is_inside_the_box_and_nowhere_else(shown: dict[str, Any], name: str) -> None:
    view = shown[name]
    coloured, inside = _coloured(view.pixels()), _box_in(view)
    assert inside.sum() > 1000
    pixel_mm = view.node.GetFieldOfView()[0] / view.node.GetDimensions()[0]
    margin = int(np.ceil(2.5 / pixel_mm)) + 1  # a voxel of interpolation at the edge
    from scipy import ndimage

    assert coloured[ndimage.binary_erosion(inside, iterations=margin)].all()
    assert not coloured[
        ndimage.binary_dilation(~inside, iterations=margin) & ~ndimage.binary_dilation(inside, iterations=margin)
    ].any()


def test_all_views_stand_at_the_evidence(shown: dict[str, Any]) -> None:
    for name, axis in (("Yellow", 0), ("Green", 1), ("Red", 2)):
        matrix = shown[name].node.GetSliceToRAS()
        assert matrix.GetElement(axis, 3) == pytest.approx(CENTRE[axis], abs=1e-3)


def test_opacity_mixes_heat_and_scan_and_zero_hides_it(shown: dict[str, Any]) -> None:
    view, spread = shown["Red"], []
    for opacity in (0.0, 0.3, 0.9):
        shown["studies"].set_opacity(opacity)
        pixels = view.pixels()
        column, row = (round(value) for value in view.to_pixel(CENTRE))
        spread.append(int(pixels[row, column].max()) - int(pixels[row, column].min()))
    assert spread[0] == 0 and spread[0] < spread[1] < spread[2]


def test_a_floor_above_the_rest_leaves_only_the_strongest(shown: dict[str, Any]) -> None:
    view = shown["Red"]
    shown["studies"].set_floor(shown["volume"], 0.05)
    everywhere = _coloured(view.pixels()).sum()
    shown["studies"].set_floor(shown["volume"], 0.5)
    assert _coloured(view.pixels()).sum() < 0.5 * everywhere


def test_anatomy_is_drawn_as_an_outline_that_leaves_the_scan_visible(
    slice_views: dict[str, Any], program: Program
) -> None:
    from ctfindings_client import anatomy, nodes, slices

    volume = program.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "scan")
    nodes.fill_volume(volume, np.zeros(SHAPE, dtype=np.int16), AFFINE)
    volume.CreateDefaultDisplayNodes()
    volume.GetDisplayNode().AutoWindowLevelOff()
    volume.GetDisplayNode().SetWindowLevel(400, 0)
    labels = _inside(*BOX).astype(np.uint8) * 4
    anatomy.show(volume, labels, AFFINE, {"aorta": 4})
    slices.overlay(volume, None, 0.5)
    slices.jump(CENTRE)
    view = slice_views["Red"]
    coloured, inside = _coloured(view.pixels()), _box_in(view)
    from scipy import ndimage

    assert coloured[inside].any()
    assert not coloured[ndimage.binary_erosion(inside, iterations=6)].any()
