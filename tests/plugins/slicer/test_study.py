"""On Slicer's core: what the module puts into the scene, and where the views stand then."""

from __future__ import annotations

import unittest
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from bundle.ctfindings.anatomy import ANATOMIES, ANATOMY_NAMES
from tests.plugins.slicer.conftest import QUERY, BundleAnswer
from tests.plugins.slicer.program import Program
from tests.plugins.slicer.stand_in_server import StandInServer


def _run(work: Any) -> Any:
    from ctfindings_client.transport import Cancellation, ignore_progress

    return work(Cancellation(), ignore_progress)


def _roles(program: Program) -> list[str]:
    found = (
        program.scene.GetNthNode(index).GetAttribute("CTFindings.role")
        for index in range(program.scene.GetNumberOfNodes())
    )
    return sorted(role for role in found if role)


@pytest.fixture
def studies(program: Program, server: StandInServer) -> Any:
    from ctfindings_client.study import Studies

    studies = Studies()
    studies.address = server.address
    return studies


def test_scan_arrives_as_it_lies_in_the_scene(
    studies: Any, volume: Any, server: StandInServer, bundle_answer: BundleAnswer
) -> None:
    _run(studies.ask_findings(volume))
    (content,) = server.sessions.values()
    received = nib.Nifti1Image.from_bytes(__import__("gzip").decompress(content))
    np.testing.assert_array_equal(np.asarray(received.dataobj), bundle_answer.hu)
    np.testing.assert_allclose(received.affine, bundle_answer.affine, atol=1e-4)


def test_anatomies_become_coded_segments_in_place(studies: Any, volume: Any, bundle_answer: BundleAnswer) -> None:
    import slicer.util
    from ctfindings_client import anatomy, nodes

    studies.show_findings(volume, _run(studies.ask_findings(volume)))
    node = nodes.find(volume, anatomy.ROLE)
    segmentation = node.GetSegmentation()
    mask = np.asarray(nib.load(bundle_answer.labels).dataobj)
    inside = [entry for entry in ANATOMIES if (mask == entry.mask_id).any()]
    assert segmentation.GetNumberOfSegments() == len(inside)
    for index, entry in enumerate(inside):
        segment_id, term = segmentation.GetNthSegmentID(index), anatomy.TERMS[entry.name]
        voxels = slicer.util.arrayFromSegmentBinaryLabelmap(node, segment_id, volume)
        np.testing.assert_array_equal(voxels.T > 0, mask == entry.mask_id)
        assert f"SCT^{term.code}^{term.meaning}" in segmentation.GetSegment(segment_id).GetTerminology()


def test_every_anatomy_has_a_term() -> None:
    pytest.importorskip("slicer", reason="slicer-core is not installed (make slicer)")
    from ctfindings_client.anatomy import TERMS

    assert tuple(TERMS) == ANATOMY_NAMES


def test_outlines_have_colours_that_are_told_from_each_other_and_from_the_heat() -> None:
    pytest.importorskip("slicer", reason="slicer-core is not installed (make slicer)")
    from ctfindings_client import heat
    from ctfindings_client.anatomy import TERMS

    outlines = np.array([term.colour for term in TERMS.values() if term.shown], float)
    warm = 255 * np.array(heat.ANCHORS)
    for index, colour in enumerate(outlines):
        others = np.concatenate([outlines[:index], warm])
        assert np.linalg.norm(others - colour, axis=1).min() > 70, list(TERMS)[index]


def test_points_stand_at_the_evidence_of_the_present_findings(
    studies: Any, volume: Any, bundle_answer: BundleAnswer
) -> None:
    from ctfindings_client import nodes, points

    studies.show_findings(volume, _run(studies.ask_findings(volume)))
    node = nodes.find(volume, points.ROLE)
    labelled = {}
    for index in range(node.GetNumberOfControlPoints()):
        for label in node.GetNthControlPointLabel(index).split("\n"):
            labelled[label] = np.array(node.GetNthControlPointPositionWorld(index))
    expected = {
        f"{finding['name']} {finding['probability']:.2f}": finding["evidence"] for finding in bundle_answer.present()
    }
    assert set(labelled) == set(expected)
    for label, evidence in expected.items():
        assert np.linalg.norm(labelled[label] - [*evidence["peak_mm"][:2], evidence["z_mm"]]) < points.SAME_PLACE_MM


