"""The module's own test for Slicer's developer mode: an answer that is made up reaches the scene. Needs no server and
no data.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import slicer.util

from ctfindings_client import anatomy, heat, nodes, points, tables
from ctfindings_client.answers import Evidence, Findings
from ctfindings_client.record import Record

_AFFINE = np.array([[-2.0, 0, 0, 40], [0, -2, 0, 50], [0, 0, 3, -60], [0, 0, 0, 1.0]])
_PEAK = (10.0, 20.0, -30.0)


def answer_reaches_the_scene(test: Any, logic: Any) -> None:
    """Shows a made-up answer and checks the scene with the assertions of a ``unittest.TestCase``."""
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "made-up scan")
    nodes.fill_volume(volume, np.full((30, 40, 50), -1000, dtype=np.int16), _AFFINE)
    volume.CreateDefaultDisplayNodes()

    labels = np.zeros((30, 40, 50), dtype=np.uint8)
    labels[5:15, 5:15, 5:15], labels[15:20, 5:15, 5:15] = 1, 2
    findings = Findings(_record(), labels, _AFFINE, {"lung": 1, "heart": 2})
    record = logic.show_findings(volume, findings)
    segmentation = nodes.find(volume, anatomy.ROLE).GetSegmentation()
    test.assertEqual([segmentation.GetNthSegment(index).GetName() for index in range(2)], ["Lung", "Heart"])
    test.assertEqual(nodes.find(volume, points.ROLE).GetNthControlPointLabel(0), "Pleural effusion 0.82")
    test.assertEqual(nodes.find(volume, tables.TABLE_ROLE).GetNumberOfRows(), 1)

    voxel = np.linalg.inv(_AFFINE) @ [*_PEAK, 1]
    i, j, k = (round(float(value)) for value in voxel[:3])
    heat_map = np.zeros((30, 40, 50), dtype=np.uint8)
    heat_map[k, j, i] = 230
    depth = tuple((-60.0 + 3 * level, 0.9 * (level == k)) for level in range(30))
    evidence = Evidence("Pleural effusion", 0.82, heat_map, 230, _AFFINE, depth, _PEAK, ((8, 18, -32), (12, 22, -28)))
    logic.show_evidence(volume, evidence)
    test.assertEqual(int(slicer.util.arrayFromVolume(heat.heat_of(volume)).max()), 230)
    for index in range(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSliceNode")):
        to_ras = slicer.mrmlScene.GetNthNodeByClass(index, "vtkMRMLSliceNode").GetSliceToRAS()
        normal = np.array([to_ras.GetElement(row, 2) for row in range(3)])
        origin = np.array([to_ras.GetElement(row, 3) for row in range(3)])
        test.assertAlmostEqual(float(normal @ (origin - np.array(_PEAK))), 0.0, places=3)
    test.assertEqual(tables.stored_record(volume), record)


def _record() -> Record:
    evidence = {
        "peak_mm": [*_PEAK[:2], -29.0],
        "peak_score": 0.9,
        "box_mm": [[8, 18, -32], [12, 22, -28]],
        "slice_index": 10,
        "slice_axis": 2,
        "image": 20,
        "z_mm": _PEAK[2],
        "side": "right",
    }
    finding = {"name": "Pleural effusion", "probability": 0.82, "threshold": 0.5, "present": True, "anatomy": "lung"}
    finding.update(anatomy_found=True, template_spread={"min": 0.7, "max": 0.9}, evidence=evidence)
    model = {"bundle": "made up", "version": "0", "weights_sha256": "0" * 64}
    return Record.parse({"schema_version": "1.0", "model": model, "findings": [finding], "queries": [], "warnings": []})
