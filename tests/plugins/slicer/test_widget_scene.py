"""The panel and the scene: what is drawn for which scan, what goes with it, and what stays on the server."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from tests.plugins.slicer.conftest import QUERY, BundleAnswer
from tests.plugins.slicer.panel import find, find_focal, rests, until
from tests.plugins.slicer.program import Program
from tests.plugins.slicer.stand_in_server import StandInServer


@pytest.fixture
def second(program: Program, volume: Any) -> Any:
    """Another scan in the scene."""
    from ctfindings_client import nodes

    node = program.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "another scan")
    nodes.fill_volume(node, np.full((20, 30, 40), -1000, dtype=np.int16), nodes.affine_of(volume))
    node.CreateDefaultDisplayNodes()
    return node


def _drawn(volume: Any) -> set[str]:
    """Roles of what is drawn over the views of a volume."""
    from ctfindings_client import anatomy, heat, nodes, points

    found = {role: nodes.find(volume, role) for role in (anatomy.ROLE, points.ROLE, heat.BOX_ROLE)}
    return {role for role, node in found.items() if node is not None and node.GetDisplayNode().GetVisibility()}


def test_an_answer_that_the_scene_refuses_is_a_line_and_the_panel_goes_on(
    panel: Any, volume: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ctfindings_client import anatomy

    def refuse(*_: Any) -> None:
        raise RuntimeError("Slicer did not take the anatomy map as a segmentation")

    panel.ui.volumeSelector.setCurrentNode(volume)
    monkeypatch.setattr(anatomy, "show", refuse)
    panel.ui.findButton.emit("clicked(bool)", False)
    until(panel, rests(panel))
    assert "could not be shown (RuntimeError: Slicer did not take the anatomy map" in panel.ui.statusLabel.text
    monkeypatch.undo()
    panel.ui.findButton.emit("clicked(bool)", False)
    until(panel, rests(panel))
    assert len(panel.ui.findingsTable.texts()) == 18


def test_an_answer_about_a_scan_that_has_gone_is_dropped(
    panel: Any, program: Program, volume: Any, server: StandInServer
) -> None:
    server.gate.clear()
    panel.ui.volumeSelector.setCurrentNode(volume)
    panel.ui.findButton.emit("clicked(bool)", False)
    program.scene.RemoveNode(volume)
    server.gate.set()
    until(panel, rests(panel))
    assert panel.ui.findingsTable.texts() == []


def test_closing_the_scene_empties_the_panel(panel: Any, program: Program, volume: Any) -> None:
    find(panel, volume)
    program.scene.Clear(0)
    assert panel.ui.findingsTable.texts() == [] and not panel.ui.exportButton.enabled


def test_a_scan_that_was_read_before_shows_its_table_without_a_server(
    panel: Any, volume: Any, server: StandInServer
) -> None:
    find(panel, volume)
    panel.ui.volumeSelector.setCurrentNode(None)
    assert panel.ui.findingsTable.texts() == []
    assert _gone(server)
    asked = len(server.requests)
    panel.ui.volumeSelector.setCurrentNode(volume)
    assert len(panel.ui.findingsTable.texts()) == 18 and len(server.requests) == asked


def test_choosing_another_scan_shows_it_without_the_markings_of_the_first(
    panel: Any, program: Program, volume: Any, second: Any, axial: Any, bundle_answer: BundleAnswer
) -> None:
    from ctfindings_client import heat

    composite = program.scene.GetFirstNodeByClass("vtkMRMLSliceCompositeNode")
    find_focal(panel, volume, bundle_answer)
    drawn = _drawn(volume)
    assert drawn == {"points", "box"}, "outlines are off at first"

    panel.ui.volumeSelector.setCurrentNode(second)
    assert composite.GetBackgroundVolumeID() == second.GetID()
    assert composite.GetForegroundVolumeID() is None
    assert _drawn(volume) == set() and panel.ui.findingsTable.texts() == []
    panel.ui.pointsCheckBox.emit("toggled(bool)", True)
    assert _drawn(volume) == set()

    panel.ui.volumeSelector.setCurrentNode(volume)
    assert composite.GetBackgroundVolumeID() == volume.GetID()
    assert composite.GetForegroundVolumeID() == heat.heat_of(volume).GetID()
    assert _drawn(volume) == drawn

    panel.ui.volumeSelector.setCurrentNode(None)
    assert composite.GetForegroundVolumeID() is None and _drawn(volume) == set()


def test_a_scan_that_is_removed_takes_its_markings_along_and_leaves_those_of_others(
    panel: Any, program: Program, volume: Any, second: Any
) -> None:
    from ctfindings_client import points, tables

    find(panel, volume)
    points.show(second, panel.record)
    program.scene.RemoveNode(volume)
    roles = [node.GetAttribute("CTFindings.role") for node in _every(program) if node.GetAttribute("CTFindings.role")]
    assert roles == [points.ROLE]
    assert tables.stored_record(second) is None
    program.scene.RemoveNode(second)
    assert not [node for node in _every(program) if node.GetAttribute("CTFindings.role")]


def _every(program: Program) -> list[Any]:
    return [program.scene.GetNthNode(index) for index in range(program.scene.GetNumberOfNodes())]


def _gone(server: StandInServer) -> bool:
    end = time.monotonic() + 60
    while server.sessions and time.monotonic() < end:
        time.sleep(0.01)
    return not server.sessions


@pytest.mark.parametrize("leave", ["another scan", "scene", "another server", "module"])
def test_the_uploaded_scan_is_deleted_from_the_server(
    panel: Any, program: Program, volume: Any, second: Any, server: StandInServer, leave: str
) -> None:
    find(panel, volume)
    assert list(server.sessions) == ["session-0"]
    if leave == "another scan":
        panel.ui.volumeSelector.setCurrentNode(second)
    elif leave == "scene":
        program.scene.Clear(0)
    elif leave == "another server":
        panel.ui.serverLineEdit.text = "http://127.0.0.1:9"
        panel.takeAddress()
    else:
        panel.cleanup()
        assert not server.sessions, "closing the module did not wait"
    assert _gone(server)


def test_a_scan_that_stays_chosen_stays_on_the_server(panel: Any, volume: Any, server: StandInServer) -> None:
    find(panel, volume)
    panel.ui.volumeSelector.setCurrentNode(volume)
    panel.ui.queryLineEdit.text = QUERY
    panel.ui.askButton.emit("clicked(bool)", False)
    until(panel, rests(panel))
    assert list(server.sessions) == ["session-0"]
    assert [method for method, _, _, _ in server.requests if method in ("PUT", "DELETE")] == ["PUT"]


def test_lists_of_scans_offer_neither_heat_maps_nor_label_maps(panel: Any, volume: Any) -> None:
    from ctfindings_client import heat

    find(panel, volume)
    assert heat.heat_of(volume).GetHideFromEditors(), "qMRMLNodeComboBox leaves out what is hidden from editors"
    assert not volume.GetHideFromEditors()
    assert (
        panel.ui.volumeSelector.nodeTypes == ["vtkMRMLScalarVolumeNode"]
        and not panel.ui.volumeSelector.showChildNodeTypes
    )


def test_boxes_show_and_hide_what_they_name(panel: Any, volume: Any, bundle_answer: BundleAnswer) -> None:
    from ctfindings_client import anatomy, heat, nodes, points

    find_focal(panel, volume, bundle_answer)
    panel.ui.anatomyCheckBox.checked = True
    panel.ui.anatomyCheckBox.emit("toggled(bool)", True)
    for box, role in (
        ("anatomyCheckBox", anatomy.ROLE),
        ("pointsCheckBox", points.ROLE),
        ("boxCheckBox", heat.BOX_ROLE),
    ):
        display = nodes.find(volume, role).GetDisplayNode()
        assert display.GetVisibility()
        getattr(panel.ui, box).checked = False
        getattr(panel.ui, box).emit("toggled(bool)", False)
        assert not display.GetVisibility()