def test_table_of_the_scene_holds_all_findings_present_ones_first(
    studies: Any, volume: Any, bundle_answer: BundleAnswer
) -> None:
    from ctfindings_client import nodes, tables

    from bundle.ctfindings.inference.findings_record import FindingsRecord

    studies.show_findings(volume, _run(studies.ask_findings(volume)))
    table = nodes.find(volume, tables.TABLE_ROLE).GetTable()
    expected = FindingsRecord.from_json(__import__("json").dumps(bundle_answer.record)).ordered()
    assert [table.GetValue(row, 0).ToString() for row in range(table.GetNumberOfRows())] == [a.name for a in expected]
    assert [table.GetValue(row, 1).ToDouble() for row in range(18)] == pytest.approx([a.probability for a in expected])


def test_views_jump_to_the_slice_that_the_record_names(
    studies: Any, volume: Any, axial: Any, bundle_answer: BundleAnswer
) -> None:
    studies.show_findings(volume, _run(studies.ask_findings(volume)))
    assert bundle_answer.present()
    for finding in bundle_answer.present():
        studies.show_evidence(volume, _run(studies.ask_evidence(volume, finding=finding["name"])))
        assert axial.GetSliceOffset() == pytest.approx(finding["evidence"]["z_mm"], abs=1e-3)
        index = (axial.GetSliceOffset() - bundle_answer.affine[2, 3]) / bundle_answer.affine[2, 2]
        assert index == pytest.approx(finding["evidence"]["slice_index"], abs=1e-3)


def test_a_view_keeps_its_centre_unless_the_evidence_would_be_out_of_sight(program: Program, axial: Any) -> None:
    from ctfindings_client import slices

    slices.jump((50.0, -20.0, 30.0))
    matrix = axial.GetSliceToRAS()
    assert [matrix.GetElement(row, 3) for row in range(3)] == pytest.approx([0, 0, 30])
    axial.SetFieldOfView(60, 60, 1)
    slices.jump((50.0, -20.0, 31.0))
    assert [matrix.GetElement(row, 3) for row in range(3)] == pytest.approx([50, -20, 31])


def test_heat_lies_over_the_scan_with_the_chosen_opacity(
    studies: Any, volume: Any, axial: Any, program: Program, bundle_answer: BundleAnswer
) -> None:
    import slicer.util
    from ctfindings_client import heat, nodes

    studies.show_findings(volume, _run(studies.ask_findings(volume)))
    name = bundle_answer.present()[0]["name"]
    studies.show_evidence(volume, _run(studies.ask_evidence(volume, finding=name)))
    node = heat.heat_of(volume)
    voxels = slicer.util.arrayFromVolume(node)
    assert voxels.dtype == np.uint8
    np.testing.assert_allclose(voxels.T / 255, bundle_answer.maps[name], atol=1e-6)
    np.testing.assert_allclose(nodes.affine_of(node), nodes.affine_of(volume), atol=1e-4)
    composite = program.scene.GetFirstNodeByClass("vtkMRMLSliceCompositeNode")
    assert composite.GetBackgroundVolumeID() == volume.GetID()
    assert composite.GetForegroundVolumeID() == node.GetID()
    studies.set_opacity(0.25)
    assert composite.GetForegroundOpacity() == 0.25
    studies.set_floor(volume, 0.8)
    assert node.GetDisplayNode().GetLowerThreshold() == np.ceil(0.8 * voxels.max())


def test_free_text_gives_a_depth_profile_and_jumps(
    studies: Any, volume: Any, axial: Any, bundle_answer: BundleAnswer
) -> None:
    from ctfindings_client import depth, nodes

    studies.show_evidence(volume, _run(studies.ask_evidence(volume, query=QUERY)))
    place = bundle_answer.record["queries"][0]["evidence"]
    assert axial.GetSliceOffset() == pytest.approx(place["z_mm"], abs=1e-3)
    chart = nodes.find(volume, depth.CHART_ROLE)
    profile = chart.GetNthPlotSeriesNode(0).GetTableNode().GetTable()
    heat = bundle_answer.maps[f"query: {QUERY}"]
    assert profile.GetNumberOfRows() == heat.shape[2]
    scores = [profile.GetValue(row, 1).ToDouble() for row in range(heat.shape[2])]
    assert scores == pytest.approx(heat.max(axis=(0, 1)).tolist(), abs=1e-6)
    mark = chart.GetNthPlotSeriesNode(1).GetTableNode().GetTable()
    assert mark.GetValue(0, 0).ToDouble() == pytest.approx(place["z_mm"], abs=1e-3)


