"""The module against a server that runs: ``CTFINDINGS_SERVER=http://127.0.0.1:8000 pytest
tests/plugins/slicer/test_live_server.py``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.plugins.slicer.program import Program


@pytest.fixture
def address() -> str:
    value = os.environ.get("CTFINDINGS_SERVER", "")
    if not value:
        pytest.skip("no server was named (CTFINDINGS_SERVER)")
    return value


def test_findings_and_evidence_of_a_live_server_reach_the_scene(
    address: str, program: Program, phantom_scan: tuple[Path, Path]
) -> None:
    import slicer.util
    from ctfindings_client import anatomy, heat, nifti, nodes
    from ctfindings_client.study import Studies
    from ctfindings_client.transport import Cancellation, ignore_progress

    def run(work: Any) -> Any:
        return work(Cancellation(), ignore_progress)

    view = program.scene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
    view.SetOrientation("Axial")
    volume = program.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "scan")
    nodes.fill_volume(volume, *nifti.decode(phantom_scan[0].read_bytes()))
    volume.CreateDefaultDisplayNodes()
    studies = Studies()
    studies.address = address
    run(studies.ask_connection())
    record = studies.show_findings(volume, run(studies.ask_findings(volume)))
    assert len(record.rows) == 18
    assert nodes.find(volume, anatomy.ROLE).GetSegmentation().GetNumberOfSegments() > 0
    placed = [row for row in record.rows if row.present and row.peak_mm]
    assert placed
    for row in placed[:3]:
        evidence = studies.show_evidence(volume, run(studies.ask_evidence(volume, finding=row.name)))
        assert evidence.probability == pytest.approx(row.probability, abs=1e-4)
        assert view.GetSliceOffset() == pytest.approx(row.peak_mm[2], abs=1e-2)
        voxels = slicer.util.arrayFromVolume(heat.heat_of(volume))
        assert voxels.shape == slicer.util.arrayFromVolume(volume).shape
        assert voxels.dtype == np.uint8 and voxels.max() == evidence.strongest > 0
        np.testing.assert_allclose(nodes.affine_of(heat.heat_of(volume)), nodes.affine_of(volume), atol=1e-3)
    query = studies.show_evidence(volume, run(studies.ask_evidence(volume, query="fluid around the lung")))
    assert query.probability is None and len(query.depth) > 1
