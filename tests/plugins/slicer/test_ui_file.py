"""The panel's .ui file and the widget name the same things."""

from __future__ import annotations

import ast
import re
import xml.etree.ElementTree as ET
from typing import Any

from tests.plugins.slicer.conftest import BundleAnswer
from tests.plugins.slicer.program import MODULE_FOLDER
from tests.plugins.slicer.stand_in_qt import CLASSES, COMMON

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
