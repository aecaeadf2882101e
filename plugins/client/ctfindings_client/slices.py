"""The slice views: what they show, and the move of all of them to a point."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import slicer
import vtk


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
    for index in range(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSliceNode")):
        view = slicer.mrmlScene.GetNthNodeByClass(index, "vtkMRMLSliceNode")
        view.JumpSliceByOffsetting(*point)
        if not _shows(view, point):
            view.JumpSliceByCentering(*point)
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    if crosshair is not None:
        crosshair.SetCrosshairRAS(*point)


def _shows(view: Any, point: tuple[float, float, float]) -> bool:
    from_ras = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Invert(view.GetXYToRAS(), from_ras)
    x, y, _, _ = from_ras.MultiplyPoint((*point, 1.0))
    width, height, _ = view.GetDimensions()
    return 0 <= x < width and 0 <= y < height


def _composites() -> list[Any]:
    count = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")
    return [slicer.mrmlScene.GetNthNodeByClass(index, "vtkMRMLSliceCompositeNode") for index in range(count)]
