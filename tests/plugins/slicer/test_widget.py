"""The panel: its .ui file and the widget name the same things, and its slots do what they say, against stand-ins for
Qt.
"""

from __future__ import annotations

import ast
import re
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.plugins.slicer.conftest import QUERY, BundleAnswer
from tests.plugins.slicer.program import MODULE_FOLDER, Program
from tests.plugins.slicer.stand_in_qt import CLASSES, CLIPBOARD, COMMON
from tests.plugins.slicer.stand_in_server import StandInServer

UI = MODULE_FOLDER / "Resources" / "UI" / "CTFindings.ui"
SOURCE = "\n".join(
    (MODULE_FOLDER / name).read_text(encoding="utf-8")
    for name in ("CTFindings.py", "CTFindingsLib/corrections_panel.py")
)


def _named(tag: str = "widget") -> dict[str, str]:
    return {element.attrib["name"]: element.attrib["class"] for element in ET.parse(UI).getroot().iter(tag)}


def test_every_name_that_the_widget_uses_is_in_the_ui_file() -> None:
    used = set(re.findall(r"self\.ui\.(\w+)", SOURCE))
    assert used and used <= set(_named())


def test_everything_that_can_be_pressed_or_filled_is_used_by_the_widget() -> None:
    used = set(re.findall(r"self\.ui\.(\w+)", SOURCE))
    passive = {"QLabel", "ctkCollapsibleButton", "qMRMLWidget"}
    unused = {name for name, kind in _named().items() if kind not in passive} - used
    assert not unused


def test_every_signal_exists_and_goes_to_a_slot_that_exists() -> None:
    names = _named()
    methods = {node.name for node in ast.walk(ast.parse(SOURCE)) if isinstance(node, ast.FunctionDef)}
    connected = re.findall(r'self\.ui\.(\w+)\.connect\("([^"]+)", self\.(\w+)\)', SOURCE)
    assert len(connected) == SOURCE.count("self.ui.") - len(re.findall(r"self\.ui\.\w+(?!\w)(?!\.connect)", SOURCE))
    for name, signal, slot in connected:
        assert signal in CLASSES[names[name]][1], f"{name} has no signal {signal}"
        assert slot in methods


def test_properties_of_the_ui_file_belong_to_their_class() -> None:
    layouts = {"orientation", "sizeHint"}
    for element in ET.parse(UI).getroot().iter("widget"):
        known = {*CLASSES[element.attrib["class"]][0], *COMMON, *layouts}
        wrong = {entry.attrib["name"] for entry in element.findall("property")} - known
        assert not wrong, f"{element.attrib['name']}: {wrong}"


def test_names_of_the_ui_file_are_unique_and_its_own_classes_declared() -> None:
    root = ET.parse(UI).getroot()
    names = [element.attrib["name"] for tag in ("widget", "layout") for element in root.iter(tag)]
    assert len(names) == len(set(names))
    declared = {element.text for element in root.findall("customwidgets/customwidget/class")}
    assert {kind for kind in _named().values() if not kind.startswith("Q")} == declared


def test_everything_that_takes_the_keyboard_has_a_name_and_its_turn() -> None:
    root = ET.parse(UI).getroot()
    takes = {
        "QLineEdit",
        "QPlainTextEdit",
        "QPushButton",
        "QCheckBox",
        "QTableWidget",
        "qMRMLNodeComboBox",
        "ctkSliderWidget",
        "ctkPathLineEdit",
    }
    widgets = [element for element in root.iter("widget") if element.attrib["class"] in takes]
    said = {
        element.attrib["name"]
        for element in widgets
        if {"text", "accessibleName"} & {p.attrib["name"] for p in element.findall("property")}
    }
    labelled = {entry[0].text for entry in root.iter("property") if entry.attrib["name"] == "buddy"}
    names = [element.attrib["name"] for element in widgets]
    assert labelled <= set(names)
    assert set(names) == said | labelled
    assert [stop.text for stop in root.iter("tabstop")] == names, (
        "the tab key goes through the panel from top to bottom"
    )


def test_the_notice_is_on_the_panel_and_always_visible() -> None:
    label = next(
        element for element in ET.parse(UI).getroot().iter("widget") if element.attrib["name"] == "noticeLabel"
    )
    texts = [entry[0].text for entry in label.findall("property") if entry.attrib["name"] == "text"]
    assert texts and str(texts[0]).startswith("Research only. Not a diagnosis.")
    assert "noticeLabel" not in SOURCE