def test_scan_is_uploaded_once_and_again_when_it_changed_or_was_forgotten(
    studies: Any, volume: Any, server: StandInServer, bundle_answer: BundleAnswer
) -> None:
    name = bundle_answer.present()[0]["name"]
    studies.show_findings(volume, _run(studies.ask_findings(volume)))
    studies.show_evidence(volume, _run(studies.ask_evidence(volume, finding=name)))
    assert list(server.sessions) == ["session-0"]
    server.sessions = {"other": b"", "another": b""}  # as after a restart
    studies.show_evidence(volume, _run(studies.ask_evidence(volume, finding=name)))
    assert "session-1" in server.sessions
    volume.GetImageData().Modified()
    _run(studies.ask_evidence(volume, finding=name))
    assert "session-2" in server.sessions
    studies.farewell(10)
    assert set(server.sessions) == {"other", "another"}, "what was uploaded is gone, also of the scan before it changed"


def test_a_scan_that_the_server_has_is_not_uploaded(
    studies: Any, volume: Any, server: StandInServer, bundle_answer: BundleAnswer
) -> None:
    server.images["known"] = bundle_answer.scan.read_bytes()
    studies.server_has(volume, image="known")
    studies.show_findings(volume, _run(studies.ask_findings(volume)))
    studies.show_evidence(volume, _run(studies.ask_evidence(volume, query=QUERY)))
    assert not server.sessions


def test_a_second_find_leaves_nothing_of_the_first(
    studies: Any, volume: Any, program: Program, bundle_answer: BundleAnswer
) -> None:
    name = bundle_answer.present()[0]["name"]
    answers = _run(studies.ask_findings(volume)), _run(studies.ask_evidence(volume, finding=name))
    counts = []
    for _ in range(2):
        studies.show_findings(volume, answers[0])
        studies.show_evidence(volume, answers[1])
        counts.append((program.scene.GetNumberOfNodes(), _roles(program)))
    assert counts[0] == counts[1]
    assert len(set(counts[0][1])) == len(counts[0][1])


def test_going_to_a_finding_needs_no_server(studies: Any, volume: Any, axial: Any, server: StandInServer) -> None:
    from ctfindings_client import heat, nodes

    record = studies.show_findings(volume, _run(studies.ask_findings(volume)))
    server.close()
    row = next(row for row in record.rows if row.box_mm)
    studies.go_to(volume, row)
    assert axial.GetSliceOffset() == pytest.approx(row.peak_mm[2], abs=1e-3)
    low, high = np.array(row.box_mm)
    box = nodes.find(volume, heat.BOX_ROLE)
    np.testing.assert_allclose(box.GetCenter(), (low + high) / 2, atol=1e-6)
    np.testing.assert_allclose(box.GetSize(), high - low, atol=1e-6)


def test_the_chart_of_another_scan_leaves_the_screen(studies: Any, volume: Any, program: Program) -> None:
    from ctfindings_client import depth, nodes

    view = program.scene.AddNewNodeByClass("vtkMRMLPlotViewNode")
    studies.show_evidence(volume, _run(studies.ask_evidence(volume, query=QUERY)))
    view.SetPlotChartNodeID(nodes.find(volume, depth.CHART_ROLE).GetID())
    studies.show_only(volume)
    assert view.GetPlotChartNodeID() == nodes.find(volume, depth.CHART_ROLE).GetID()
    studies.show_only(program.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "another scan"))
    assert view.GetPlotChartNodeID() is None


