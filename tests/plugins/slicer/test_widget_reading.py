"""What a reader keeps: exports, draft reports, corrections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.plugins.slicer.conftest import QUERY, BundleAnswer
from tests.plugins.slicer.panel import find, find_focal, rests, until
from tests.plugins.slicer.program import Program
from tests.plugins.slicer.stand_in_qt import CLIPBOARD
from tests.plugins.slicer.stand_in_server import StandInServer


def test_export_names_the_folder_or_the_reason(
    panel: Any, volume: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import contextlib

    import slicer.util

    monkeypatch.setattr(slicer.util, "WaitCursor", contextlib.nullcontext, raising=False)
    find(panel, volume)
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
        until(panel, rests(panel))

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
        until(panel, rests(panel))

    assert not panel.ui.confirmButton.enabled and not panel.ui.saveReportButton.enabled
    find_focal(panel, volume, bundle_answer)
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
    until(panel, rests(panel))
    assert f"✓ {name}" in [cells[0] for cells in panel.ui.findingsTable.texts()]
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
    until(panel, rests(panel))
    assert not panel.ui.confirmButton.enabled and "with the key of the server" in panel.ui.verdictLabel.text


def test_a_click_while_a_correction_is_sent_does_not_drop_it(panel: Any, volume: Any, server: StandInServer) -> None:
    find(panel, volume)
    name, kept = panel.corrections.finding, server.corrections["findings"]
    server.kept.clear()
    panel.ui.confirmButton.emit("clicked(bool)", False)
    until(panel, lambda: name in kept)
    assert not panel.ui.rejectButton.enabled and not panel.ui.findButton.enabled
    panel.ui.findingsTable.selectRow(1)
    until(panel, lambda: panel.job is None)
    assert panel.corrections.finding != name and "strongest at" in panel.ui.statusLabel.text
    assert not panel.ui.rejectButton.enabled, "the first correction is still on its way"
    server.kept.set()
    until(panel, rests(panel))
    assert panel.ui.findingsTable.texts()[0][0].startswith("✓ ") and panel.ui.rejectButton.enabled
    assert panel.ui.statusLabel.text == "Saved on the server."


def test_a_correction_of_a_scan_that_was_left_is_not_shown_with_another_and_a_refused_one_is_named(
    panel: Any, volume: Any, server: StandInServer
) -> None:
    find(panel, volume)
    server.kept.clear()
    panel.ui.confirmButton.emit("clicked(bool)", False)
    until(panel, lambda: bool(server.corrections["findings"]))
    panel.ui.volumeSelector.setCurrentNode(None)
    server.kept.set()
    until(panel, rests(panel))
    assert panel.corrections.corrections.findings == {} and panel.ui.statusLabel.text == "Choose a scan."
    find(panel, volume)
    server.failures["/corrections/"] = (400, b'{"detail": "the disk is full"}')
    panel.ui.rejectButton.emit("clicked(bool)", False)
    panel.ui.findingsTable.selectRow(1)
    until(panel, rests(panel))
    assert panel.ui.verdictLabel.text == "Not saved. The server says: the disk is full"


def test_cancel_ends_a_correction_that_the_server_does_not_answer(
    panel: Any, volume: Any, server: StandInServer
) -> None:
    find(panel, volume)
    server.kept.clear()
    panel.ui.confirmButton.emit("clicked(bool)", False)
    assert panel.ui.cancelButton.enabled
    panel.ui.cancelButton.emit("clicked(bool)", False)
    assert rests(panel)() and panel.ui.statusLabel.text == "Cancelled." and panel.ui.confirmButton.enabled


def test_after_a_free_text_no_finding_can_be_corrected_until_one_is_chosen(
    panel: Any, volume: Any, server: StandInServer
) -> None:
    find(panel, volume)
    buttons = ("confirmButton", "rejectButton", "takeBackButton", "placeButton")
    assert all(getattr(panel.ui, button).enabled for button in buttons)
    panel.ui.queryLineEdit.text = QUERY
    panel.ui.askButton.emit("clicked(bool)", False)
    until(panel, rests(panel))
    assert not any(getattr(panel.ui, button).enabled for button in buttons) and panel.ui.verdictLabel.text == ""
    panel.ui.findingsTable.selectRow(0)
    until(panel, rests(panel))
    assert all(getattr(panel.ui, button).enabled for button in buttons)