def test_a_scan_outside_the_domain_shows_a_banner_and_any_other_none(panel: Any, bundle_answer: BundleAnswer) -> None:
    from ctfindings_client.record import Record

    notice = "Outside the domain: this scan is unlike the scans that the model was trained on."
    label = next(each for each in ET.parse(UI).getroot().iter("widget") if each.attrib["name"] == "bannerLabel")
    style = next(each[0].text or "" for each in label.iter("property") if each.attrib["name"] == "styleSheet")
    assert "bold" in style and "background: #7a4b12" in style, "the colours of the viewer's banner"
    assert not panel.ui.bannerLabel.visible
    panel.showRecord(Record.parse({**bundle_answer.record, "notice": notice, "warnings": ["little lung"]}))
    assert panel.ui.bannerLabel.visible and panel.ui.bannerLabel.text == notice
    assert panel.ui.warningsLabel.text == "little lung"
    for record in (Record.parse({**bundle_answer.record, "notice": None}), None):
        panel.showRecord(record)
        assert not panel.ui.bannerLabel.visible and panel.ui.bannerLabel.text == ""


@pytest.fixture
def panel(program: Program, server: StandInServer) -> Any:
    import CTFindings

    program.settings["CTFindings/serverAddress"] = server.address
    widget = CTFindings.CTFindingsWidget(None)
    widget.setup()
    yield widget
    widget.cleanup()


