"""The slice views: what they show, and the move of all of them to a point."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import slicer
import vtk

SAME_POINT_MM = 0.5
"""Planes that pass a point at this distance meet in it."""


def overlay(volume: Any, heat: Any, opacity: float) -> None:
    """Shows a volume in every slice view, with a heat map over it, or with nothing when that is None."""
    new_background = False
    for composite in _composites():
        if composite.GetBackgroundVolumeID() != volume.GetID():
            composite.SetBackgroundVolumeID(volume.GetID())
            new_background = True
        composite.SetForegroundVolumeID(None if heat is None else heat.GetID())
        composite.SetForegroundOpacity(opacity)
    if new_background:
        slicer.app.applicationLogic().FitSliceToAll()


def take_away(layers: Collection[Any]) -> None:
    """Takes volumes out of the foreground of every slice view."""
    ids = {node.GetID() for node in layers}
    for composite in _composites():
        if composite.GetForegroundVolumeID() in ids:
            composite.SetForegroundVolumeID(None)


def set_opacity(opacity: float) -> None:
    """Opacity (0..1) of the foreground of every slice view."""
    for composite in _composites():
        composite.SetForegroundOpacity(opacity)


def jump(point: tuple[float, float, float]) -> None:
    """Moves every slice view to the slice through a point in RAS mm, and puts the crosshair there.

    A view that shows the point keeps its centre and zoom, so that the reader keeps the whole slice; one that does not
    is centred on it.
    """
    for view in _all("vtkMRMLSliceNode"):
        view.JumpSliceByOffsetting(*point)
        if not _shows(view, point):
            view.JumpSliceByCentering(*point)
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    if crosshair is not None:
        crosshair.SetCrosshairRAS(*point)


def here() -> tuple[float, float, float] | None:
    """The point in RAS mm that all visible slice views show; None where their planes do not meet in one."""
    views, normals, origins = _all("vtkMRMLSliceNode"), [], []
    # Without a layout, as in the browser, no view is mapped into one.
    for view in [view for view in views if view.IsMappedInLayout()] or views:
        to_ras = view.GetSliceToRAS()
        normals.append([to_ras.GetElement(row, 2) for row in range(3)])
        origins.append([to_ras.GetElement(row, 3) for row in range(3)])
    if np.linalg.matrix_rank(np.array(normals).reshape(-1, 3)) < 3:
        return None
    offsets = (np.array(normals) * origins).sum(axis=1)
    point = np.linalg.lstsq(np.array(normals), offsets, rcond=None)[0]
    if np.abs(np.array(normals) @ point - offsets).max() > SAME_POINT_MM:
        return None
    x, y, z = point
    return round(float(x), 2), round(float(y), 2), round(float(z), 2)


def _shows(view: Any, point: tuple[float, float, float]) -> bool:
    from_ras = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Invert(view.GetXYToRAS(), from_ras)
    x, y, _, _ = from_ras.MultiplyPoint((*point, 1.0))
    width, height, _ = view.GetDimensions()
    return 0 <= x < width and 0 <= y < height


def _composites() -> list[Any]:
    return _all("vtkMRMLSliceCompositeNode")


def _all(kind: str) -> list[Any]:
    """The nodes of a class, in the order of the scene."""
    count = slicer.mrmlScene.GetNumberOfNodesByClass(kind)
    return [slicer.mrmlScene.GetNthNodeByClass(index, kind) for index in range(count)]
