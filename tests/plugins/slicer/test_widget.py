"""The slots of the panel do what they say, against stand-ins for Qt."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.plugins.slicer.conftest import QUERY, BundleAnswer
from tests.plugins.slicer.panel import find, rests, until
from tests.plugins.slicer.program import Program
from tests.plugins.slicer.stand_in_server import StandInServer


def test_at_first_only_connecting_is_possible(panel: Any) -> None:
    enabled = {
        name for name in ("connectButton", "findButton", "askButton", "exportButton", "chartButton", "cancelButton")
    }
    assert {name for name in enabled if getattr(panel.ui, name).enabled} == {"connectButton"}
    assert panel.ui.statusLabel.text == "Choose a scan."


def test_connect_names_the_server(panel: Any, program: Program, server: StandInServer) -> None:
    panel.ui.connectButton.emit("clicked(bool)", False)
    assert not panel.ui.connectButton.enabled and panel.ui.cancelButton.enabled
    until(panel, rests(panel))
    assert panel.ui.serverStatusLabel.text == "Connected: CT Findings 0.1.0, weights abababab"
    assert panel.ui.statusLabel.text == "Choose a scan.", "how far connecting came is no longer of interest"
    assert panel.ui.connectButton.enabled and not panel.ui.cancelButton.enabled


def test_connect_says_what_to_update(panel: Any, server: StandInServer) -> None:
    server.config["api"] = 2
    panel.ui.connectButton.emit("clicked(bool)", False)
    until(panel, rests(panel))
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
    until(panel, rests(panel))
    assert (panel.logic.address, panel.logic.token) == ("http://127.0.0.1:9", "")


def test_find_fills_the_table_and_goes_to_the_first_finding(
    panel: Any, volume: Any, axial: Any, bundle_answer: BundleAnswer
) -> None:
    panel.ui.volumeSelector.setCurrentNode(volume)
    assert panel.ui.findButton.enabled
    panel.ui.findButton.emit("clicked(bool)", False)
    assert panel.ui.progressBar.visible
    until(panel, rests(panel))
    texts = panel.ui.findingsTable.texts()
    assert len(texts) == 18
    first = max(bundle_answer.present(), key=lambda finding: finding["probability"])
    assert texts[0][0] == first["name"]
    bar = panel.ui.findingsTable._cells[0, 1]
    assert bar.value == round(100 * first["probability"])
    assert "WA_TransparentForMouseEvents" in bar._attributes
    presents = [row[3].removesuffix(" ~") for row in texts]
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

    find(panel, volume)
    finding = bundle_answer.present()[-1]
    row = next(
        index for index, cells in enumerate(panel.ui.findingsTable.texts()) if cells[0].startswith(finding["name"])
    )
    panel.ui.findingsTable.selectRow(row)
    assert axial.GetSliceOffset() == pytest.approx(
        finding["evidence"]["z_mm"], abs=1e-3
    )  # before the server has answered
    until(panel, rests(panel))
    assert heat.heat_of(volume).GetName() == f"Evidence: {finding['name']}"


def test_sorting_keeps_the_selected_finding_and_asks_nothing(panel: Any, volume: Any, server: StandInServer) -> None:
    find(panel, volume)
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
    until(panel, rests(panel))
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
    assert time.monotonic() - started < 20
    until(panel, lambda: panel.ui.statusLabel.text.startswith("The server is working"))
    assert panel.ui.progressBar._range == (0, 0)
    assert not panel.ui.findButton.enabled
    panel.ui.cancelButton.emit("clicked(bool)", False)
    assert rests(panel)() and panel.ui.statusLabel.text == "Cancelled." and panel.ui.findButton.enabled
    server.gate.set()
    time.sleep(0.2)
    panel.timer.fire()
    assert panel.ui.findingsTable.texts() == []


def test_errors_of_the_server_are_shown_in_a_line(panel: Any, volume: Any, server: StandInServer) -> None:
    server.failures["/infer/"] = (400, b'{"detail": "this is not a chest CT"}')
    find(panel, volume)
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
    until(panel, rests(panel))
    assert len(panel.ui.findingsTable.texts()) == 18 and program.questions == []


def test_what_is_no_address_is_refused_before_anything_is_sent(panel: Any, program: Program, volume: Any) -> None:
    panel.ui.volumeSelector.setCurrentNode(volume)
    panel.ui.serverLineEdit.text = "ftp://server"
    panel.ui.findButton.emit("clicked(bool)", False)
    assert panel.job is None and program.questions == []
    assert "'ftp://server' is not a server address" in panel.ui.statusLabel.text