def _until(panel: Any, condition: Callable[[], bool], seconds: float = 30) -> None:
    """Fires the panel's timer, as Qt would, until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, panel.ui.statusLabel.text
        panel.timer.fire()
        time.sleep(0.01)


def _rests(panel: Any) -> Callable[[], bool]:
    return lambda: panel.job is None and not panel.timer.active


def _find_focal(panel: Any, volume: Any, answer: BundleAnswer) -> None:
    """Finds, and chooses a finding whose evidence has a box: diffuse evidence has none."""
    panel.ui.volumeSelector.setCurrentNode(volume)
    panel.ui.findButton.emit("clicked(bool)", False)
    _until(panel, _rests(panel))
    focal = {entry["name"] for entry in answer.record["findings"] if (entry["evidence"] or {}).get("box_mm")}
    rows = [cells[0] for cells in panel.ui.findingsTable.texts()]
    panel.ui.findingsTable.selectRow(next(row for row, name in enumerate(rows) if name in focal))
    _until(panel, _rests(panel))


def test_at_first_only_connecting_is_possible(panel: Any) -> None:
    enabled = {
        name for name in ("connectButton", "findButton", "askButton", "exportButton", "chartButton", "cancelButton")
    }
    assert {name for name in enabled if getattr(panel.ui, name).enabled} == {"connectButton"}
    assert panel.ui.statusLabel.text == "Choose a scan."


def test_connect_names_the_server(panel: Any, program: Program, server: StandInServer) -> None:
    panel.ui.connectButton.emit("clicked(bool)", False)
    assert not panel.ui.connectButton.enabled and panel.ui.cancelButton.enabled
    _until(panel, _rests(panel))
    assert panel.ui.serverStatusLabel.text == "Connected: CT Findings 0.1.0, weights abababab"
    assert panel.ui.statusLabel.text == "Choose a scan.", "how far connecting came is no longer of interest"
    assert panel.ui.connectButton.enabled and not panel.ui.cancelButton.enabled


def test_connect_says_what_to_update(panel: Any, server: StandInServer) -> None:
    server.config["api"] = 2
    panel.ui.connectButton.emit("clicked(bool)", False)
    _until(panel, _rests(panel))
    assert "update the CT Findings extension" in panel.ui.serverStatusLabel.text
    assert panel.ui.statusLabel.text == "Choose a scan."


def test_a_token_that_comes_after_the_address_was_changed_does_not_go_to_the_new_server(
    panel: Any, server: StandInServer
) -> None:
    server.token = "secret of the first server"
    panel.ui.userLineEdit.text, panel.ui.passwordLineEdit.text = "reader", "password"
    panel.ui.connectButton.emit("clicked(bool)", False)
    panel.ui.serverLineEdit.text = "http://127.0.0.1:9"
    panel.ui.queryLineEdit.text = QUERY
    panel.ui.queryLineEdit.emit("returnPressed()")  # no scan is chosen, so nothing is asked
    _until(panel, _rests(panel))
    assert (panel.logic.address, panel.logic.token) == ("http://127.0.0.1:9", "")


def test_find_fills_the_table_and_goes_to_the_first_finding(
    panel: Any, volume: Any, axial: Any, bundle_answer: BundleAnswer
) -> None:
    panel.ui.volumeSelector.setCurrentNode(volume)
    assert panel.ui.findButton.enabled
    panel.ui.findButton.emit("clicked(bool)", False)
    assert panel.ui.progressBar.visible
    _until(panel, _rests(panel))
    texts = panel.ui.findingsTable.texts()
    assert len(texts) == 18
    first = max(bundle_answer.present(), key=lambda finding: finding["probability"])
    assert texts[0][0] == first["name"]
    bar = panel.ui.findingsTable._cells[0, 1]
    assert bar.value == round(100 * first["probability"])
    assert "WA_TransparentForMouseEvents" in bar._attributes
    presents = [row[3] for row in texts]
    assert presents == sorted(presents, reverse=True) and presents.count("present") == len(
        [finding for finding in bundle_answer.record["findings"] if finding["present"]]
    )
    assert axial.GetSliceOffset() == pytest.approx(first["evidence"]["z_mm"], abs=1e-3)
    assert "Research only" in panel.ui.statusLabel.text
    assert panel.ui.exportButton.enabled and panel.ui.chartButton.enabled


def test_a_click_on_a_row_moves_the_views_and_shows_its_heat(
    panel: Any, volume: Any, axial: Any, bundle_answer: BundleAnswer
) -> None:
    from ctfindings_client import heat

    panel.ui.volumeSelector.setCurrentNode(volume)
    panel.ui.findButton.emit("clicked(bool)", False)
    _until(panel, _rests(panel))
    finding = bundle_answer.present()[-1]
    row = next(
        index for index, cells in enumerate(panel.ui.findingsTable.texts()) if cells[0].startswith(finding["name"])
    )
    panel.ui.findingsTable.selectRow(row)
    assert axial.GetSliceOffset() == pytest.approx(
        finding["evidence"]["z_mm"], abs=1e-3
    )  # before the server has answered
    _until(panel, _rests(panel))
    assert heat.heat_of(volume).GetName() == f"Evidence: {finding['name']}"


def test_sorting_keeps_the_selected_finding_and_asks_nothing(panel: Any, volume: Any, server: StandInServer) -> None:
    panel.ui.volumeSelector.setCurrentNode(volume)
    panel.ui.findButton.emit("clicked(bool)", False)
    _until(panel, _rests(panel))
    selected = panel.ui.findingsTable.selectedItems()[0].text()
    asked = len(server.requests)
    header = panel.ui.findingsTable.horizontalHeader()
    header.emit("sectionClicked(int)", 0)
    names = [cells[0] for cells in panel.ui.findingsTable.texts()]
    assert names == sorted(names)
    assert panel.ui.findingsTable.selectedItems()[0].text() == selected
    header.emit("sectionClicked(int)", 0)
    assert [cells[0] for cells in panel.ui.findingsTable.texts()] == names[::-1]
    assert len(server.requests) == asked


def test_free_text_leaves_the_layout_alone_until_the_depth_profile_is_asked_for(
    panel: Any, program: Program, volume: Any, axial: Any, bundle_answer: BundleAnswer
) -> None:
    panel.ui.volumeSelector.setCurrentNode(volume)
    panel.ui.queryLineEdit.text = f"  {QUERY} "
    panel.ui.queryLineEdit.emit("returnPressed()")
    _until(panel, _rests(panel))
    assert axial.GetSliceOffset() == pytest.approx(bundle_answer.record["queries"][0]["evidence"]["z_mm"], abs=1e-3)
    assert program.charts == []
    panel.ui.chartButton.emit("clicked(bool)", False)
    assert [chart.GetTitle() for chart in program.charts] == [QUERY]
    image = bundle_answer.record["queries"][0]["evidence"]["image"]
    assert panel.ui.statusLabel.text.startswith(f"{QUERY}: strongest at ")
    assert f", image {image} of {bundle_answer.hu.shape[2]}." in panel.ui.statusLabel.text


def test_the_interface_lives_while_the_server_works_and_cancel_drops_the_answer(
    panel: Any, volume: Any, server: StandInServer
) -> None:
    server.gate.clear()
    panel.ui.volumeSelector.setCurrentNode(volume)
    started = time.monotonic()
    panel.ui.findButton.emit("clicked(bool)", False)
    assert time.monotonic() - started < 1
    _until(panel, lambda: panel.ui.statusLabel.text.startswith("The server is working"))
    assert panel.ui.progressBar._range == (0, 0)
    assert not panel.ui.findButton.enabled
    panel.ui.cancelButton.emit("clicked(bool)", False)
    assert _rests(panel)() and panel.ui.statusLabel.text == "Cancelled." and panel.ui.findButton.enabled
    server.gate.set()
    time.sleep(0.2)
    panel.timer.fire()
    assert panel.ui.findingsTable.texts() == []


def test_errors_of_the_server_are_shown_in_a_line(panel: Any, volume: Any, server: StandInServer) -> None:
    server.failures["/infer/"] = (400, b'{"detail": "this is not a chest CT"}')
    panel.ui.volumeSelector.setCurrentNode(volume)
    panel.ui.findButton.emit("clicked(bool)", False)
    _until(panel, _rests(panel))
    assert panel.ui.statusLabel.text == "The server says: this is not a chest CT"
    assert panel.ui.findButton.enabled


@pytest.mark.parametrize(
    ("typed", "named", "encrypted"),
    [
        ("http://pacs.example.org:8000", "http://pacs.example.org:8000", False),
        ("pacs.example.org:8000", "http://pacs.example.org:8000", False),
        ("https://pacs.example.org", "https://pacs.example.org", True),
        ("Https://pacs.example.org/", "https://pacs.example.org", True),
    ],
)
def test_a_scan_is_sent_to_another_computer_only_after_consent(
    panel: Any, program: Program, volume: Any, typed: str, named: str, encrypted: bool
) -> None:
    panel.ui.volumeSelector.setCurrentNode(volume)
    panel.ui.serverLineEdit.text = typed
    program.consent = False
    panel.ui.findButton.emit("clicked(bool)", False)
    assert panel.job is None
    assert f" to {named}. " in program.questions[0]
    assert ("NOT encrypted" in program.questions[0]) is not encrypted


def test_a_server_on_this_computer_needs_no_consent_however_it_is_typed(
    panel: Any, program: Program, volume: Any, server: StandInServer
) -> None:
    panel.ui.volumeSelector.setCurrentNode(volume)
    panel.ui.serverLineEdit.text = server.address.removeprefix("http://") + "/"
    panel.ui.findButton.emit("clicked(bool)", False)
    _until(panel, _rests(panel))
    assert len(panel.ui.findingsTable.texts()) == 18 and program.questions == []


def test_what_is_no_address_is_refused_before_anything_is_sent(panel: Any, program: Program, volume: Any) -> None:
    panel.ui.volumeSelector.setCurrentNode(volume)
    panel.ui.serverLineEdit.text = "ftp://server"
    panel.ui.findButton.emit("clicked(bool)", False)
    assert panel.job is None and program.questions == []
    assert "'ftp://server' is not a server address" in panel.ui.statusLabel.text


def test_an_answer_that_the_scene_refuses_is_a_line_and_the_panel_goes_on(
    panel: Any, volume: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ctfindings_client import anatomy

    def refuse(*_: Any) -> None:
        raise RuntimeError("Slicer did not take the anatomy map as a segmentation")

    panel.ui.volumeSelector.setCurrentNode(volume)
    monkeypatch.setattr(anatomy, "show", refuse)
    panel.ui.findButton.emit("clicked(bool)", False)
    _until(panel, _rests(panel))
    assert "could not be shown (RuntimeError: Slicer did not take the anatomy map" in panel.ui.statusLabel.text
    monkeypatch.undo()
    panel.ui.findButton.emit("clicked(bool)", False)
    _until(panel, _rests(panel))
    assert len(panel.ui.findingsTable.texts()) == 18


def test_an_answer_about_a_scan_that_has_gone_is_dropped(
    panel: Any, program: Program, volume: Any, server: StandInServer
) -> None:
    server.gate.clear()
    panel.ui.volumeSelector.setCurrentNode(volume)
    panel.ui.findButton.emit("clicked(bool)", False)
    program.scene.RemoveNode(volume)
    server.gate.set()
    _until(panel, _rests(panel))
    assert panel.ui.findingsTable.texts() == []


def test_closing_the_scene_empties_the_panel(panel: Any, program: Program, volume: Any) -> None:
    panel.ui.volumeSelector.setCurrentNode(volume)
    panel.ui.findButton.emit("clicked(bool)", False)
    _until(panel, _rests(panel))
    program.scene.Clear(0)
    assert panel.ui.findingsTable.texts() == [] and not panel.ui.exportButton.enabled


def test_a_scan_that_was_read_before_shows_its_table_without_a_server(
    panel: Any, volume: Any, server: StandInServer
) -> None:
    panel.ui.volumeSelector.setCurrentNode(volume)
    panel.ui.findButton.emit("clicked(bool)", False)
    _until(panel, _rests(panel))
    panel.ui.volumeSelector.setCurrentNode(None)
    assert panel.ui.findingsTable.texts() == []
    assert _gone(server)
    asked = len(server.requests)
    panel.ui.volumeSelector.setCurrentNode(volume)
    assert len(panel.ui.findingsTable.texts()) == 18 and len(server.requests) == asked


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


def test_choosing_another_scan_shows_it_without_the_markings_of_the_first(
    panel: Any, program: Program, volume: Any, second: Any, axial: Any, bundle_answer: BundleAnswer
) -> None:
    from ctfindings_client import heat

    composite = program.scene.GetFirstNodeByClass("vtkMRMLSliceCompositeNode")
    _find_focal(panel, volume, bundle_answer)
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

    panel.ui.volumeSelector.setCurrentNode(volume)
    panel.ui.findButton.emit("clicked(bool)", False)
    _until(panel, _rests(panel))
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
    end = time.monotonic() + 10
    while server.sessions and time.monotonic() < end:
        time.sleep(0.01)
    return not server.sessions


@pytest.mark.parametrize("leave", ["another scan", "scene", "another server", "module"])
def test_the_uploaded_scan_is_deleted_from_the_server(
    panel: Any, program: Program, volume: Any, second: Any, server: StandInServer, leave: str
) -> None:
    panel.ui.volumeSelector.setCurrentNode(volume)
    panel.ui.findButton.emit("clicked(bool)", False)
    _until(panel, _rests(panel))
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
    panel.ui.volumeSelector.setCurrentNode(volume)
    panel.ui.findButton.emit("clicked(bool)", False)
    _until(panel, _rests(panel))
    panel.ui.volumeSelector.setCurrentNode(volume)
    panel.ui.queryLineEdit.text = QUERY
    panel.ui.askButton.emit("clicked(bool)", False)
    _until(panel, _rests(panel))
    assert list(server.sessions) == ["session-0"]
    assert [method for method, _, _, _ in server.requests if method in ("PUT", "DELETE")] == ["PUT"]


def test_lists_of_scans_offer_neither_heat_maps_nor_label_maps(panel: Any, volume: Any) -> None:
    from ctfindings_client import heat

    panel.ui.volumeSelector.setCurrentNode(volume)
    panel.ui.findButton.emit("clicked(bool)", False)
    _until(panel, _rests(panel))
    assert heat.heat_of(volume).GetHideFromEditors(), "qMRMLNodeComboBox leaves out what is hidden from editors"
    assert not volume.GetHideFromEditors()
    assert (
        panel.ui.volumeSelector.nodeTypes == ["vtkMRMLScalarVolumeNode"]
        and not panel.ui.volumeSelector.showChildNodeTypes
    )


def test_boxes_show_and_hide_what_they_name(panel: Any, volume: Any, bundle_answer: BundleAnswer) -> None:
    from ctfindings_client import anatomy, heat, nodes, points

    _find_focal(panel, volume, bundle_answer)
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


def test_export_names_the_folder_or_the_reason(
    panel: Any, volume: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import contextlib

    import slicer.util

    monkeypatch.setattr(slicer.util, "WaitCursor", contextlib.nullcontext, raising=False)
    panel.ui.volumeSelector.setCurrentNode(volume)
    panel.ui.findButton.emit("clicked(bool)", False)
    _until(panel, _rests(panel))
    panel.ui.exportPathLineEdit.currentPath = str(tmp_path / "missing")
    panel.ui.exportButton.emit("clicked(bool)", False)
    assert "is not a folder" in panel.ui.statusLabel.text
    panel.ui.exportPathLineEdit.currentPath = str(tmp_path)
    panel.ui.exportButton.emit("clicked(bool)", False)
    (folder,) = tmp_path.iterdir()
    assert panel.ui.statusLabel.text == f"Exported to {folder}"
    assert (folder / "scene.mrb").stat().st_size > 0


def test_a_draft_report_is_copied_if_the_server_sent_one(panel: Any, volume: Any, server: StandInServer) -> None:
    def find() -> None:
        panel.ui.findButton.emit("clicked(bool)", False)
        _until(panel, _rests(panel))

    panel.ui.volumeSelector.setCurrentNode(volume)
    find()
    assert not panel.ui.copyDraftButton.enabled, "this server sent none"
    server.findings = ({**server.findings[0], "draft_report": "DRAFT REPORT\nNot a diagnosis."}, server.findings[1])
    server.failures["/corrections/"] = (401, b"{}")
    find()
    assert panel.ui.copyDraftButton.enabled, "it needs no key"
    panel.ui.copyDraftButton.emit("clicked(bool)", False)
    assert CLIPBOARD.copied == "DRAFT REPORT\nNot a diagnosis."
    assert panel.ui.statusLabel.text.startswith("The draft report was copied.")
    panel.ui.volumeSelector.setCurrentNode(None)
    assert not panel.ui.copyDraftButton.enabled


def test_a_reader_confirms_rejects_places_and_reports_and_sees_it_again(
    panel: Any, program: Program, volume: Any, axial: Any, server: StandInServer, bundle_answer: BundleAnswer
) -> None:
    def press(button: str) -> None:
        assert getattr(panel.ui, button).enabled, button
        getattr(panel.ui, button).emit("clicked(bool)", False)
        _until(panel, _rests(panel))

    assert not panel.ui.confirmButton.enabled and not panel.ui.saveReportButton.enabled
    _find_focal(panel, volume, bundle_answer)
    name, kept = panel.corrections.finding, server.corrections["findings"]
    assert panel.ui.verdictLabel.text == f"{name}: not read yet."
    panel.ui.readerLineEdit.text = "A. Reader"
    press("placeButton")
    assert "do not meet" in panel.ui.verdictLabel.text and not kept
    for view, orientation, offset in (("Green", "Coronal", -20.0), ("Yellow", "Sagittal", 30.0)):
        node = program.scene.AddNewNodeByClass("vtkMRMLSliceNode", view)
        node.SetOrientation(orientation)
        node.SetSliceOffset(offset)  # of the sagittal view towards the left
    panel.ui.reportTextEdit.plainText = "Not saved yet."
    press("placeButton")
    assert kept[name]["present"] and kept[name]["reader"] == "A. Reader"
    assert kept[name]["place_mm"] == pytest.approx([-30.0, -20.0, axial.GetSliceOffset()], abs=0.01)
    press("confirmButton")
    assert kept[name]["place_mm"][:2] == [-30.0, -20.0], "a confirmation keeps the place"
    assert panel.ui.verdictLabel.text.startswith(f"{name}: present, A. Reader, 2026-11-29, at L 30, P 20, ")
    assert panel.ui.reportTextEdit.plainText == "Not saved yet." and server.corrections["report"] is None
    press("saveReportButton")
    assert server.corrections["report"]["text"] == "Not saved yet."

    panel.ui.findButton.emit("clicked(bool)", False)
    _until(panel, _rests(panel))
    assert f"✓ {name}" in [cells[0].removesuffix(" †") for cells in panel.ui.findingsTable.texts()]
    assert panel.ui.reportTextEdit.plainText == "Not saved yet."
    other = panel.corrections.finding
    press("rejectButton")
    assert kept[other] == {"present": False, "reader": "A. Reader", "time": kept[other]["time"]}
    press("takeBackButton")
    assert other not in kept
    press("agreementButton")
    assert panel.ui.agreementLabel.text == "Hernia: 1 confirmed, 0 rejected, 2 added, 0 both absent, 0 not assessed"

    server.failures["/corrections/"] = (401, b"{}")
    panel.ui.findButton.emit("clicked(bool)", False)
    _until(panel, _rests(panel))
    assert not panel.ui.confirmButton.enabled and "with the key of the server" in panel.ui.verdictLabel.text
