"""The scene of 3D Slicer's core and its four views: one scan at a time, its window, its anatomies, and where the views
stand.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk
from ctfindings_client import anatomy, nodes, slices
from ctfindings_client.answers import Findings, Scan
from trame_slicer.core import LayoutManager, SlicerApp
from trame_slicer.rca_view import register_rca_factories
from trame_slicer.views import Layout, LayoutDirection, SliceView, ViewLayoutDefinition

from . import surfaces

VIEWS = {"Axial": 2, "Coronal": 1, "Sagittal": 0}
"""Slice views, with the axis of RAS that they look along."""

THREE_D = "ThreeD"
DISTANCE_ROLE = "distance"

WINDOWS = {"Lung": (1500.0, -600.0), "Mediastinum": (400.0, 40.0), "Bone": (1800.0, 400.0)}
"""Width and level in HU."""

Point = tuple[float, float, float]
"""In RAS mm."""


class Scene:
    """A Slicer without its windows, drawn into the page.

    Args:
        server: the trame server.
        decorate: adds the page's own elements over a view: (server, id of the view, view).
        moved: called after the views moved or were resized.
        pointed: called when the mouse moves over a slice view, or leaves it.
        windowed: called when width and level of the window change.
    """

    def __init__(
        self,
        server: Any,
        decorate: Callable[[Any, str, Any], None],
        moved: Callable[[], None],
        pointed: Callable[[], None],
        windowed: Callable[[], None],
    ) -> None:
        self.program = SlicerApp()
        self.volume: Any = None
        self.answer: Findings | None = None
        self.window = WINDOWS["Mediastinum"]
        self.windowed = windowed
        # What the extension's code expects of the program around it.
        slicer.mrmlScene = self.program.scene
        slicer.app = SimpleNamespace(applicationLogic=lambda: self.program.app_logic)
        register_rca_factories(self.program.view_manager, server, decorate, decorate, blur_fps=20.0)
        self.layout = LayoutManager(self.program.scene, self.program.view_manager, server)
        self.layout.register_layout("four", _layout())
        self.layout.set_layout("four")
        for view in self.program.view_manager.get_threed_views():
            # Mesa, which draws where there is no graphics card, shows nothing at all with it.
            view.renderer().SetUseDepthPeeling(False)
        for view in self.program.view_manager.get_slice_views():
            view.modified.connect(lambda _view: moved())
            _drag_to_window(view)
        self.crosshair = self.program.scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        self.crosshair.AddObserver(self.crosshair.CursorPositionModifiedEvent, lambda *_: pointed())

    def open(self, scan: Scan, name: str) -> Any:
        """Shows another scan in place of the one that is there, with everything that belongs to it.

        Args:
            scan: voxels in HU and place.
            name: of the volume in the scene.

        Returns:
            The volume node.
        """
        with self._batch():
            self.clear()
            volume = self.program.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
            nodes.fill_volume(volume, scan.array, scan.affine)
            volume.CreateDefaultDisplayNodes()
            volume.GetDisplayNode().SetAndObserveColorNodeID("vtkMRMLColorTableNodeGrey")
        self.volume = volume
        self.set_window(*self.window)
        volume.GetDisplayNode().AddObserver(vtk.vtkCommand.ModifiedEvent, self._note_window)
        slices.overlay(volume, None, 0.0)
        self.program.display_manager.reset_views()
        return volume

    def clear(self) -> None:
        """Removes the scan and what belongs to it."""
        if self.volume is None:
            return
        nodes.remove(self.volume)
        display = self.volume.GetDisplayNode()
        self.program.scene.RemoveNode(self.volume)
        if display is not None:
            self.program.scene.RemoveNode(display)
        self.volume, self.answer = None, None

    def set_window(self, width: float, level: float) -> None:
        """Width and level of the slice views in HU."""
        self.window = width, level
        if self.volume is not None:
            display = self.volume.GetDisplayNode()
            display.AutoWindowLevelOff()
            display.SetWindowLevel(width, level)
            self.draw()

    def _note_window(self, display: Any, _event: str) -> None:
        """Keeps the width and level that the mouse has set, also for the next scan."""
        window = display.GetWindow(), display.GetLevel()
        if window != self.window:
            self.window = window
            self.windowed()

    def show_surfaces(self, findings: Findings) -> None:
        """Shows the anatomies of an answer in the 3D view, from the front."""
        self.answer = findings
        nodes.find(self.volume, anatomy.ROLE).GetDisplayNode().SetVisibility(False)
        with self._batch():
            surfaces.show(self.volume, findings.labels, findings.affine, findings.label_names)
        for view in self.program.view_manager.get_threed_views():
            view.reset_view()

    def show_outlines(self, visible: bool) -> None:
        """Shows or hides the outlines of the anatomies in the slice views; they are made when they are first shown."""
        if self.volume is None or self.answer is None:
            return
        if not surfaces.set_visible(self.volume, surfaces.OUTLINES, visible) and visible:
            of = self.answer
            surfaces.show(self.volume, of.labels, of.affine, of.label_names, surfaces.OUTLINES)
        self.draw()

    def set_visible(self, role: str, visible: bool) -> None:
        """Shows or hides what has a role: the points or the box."""
        if self.volume is None:
            return
        node = nodes.find(self.volume, role)
        if node is not None and node.GetDisplayNode() is not None:
            node.GetDisplayNode().SetVisibility(visible)
        self.draw()

    def places(self) -> dict[str, float]:
        """Where each slice view stands: its RAS coordinate in mm along the axis that it looks along."""
        return {name: float(self._to_ras(view).GetElement(VIEWS[name], 3)) for name, view in self._views().items()}

    def pointed_at(self) -> tuple[str, Point] | None:
        """The slice view under the mouse, and the place there in RAS mm; None if the mouse is over none."""
        in_view = [0.0, 0.0, 0.0]
        node = self.crosshair.GetCursorPositionXYZ(in_view)
        if self.volume is None or node is None:
            return None
        # The crosshair keeps the place of the last move of the mouse, though the view may show another slice by now.
        x, y, z, _ = node.GetXYToRAS().MultiplyPoint((*in_view[:2], 0.0, 1.0))
        return node.GetSingletonTag(), (x, y, z)

    def hu(self, place: Point) -> int | None:
        """HU of the voxel at a place in RAS mm; None outside the scan."""
        i, j, k = np.rint(np.linalg.inv(nodes.affine_of(self.volume)) @ [*place, 1.0])[:3].astype(int)
        voxels = slicer.util.arrayFromVolume(self.volume)
        inside = all(0 <= index < size for index, size in zip((k, j, i), voxels.shape, strict=True))
        return int(voxels[k, j, i]) if inside else None

    def measure(self, changed: Callable[[float | None], None]) -> None:
        """Begins a distance: the next two clicks in a slice view set its ends. An earlier one is removed.

        Args:
            changed: called with the length in mm while it is drawn; with None as long as it has one end.
        """
        self.stop_measuring()
        line = nodes.make(self.volume, DISTANCE_ROLE, "vtkMRMLMarkupsLineNode", "Distance")
        line.CreateDefaultDisplayNodes()
        line.GetDisplayNode().SetTextScale(2.5)
        line.GetDisplayNode().SetSelectedColor(0.45, 0.8, 1.0)
        line.GetDisplayNode().SetVisibility3D(False)

        def moved(*_: Any) -> None:
            changed(line.GetLineLengthWorld() if line.GetNumberOfControlPoints() > 1 else None)

        for event in (line.PointModifiedEvent, line.PointPositionDefinedEvent):
            line.AddObserver(event, moved)
        self.program.markups_logic.place_node(line)

    def stop_measuring(self) -> None:
        """Removes the distance."""
        self.program.markups_logic.disable_place_mode()
        if self.volume is not None:
            nodes.remove(self.volume, DISTANCE_ROLE)
        self.draw()

    def draw(self) -> None:
        """Draws all views again; a change of opacity or window alone does not reach them."""
        for view in self.program.view_manager.get_views():
            view.schedule_render()

    def set_height(self, z_mm: float) -> None:
        """Moves the axial view to a height."""
        view = self._views()["Axial"]
        if self.volume is not None:
            view.set_slice_value(view.get_slice_value() + (z_mm - self.places()["Axial"]) / self._slope(view))

    def step(self, name: str, slices_up: int) -> None:
        """Moves a slice view, or without one of that name the axial one, by slices along its axis of RAS."""
        views = self._views()
        view = views.get(name, views["Axial"])
        if self.volume is not None:
            low, high = view.get_slice_range()
            offset = slices_up * view.get_slice_step() * np.sign(self._slope(view))
            view.set_slice_value(min(max(view.get_slice_value() + offset, low), high))

    def _views(self) -> dict[str, SliceView]:
        return {view.get_singleton_tag(): view for view in self.program.view_manager.get_slice_views()}

    def _slope(self, view: SliceView) -> float:
        """How far a slice view goes along its axis of RAS with a mm of its offset, which is counted along its own
        normal: towards the left in a sagittal view, and as steep as the slices of a pitched scan.
        """
        return float(self._to_ras(view).GetElement(VIEWS[view.get_singleton_tag()], 2))

    def _to_ras(self, view: SliceView) -> Any:
        return self.program.scene.GetNodeByID(view.get_view_node_id()).GetSliceToRAS()

    @contextmanager
    def _batch(self) -> Iterator[None]:
        self.program.scene.StartState(slicer.vtkMRMLScene.BatchProcessState)
        try:
            yield
        finally:
            self.program.scene.EndState(slicer.vtkMRMLScene.BatchProcessState)


def _drag_to_window(view: Any) -> None:
    """Lets a drag with the right button set width and level, as reading rooms do. Slicer zooms with it; the wheel with
    Ctrl still does.
    """
    bars = view.get_displayable_manager_by_class("vtkMRMLScalarBarDisplayableManager")
    window = bars.GetWindowLevelWidget()
    window.SetForegroundVolumeEditable(False)  # the heat map
    window.SetEventTranslationClickAndDrag(
        window.WidgetStateIdle,
        vtk.vtkCommand.RightButtonPressEvent,
        vtk.vtkEvent.NoModifier,
        window.WidgetStateAdjustWindowLevel,
        window.WidgetEventAlwaysOnAdjustWindowLevelStart,
        window.WidgetEventAlwaysOnAdjustWindowLevelEnd,
    )
    crosshair = view.get_displayable_manager_by_class("vtkMRMLCrosshairDisplayableManager")
    slices_widget = crosshair.GetSliceIntersectionWidget()
    slices_widget.SetEventTranslation(
        slices_widget.WidgetStateIdle,
        vtk.vtkCommand.RightButtonPressEvent,
        vtk.vtkEvent.NoModifier,
        slices_widget.WidgetEventNone,
    )


def show_all(view: Any) -> None:
    """Shows all of the scan in a view. A slice view stays at its slice, where a reset alone would go to the middle."""
    place = view.get_slice_value() if isinstance(view, SliceView) else None
    view.reset_view()
    if place is not None:
        view.set_slice_value(place)


@contextmanager
def without_warnings() -> Iterator[None]:
    """VTK 9.6 warns for each view, in seven lines, of an event that trame-slicer observes in its old way."""
    slicer.vtkMRMLScene.GlobalWarningDisplayOff()
    try:
        yield
    finally:
        slicer.vtkMRMLScene.GlobalWarningDisplayOn()


def _layout() -> Layout:
    axial = ViewLayoutDefinition.axial_view("Axial")
    coronal = ViewLayoutDefinition.coronal_view("Coronal")
    sagittal = ViewLayoutDefinition.sagittal_view("Sagittal")
    three_d = ViewLayoutDefinition.threed_view(name=THREE_D, background_color=("#101418", "#101418"))
    left = Layout(LayoutDirection.Vertical, [axial, coronal])
    right = Layout(LayoutDirection.Vertical, [three_d, sagittal])
    return Layout(LayoutDirection.Horizontal, [left, right])
