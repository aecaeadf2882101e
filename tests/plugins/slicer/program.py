"""Stand-ins for what slicer-core lacks of the Slicer program: module base classes, settings, dialogs, module logics,
views.

The scene, its nodes and the logics are the real ones. ``start`` fills the package ``slicer`` as the program does at its
start.
"""

from __future__ import annotations

import gc
import sys
import tempfile
import unittest
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

PLUGINS = Path(__file__).resolve().parents[3] / "plugins"
MODULE_FOLDER = PLUGINS / "slicer" / "CTFindings"


class Program:
    """A Slicer without its windows.

    Attributes:
        scene: the MRML scene.
        application_logic: of the scene.
        settings: what the module stored.
        charts: charts that were brought to the screen.
        questions: texts of the dialogs that were shown; ``consent`` is what the user answers.
    """

    def __init__(self) -> None:
        import slicer
        import vtk

        self.settings: dict[str, Any] = {}
        self.charts: list[Any] = []
        self.questions: list[str] = []
        self.consent = True
        self._waiting: list[Any] = []
        self.scene = slicer.vtkMRMLScene()
        self.application_logic = slicer.vtkSlicerApplicationLogic()
        self.application_logic.SetMRMLScene(self.scene)
        self.application_logic.SetSliceLogics(vtk.vtkCollection())
        self.application_logic.SetViewLogics(vtk.vtkCollection())
        # Without the colour logic, display nodes of volumes have no colours and slices come out black.
        self._logics = {
            "Colors": slicer.vtkMRMLColorLogic(),
            "Volumes": slicer.vtkSlicerVolumesLogic(),
            "Segmentations": slicer.vtkSlicerSegmentationsModuleLogic(),
            "SubjectHierarchy": slicer.vtkSlicerSubjectHierarchyModuleLogic(),
            "Markups": slicer.vtkSlicerMarkupsLogic(),
        }
        for name, logic in self._logics.items():
            logic.SetMRMLScene(self.scene)
            logic.SetMRMLApplicationLogic(self.application_logic)
            self.application_logic.SetModuleLogic(name, logic)
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene, True)
        # Reading an .mrb goes through the manager of remote files, though nothing is remote.
        self._cache = tempfile.TemporaryDirectory()
        self._remote = slicer.vtkMRMLRemoteIOLogic()
        self._remote.SetMRMLScene(self.scene)
        self._remote.SetMRMLApplicationLogic(self.application_logic)
        self._remote.GetCacheManager().SetRemoteCacheDirectory(self._cache.name)
        self._files = slicer.vtkDataIOManagerLogic()
        self._files.SetMRMLScene(self.scene)
        self._files.SetMRMLApplicationLogic(self.application_logic)
        self._files.SetAndObserveDataIOManager(self._remote.GetDataIOManager())
        self._remote.AddDataIOToScene()
        crosshair = slicer.vtkMRMLCrosshairNode()
        crosshair.SetCrosshairName("default")
        self.scene.AddNode(crosshair)

        slicer.mrmlScene = self.scene
        slicer.app = SimpleNamespace(
            connect=self._connect,
            applicationLogic=lambda: self.application_logic,
            settings=lambda: SimpleNamespace(setValue=self.settings.__setitem__, value=self.settings.get),
        )
        plots = SimpleNamespace(ShowChartInLayout=self.charts.append)
        slicer.modules = SimpleNamespace(
            plots=SimpleNamespace(logic=lambda: plots),
            segmentations=SimpleNamespace(logic=lambda: self._logics["Segmentations"]),
        )

        import slicer.util

        slicer.util.settingsValue = lambda key, default, **_: self.settings.get(key, default)
        slicer.util.confirmOkCancelDisplay = self._confirm
        slicer.util.errorDisplay = lambda text, **_: self.questions.append(text)

    def close(self) -> None:
        """Takes the scene apart while Python still runs; Slicer's core crashes if the interpreter's end does it."""
        import slicer

        self.scene.Clear(1)
        for logic in (*self._logics.values(), self._remote, self._files, self.application_logic):
            logic.SetMRMLScene(None)
            if logic is not self.application_logic:
                logic.SetMRMLApplicationLogic(None)
        slicer.mrmlScene = slicer.app = slicer.modules = None
        self._cache.cleanup()
        gc.collect()

    def finish_start(self) -> None:
        """Calls what waits for the end of Slicer's start."""
        for slot in self._waiting:
            slot()

    def _connect(self, signal: str, slot: Any) -> None:
        assert signal == "startupCompleted()", signal
        self._waiting.append(slot)

    def _confirm(self, text: str, **_: Any) -> bool:
        self.questions.append(text)
        return self.consent


def start() -> Program:
    """Starts the program with an empty scene, and makes the module's folder and base classes importable."""
    if str(MODULE_FOLDER) not in sys.path:
        sys.path.insert(0, str(MODULE_FOLDER))
    if "slicer.ScriptedLoadableModule" not in sys.modules:
        sys.modules["slicer.ScriptedLoadableModule"] = _base_classes()
    return Program()


def _base_classes() -> ModuleType:
    class ScriptedLoadableModule:
        def __init__(self, parent: Any) -> None:
            self.parent = parent

    class ScriptedLoadableModuleLogic:
        def __init__(self, parent: Any = None) -> None:
            self.parent = parent

    class ScriptedLoadableModuleWidget:
        def __init__(self, parent: Any = None) -> None:
            self.parent = parent
            self.layout = SimpleNamespace(addWidget=lambda widget: None)

        def setup(self) -> None: ...

        def resourcePath(self, name: str) -> str:
            return str(MODULE_FOLDER / "Resources" / name)

    class ScriptedLoadableModuleTest(unittest.TestCase):
        def runTest(self) -> None: ...

    module = ModuleType("slicer.ScriptedLoadableModule")
    for value in (
        ScriptedLoadableModule,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleTest,
    ):
        setattr(module, value.__name__, value)
    return module
