"""Slice and 3D views without a window, drawn by Slicer's own displayable managers into PNGs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

ORIENTATIONS = {"Red": "Axial", "Green": "Coronal", "Yellow": "Sagittal"}
_SLICE_MANAGERS = (
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
)
_3D_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLMarkupsDisplayableManager",
)


class _View:
    def __init__(self, factory: Any, application_logic: Any, managers: tuple[str, ...], size: tuple[int, int]) -> None:
        self.renderer = vtk.vtkRenderer()
        self.window = vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.SetMultiSamples(0)
        self.window.SetSize(*size)
        self.window.AddRenderer(self.renderer)
        # Markups and 3D scenes need an interactor, even one that nobody uses.
        self.interactor = vtk.vtkRenderWindowInteractor()
        self.interactor.SetRenderWindow(self.window)
        self.interactor.EnableRenderOff()
        factory.SetMRMLApplicationLogic(application_logic)
        for manager in managers:
            if not factory.IsDisplayableManagerRegistered(manager):
                factory.RegisterDisplayableManager(manager)
        self.managers = slicer.vtkMRMLDisplayableManagerGroup()
        self.managers.SetRenderer(self.renderer)
        self.managers.Initialize(factory, self.renderer)

    def pixels(self) -> np.ndarray:
        """What the view shows, ``(height, width, 3)`` uint8, top row first."""
        self.window.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self.window)
        grab.ReadFrontBufferOff()
        grab.Update()
        image = grab.GetOutput()
        width, height, _ = image.GetDimensions()
        return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)[::-1, :, :3].copy()

    def close(self) -> None:
        """Lets go of the scene and of the graphics context."""
        self.managers.SetMRMLDisplayableNode(None)
        self.logic.SetMRMLScene(None)
        self.window.Finalize()

    def save(self, path: Path) -> None:
        """Writes what the view shows as PNG."""
        from PIL import Image

        Image.fromarray(self.pixels()).save(path)


class SliceView(_View):
    """One of the slice views. Attributes: ``node`` (slice node), ``composite``, ``logic``."""

    def __init__(self, program: Any, name: str, size: tuple[int, int] = (480, 480)) -> None:
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        super().__init__(factory, program.application_logic, _SLICE_MANAGERS, size)
        self.renderer.GetActiveCamera().ParallelProjectionOn()
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(program.application_logic)
        program.application_logic.GetSliceLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(program.scene)
        self.node = self.logic.AddSliceNode(name)
        self.node.SetOrientation(ORIENTATIONS[name])
        self.composite = self.logic.GetSliceCompositeNode()
        self.node.SetDimensions(*size, 1)
        self.logic.ResizeSliceNode(*size)
        self.mapper = mapper = vtk.vtkImageMapper()
        mapper.SetColorWindow(255)
        mapper.SetColorLevel(127.5)
        actor = vtk.vtkActor2D()
        actor.SetMapper(mapper)
        actor.GetProperty().SetDisplayLocationToBackground()
        self.renderer.AddViewProp(actor)
        self.managers.SetMRMLDisplayableNode(self.node)

    def resize(self, width: int, height: int) -> None:
        """Gives the view another size in pixels and fits the scan into it."""
        self.window.SetSize(width, height)
        self.node.SetDimensions(width, height, 1)
        self.logic.ResizeSliceNode(width, height)
        self.logic.FitSliceToAll(width, height)

    def pixels(self) -> np.ndarray:
        self.mapper.SetInputConnection(self.logic.GetImageDataConnection())  # another one whenever the layers change
        return super().pixels()

    def to_pixel(self, ras: tuple[float, float, float]) -> tuple[float, float]:
        """Column and row of a world point in ``pixels``."""
        to_ras = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(self.node.GetXYToRAS(), to_ras)
        x, y, _, _ = to_ras.MultiplyPoint((*ras, 1.0))
        return x, self.node.GetDimensions()[1] - 1 - y


class ThreeDView(_View):
    """A 3D view."""

    def __init__(self, program: Any, size: tuple[int, int] = (480, 480)) -> None:
        factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
        super().__init__(factory, program.application_logic, _3D_MANAGERS, size)
        self.logic = slicer.vtkMRMLViewLogic()
        self.logic.SetMRMLApplicationLogic(program.application_logic)
        program.application_logic.GetViewLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(program.scene)
        self.node = self.logic.AddViewNode("1")
        self.node.SetBoxVisible(False)
        self.node.SetAxisLabelsVisible(False)
        self.node.SetBackgroundColor(0.1, 0.1, 0.12)
        self.node.SetBackgroundColor2(0.1, 0.1, 0.12)
        self.managers.SetMRMLDisplayableNode(self.node)

    def look_from_front(self) -> None:
        """Shows all of the scene from anterior, superior up."""
        self.renderer.GetActiveCamera().SetPosition(-400, 1000, 350)
        self.renderer.GetActiveCamera().SetFocalPoint(0, 0, 0)
        self.renderer.GetActiveCamera().SetViewUp(0, 0, 1)
        self.renderer.ResetCamera()
        self.renderer.ResetCameraClippingRange()
