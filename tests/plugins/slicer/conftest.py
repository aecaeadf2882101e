"""The Slicer program without windows, and a server with answers that the bundle gave for a synthetic scan."""

from __future__ import annotations

import ctypes.util
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from tests.plugins.slicer import stand_in_qt, stand_in_server
from tests.plugins.slicer.program import MODULE_FOLDER, Program, start

if str(MODULE_FOLDER) not in sys.path:
    sys.path.insert(0, str(MODULE_FOLDER))

QUERY = "fluid around the lung"


@dataclass(frozen=True)
class BundleAnswer:
    """What the bundle says about the synthetic scan.

    Attributes:
        scan: path of the scan.
        hu: its voxels ``(I, J, K)``.
        affine: to RAS mm.
        labels: path of the anatomy mask.
        record: the findings record as a dictionary.
        maps: evidence on the scan's grid ``(I, J, K)`` by finding or query.
    """

    scan: Path
    hu: np.ndarray
    affine: np.ndarray
    labels: Path
    record: dict[str, Any]
    maps: dict[str, np.ndarray]

    def present(self) -> list[dict[str, Any]]:
        """Entries of the present findings that have evidence."""
        return [finding for finding in self.record["findings"] if finding["present"] and finding["evidence"]]

    def evidence(self, params: dict[str, str]) -> tuple[dict[str, Any], bytes]:
        """Params and file of the model ``evidence``, as the HTTP interface says."""
        if "finding" in params:
            entry = next(finding for finding in self.record["findings"] if finding["name"] == params["finding"])
            heat = self.maps[entry["name"]]
        else:
            entry = next(query for query in self.record["queries"] if query["text"] == params["query"])
            heat = self.maps[f"query: {entry['text']}"]
        place = entry["evidence"]
        heights = self.affine[2, 3] + self.affine[2, 2] * np.arange(heat.shape[2])
        profile = heat.max(axis=(0, 1))
        answer = {
            "text": params.get("finding") or params["query"],
            "probability": entry["probability"] if "finding" in params else None,
            "score": entry["probability"] if "finding" in params else entry["score"],
            "depth": [{"z_mm": float(z), "score": float(score)} for z, score in zip(heights, profile, strict=True)],
            **{key: place[key] for key in ("z_mm", "peak_mm", "slice_index", "slice_axis", "image", "box_mm")},
            "seconds": 0.1,
        }
        stored = nib.Nifti1Image(np.rint(255 * heat).astype(np.uint8), self.affine)
        stored.header.set_slope_inter(1 / 255, 0)
        return answer, stored.to_bytes()


@pytest.fixture(scope="session")
def bundle_answer(
    bundle_root: Path, phantom_scan: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> BundleAnswer:
    """``configs/inference.json`` with the shipped weights on a synthetic scan."""
    from monai.bundle import ConfigParser

    scan, labels = phantom_scan
    output = tmp_path_factory.mktemp("answer")
    parser = ConfigParser()
    parser.read_config(bundle_root / "configs" / "inference.json")
    parser["bundle_root"], parser["image"], parser["output_dir"] = str(bundle_root), str(scan), str(output)
    parser["evidence"], parser["queries"] = "all", [QUERY]
    parser.get_parsed_content("imports")
    parser.get_parsed_content("evaluator").run()
    record = json.loads((output / "scan" / "findings.json").read_text(encoding="utf-8"))
    image = nib.load(scan)
    heat = nib.load(output / "scan" / "evidence.nii.gz").get_fdata(dtype=np.float32)
    maps = {key: np.ascontiguousarray(heat[..., channel]) for channel, key in enumerate(record["evidence_channels"])}
    return BundleAnswer(scan, np.asarray(image.dataobj), image.affine, labels, record, maps)


@pytest.fixture(scope="session")
def packaged(bundle_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The extension as scripts/package_slicer_extension.py writes it, with the client code and the scan."""
    output = tmp_path_factory.mktemp("packaged")
    command = [sys.executable, str(bundle_root / "scripts" / "package_slicer_extension.py"), "--output", str(output)]
    subprocess.run(command, check=True, capture_output=True)
    return output / "SlicerCTFindings"


@pytest.fixture
def server(bundle_answer: BundleAnswer) -> Iterator[stand_in_server.StandInServer]:
    """A server that answers about the synthetic scan."""
    from bundle.ctfindings.anatomy import ANATOMIES

    names = {anatomy.name: anatomy.mask_id for anatomy in ANATOMIES}
    findings = ({"record": bundle_answer.record, "label_names": names}, bundle_answer.labels.read_bytes())
    running = stand_in_server.StandInServer(findings, bundle_answer.evidence)
    yield running
    running.close()


@pytest.fixture
def program() -> Iterator[Program]:
    """Slicer's core with an empty scene; skipped where it is not installed."""
    pytest.importorskip("slicer", reason="slicer-core is not installed (make slicer)")
    stand_in_qt.install()
    program = start()
    yield program
    program.close()


@pytest.fixture
def slice_views(program: Program) -> Iterator[dict[str, Any]]:
    """Red (axial), Green (coronal) and Yellow (sagittal) views that can be drawn."""
    if not (ctypes.util.find_library("EGL") or ctypes.util.find_library("OSMesa")):
        pytest.skip("nothing here draws without a screen (Debian: apt-get install libegl1 libgl1 libxrender1)")
    from tests.plugins.slicer.views import ORIENTATIONS, SliceView

    views = {name: SliceView(program, name) for name in ORIENTATIONS}
    yield views
    for view in views.values():
        view.close()


@pytest.fixture
def volume(program: Program, bundle_answer: BundleAnswer) -> Any:
    """The synthetic scan in the scene, read by the module's own decoder."""
    from ctfindings_client import nifti, nodes

    node = program.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Doe^Jane chest")
    nodes.fill_volume(node, *nifti.decode(bundle_answer.scan.read_bytes()))
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().AutoWindowLevelOff()
    node.GetDisplayNode().SetWindowLevel(1400, -500)
    return node


@pytest.fixture
def axial(program: Program) -> Any:
    """An axial slice node with its composite node; nothing is drawn."""
    node = program.scene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
    node.SetLayoutName("Red")
    node.SetOrientation("Axial")
    node.SetDimensions(400, 400, 1)
    node.SetFieldOfView(500, 500, 1)
    program.scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode", "Red")
    return node


@pytest.fixture
def panel(program: Program, server: stand_in_server.StandInServer) -> Iterator[Any]:
    """The module's panel, with the address of the server."""
    import CTFindings

    program.settings["CTFindings/serverAddress"] = server.address
    widget = CTFindings.CTFindingsWidget(None)
    widget.setup()
    yield widget
    widget.cleanup()
