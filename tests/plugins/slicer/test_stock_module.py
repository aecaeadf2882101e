"""The unmodified MONAI Label module of Slicer, from the monailabel wheel, with answers in the shape of this project's
server.

Its client and the method that puts an answer into the scene run as they are; Qt and the helpers that slicer-core lacks
are stand-ins.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import sysconfig
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from bundle.ctfindings.anatomy import ANATOMIES, ANATOMY_NAMES
from tests.plugins.slicer.conftest import BundleAnswer
from tests.plugins.slicer.program import Program
from tests.plugins.slicer.stand_in_server import StandInServer

pytestmark = pytest.mark.filterwarnings("ignore:'cgi' is deprecated:DeprecationWarning")
STOCK = Path(sysconfig.get_path("data")) / "monailabel" / "plugins" / "slicer" / "MONAILabel"


@pytest.fixture
def stock(program: Program, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module ``MONAILabel.py`` as the wheel ships it."""
    if not (STOCK / "MONAILabel.py").is_file():
        pytest.skip("the monailabel wheel is not installed")
    sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed; the stock module reads answers with it")
    if sys.version_info >= (3, 13):
        pytest.skip("the stock module imports cgi, which Python 3.13 no longer has")
    import slicer
    import slicer.util

    def push(image: Any, _node: Any, className: str) -> Any:
        node = program.scene.AddNewNodeByClass(className)
        flip = np.diag([-1.0, -1.0, 1.0, 1.0])
        affine = np.eye(4)
        affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
        affine[:3, 3] = image.GetOrigin()
        from ctfindings_client import nodes

        nodes.fill_volume(node, sitk.GetArrayFromImage(image), flip @ affine)
        return node

    def load_markups(path: str) -> Any:
        return program.scene.GetNodeByID(program.application_logic.GetModuleLogic("Markups").LoadMarkups(path, None))

    names: dict[str, dict[str, Any]] = {
        "ctk": {"ctkSettingsPanel": object},
        "SampleData": {},
        "sitkUtils": {"PushVolumeToSlicer": push},
        "vtkSegmentationCore": {},
        "slicer.i18n": {"tr": str, "translate": lambda _context, text: text},
    }
    for name, members in names.items():
        module = ModuleType(name)
        module.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(sys.modules["qt"], "QDialog", object, raising=False)
    monkeypatch.setattr(slicer.util, "loadMarkups", load_markups)
    monkeypatch.setattr(slicer.util, "tempDirectory", lambda key: __import__("tempfile").mkdtemp(prefix=key))
    monkeypatch.syspath_prepend(str(STOCK))
    spec = importlib.util.spec_from_file_location("MONAILabel", STOCK / "MONAILabel.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in [name for name in sys.modules if name.startswith("MONAILabelLib")]:
        del sys.modules[name]


@pytest.fixture
def infer(stock: ModuleType, server: StandInServer, bundle_answer: BundleAnswer) -> Any:
    """Asks a model through the stock module's own client, as its button does: (file, params)."""
    logic = stock.MONAILabelLogic(server_url=server.address)
    session = logic.create_session(str(bundle_answer.scan))["session_id"]
    return lambda model: logic.infer(model, "", {}, session_id=session)


def test_stock_module_shows_the_anatomies(
    stock: ModuleType, infer: Any, program: Program, volume: Any, bundle_answer: BundleAnswer
) -> None:
    import slicer.util

    file, params = infer("findings")
    names = [name for name, _ in sorted(params["label_names"].items(), key=lambda entry: entry[1])]
    assert tuple(names) == ANATOMY_NAMES
    node = program.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    widget = SimpleNamespace(_segmentNode=node, file_ext=".nii.gz", _volumeNode=volume)
    assert stock.MONAILabelWidget.updateSegmentationMask(widget, file, names)
    mask = np.asarray(nib.load(bundle_answer.labels).dataobj)
    for anatomy in ANATOMIES:
        segment_id = node.GetSegmentation().GetSegmentIdBySegmentName(anatomy.name)
        np.testing.assert_array_equal(
            slicer.util.arrayFromSegmentBinaryLabelmap(node, segment_id, volume).T > 0, mask == anatomy.mask_id
        )


def test_stock_module_shows_labelled_points(
    stock: ModuleType, infer: Any, program: Program, server: StandInServer, bundle_answer: BundleAnswer
) -> None:
    points = []
    for finding in bundle_answer.present():
        x, y, z = finding["evidence"]["peak_mm"]
        points.append(
            {
                "id": str(len(points)),
                "label": f"{finding['name']} {finding['probability']:.2f}",
                "position": [-x, -y, z],
            }
        )
    markups = {"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": points}
    server.points = json.dumps({"@schema": _SCHEMA, "markups": [markups]}).encode()
    file, _ = infer("findings_points")
    widget = SimpleNamespace(
        _segmentNode=program.scene.AddNewNodeByClass("vtkMRMLSegmentationNode"), file_ext=".nii.gz"
    )
    assert stock.MONAILabelWidget.updateSegmentationMask(widget, file, None)
    node = program.scene.GetFirstNodeByClass("vtkMRMLMarkupsFiducialNode")
    assert node.GetNumberOfControlPoints() == len(points) > 0
    for index, finding in enumerate(bundle_answer.present()):
        assert node.GetNthControlPointLabel(index) == f"{finding['name']} {finding['probability']:.2f}"
        assert node.GetNthControlPointPositionWorld(index) == pytest.approx(finding["evidence"]["peak_mm"], abs=1e-4)


_SCHEMA = "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/markups-schema-v1.0.3.json#"