def test_a_heat_map_is_hidden_from_selectors_when_it_arrives(studies: Any, volume: Any, program: Program) -> None:
    import vtk

    arrived = []

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def note(_caller: Any, _event: Any, node: Any) -> None:
        if node.IsA("vtkMRMLScalarVolumeNode"):
            arrived.append(bool(node.GetHideFromEditors()))

    evidence = _run(studies.ask_evidence(volume, query=QUERY))
    tag = program.scene.AddObserver(program.scene.NodeAddedEvent, note)
    studies.show_evidence(volume, evidence)
    program.scene.RemoveObserver(tag)
    assert arrived == [True]


def test_volumes_that_cannot_be_sent_are_refused_with_a_reason(studies: Any, volume: Any, program: Program) -> None:
    empty = program.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "nothing")
    with pytest.raises(ValueError, match="nothing: the volume is empty"):
        studies.ask_findings(empty)
    transform = program.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    volume.SetAndObserveTransformNodeID(transform.GetID())
    with pytest.raises(ValueError, match="harden the transform first"):
        studies.ask_findings(volume)


def test_exported_scene_comes_back_whole(
    studies: Any, volume: Any, program: Program, bundle_answer: BundleAnswer, tmp_path: Path
) -> None:
    import json

    import slicer
    import slicer.util
    from ctfindings_client import anatomy, depth, export, heat, nodes, points, tables

    record = studies.show_findings(volume, _run(studies.ask_findings(volume)))
    name = bundle_answer.present()[0]["name"]
    studies.show_evidence(volume, _run(studies.ask_evidence(volume, finding=name)))
    labels_before = [nodes.find(volume, points.ROLE).GetNthControlPointLabel(0)]
    folder = export.export(str(tmp_path), record)
    assert sorted(path.name for path in folder.iterdir()) == ["findings.csv", "findings.json", "scene.mrb"]
    assert json.loads((folder / "findings.json").read_text(encoding="utf-8")) == bundle_answer.record
    assert len((folder / "findings.csv").read_text(encoding="utf-8").splitlines()) == 19
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]

    program.scene.Clear(1)
    assert program.scene.ReadFromMRB(str(folder / "scene.mrb"))
    again = slicer.util.getNode("Doe^Jane chest")
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(again).T, bundle_answer.hu)
    assert tables.stored_record(again) == record
    assert nodes.find(again, tables.TABLE_ROLE).GetNumberOfRows() == 18
    assert [nodes.find(again, points.ROLE).GetNthControlPointLabel(0)] == labels_before
    np.testing.assert_allclose(
        slicer.util.arrayFromVolume(heat.heat_of(again)).T / 255, bundle_answer.maps[name], atol=1e-6
    )
    segmentation = nodes.find(again, anatomy.ROLE).GetSegmentation()
    assert (
        "SCT^39607008^Lung" in segmentation.GetSegment(segmentation.GetSegmentIdBySegmentName("Lung")).GetTerminology()
    )
    assert nodes.find(again, depth.CHART_ROLE).GetNthPlotSeriesNode(0).GetTableNode().GetNumberOfRows() > 0


def test_export_into_a_missing_folder_is_refused(studies: Any, volume: Any, tmp_path: Path) -> None:
    from ctfindings_client import export

    record = studies.show_findings(volume, _run(studies.ask_findings(volume)))
    with pytest.raises(export.ExportError, match="is not a folder"):
        export.export(str(tmp_path / "missing"), record)


def test_a_failed_scene_file_leaves_nothing_behind(
    studies: Any, volume: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    from ctfindings_client import export

    record = studies.show_findings(volume, _run(studies.ask_findings(volume)))
    full_disk = SimpleNamespace(
        WriteToMRB=lambda path: False, GetURL=str, GetRootDirectory=str, SetURL=id, SetRootDirectory=id
    )
    monkeypatch.setattr(export.slicer, "mrmlScene", full_disk)
    with pytest.raises(export.ExportError, match="could not write the scene"):
        export.export(str(tmp_path), record)
    assert list(tmp_path.iterdir()) == []


def test_self_test_of_the_module_passes(program: Program, axial: Any) -> None:
    import CTFindings

    result = unittest.TestResult()
    CTFindings.CTFindingsTest().run(result)
    assert result.testsRun == 1 and not result.errors and not result.failures, result
