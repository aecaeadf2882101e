"""What a reader corrects on the page."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bundle.ctfindings.data.datalist import load_datalist
from bundle.ctfindings.findings import finding_index
from tests.plugins.monailabel.live_server import LiveServer

pytest.importorskip("selenium", reason="selenium is not installed")
pytest.importorskip("monailabel", reason="MONAI Label is not installed")

from selenium.webdriver.common.by import By

from tests.plugins.viewer.browser import NEEDS, ROOT, Page, run_in_viewer, slice_centre

pytestmark = NEEDS


def corrected_colour(view: np.ndarray) -> np.ndarray:
    """Pixels of the green of a place that a reader set."""
    return view[..., 1] - np.maximum(view[..., 0], view[..., 2]) > 60


def test_what_a_reader_corrects_is_in_the_datalist_of_the_next_training_and_shown_when_the_scan_is_opened_again(
    page: Page, server: LiveServer, studies: Path
) -> None:
    def press(selector: str, holds: Callable[[], bool]) -> None:
        page.click(selector)
        page.until(lambda: not page.state("busy") and holds(), f"{selector} did nothing")

    page.open_and_find()
    press("#findings tbody tr:nth-child(1)", lambda: page.state("selected") == page.names()[0])
    confirmed, rejected = page.names()[:2]
    page.set("reader", "A. Reader")
    press("#confirm", lambda: page.text("#verdict").startswith(f"{confirmed}: present, A. Reader, "))
    assert not corrected_colour(page.view("axial")).any()
    press("#set-place", lambda: " mm." in page.text("#verdict"))
    page.until(lambda: bool(corrected_colour(page.view("axial")).any()), "the place is not marked")
    place = slice_centre(page, studies / "synthetic.nii.gz")
    press("#findings tbody tr:nth-child(2)", lambda: page.state("selected") == rejected)
    press("#reject", lambda: page.text("#verdict").startswith(f"{rejected}: absent, A. Reader, "))
    press("#open-report", lambda: page.state("report_open"))
    page.click("#report")  # as soon as it is drawn
    page.driver.find_element(By.ID, "report").send_keys("A report of the scan.")
    press("#save-report", lambda: page.state("report_saved") == "A report of the scan.")
    press("#show-agreement", lambda: "Confirmed" in page.text("#agreement"))
    rows = [row.text for row in page.driver.find_elements(By.CSS_SELECTOR, "#agreement tbody tr")]
    assert sorted(rows) == sorted([f"{confirmed} 1 0 0 0 0", f"{rejected} 0 1 0 0 0"])
    press("#show-agreement", lambda: page.state("agreement") is None)

    listed = server.work / "datalist.json"
    conf = ["--studies", str(studies), "--conf", "work", str(server.work)]
    script = str(ROOT / "plugins" / "monailabel" / "export_corrections.py")
    exported = subprocess.run([sys.executable, script, str(listed), *conf, "--val-split", "0"], check=False)
    assert exported.returncode == 0
    (study,) = load_datalist(listed, "training")
    assert [study["labels"][finding_index(name)] for name in (confirmed, rejected)] == [1, 0]
    assert study["labels"].tolist().count(-1) == 16 and study["image"] == str(studies / "synthetic.nii.gz")
    assert study["report"]["findings"] == "A report of the scan."
    assert study["sites"] == [{"finding": confirmed, "center_mm": pytest.approx(place, abs=0.06)}]

    page.open_and_find()
    assert page.state("report") == "A report of the scan."
    assert page.names()[:2] == [f"✓ {confirmed}", f"✗ {rejected}"]
    press("#take-back", lambda: page.text("#verdict") == f"{confirmed}: not read yet.")
    press("#findings tbody tr:nth-child(2)", lambda: page.state("selected") == rejected)
    press("#take-back", lambda: page.text("#verdict") == f"{rejected}: not read yet.")
    page.set("report", "")
    press("#save-report", lambda: page.state("report_saved") == "")
    press("#open-report", lambda: not page.state("report_open"))


SAVING = """
import asyncio
import json
import numpy as np
from ctfindings_client.answers import Scan
from ctfindings_viewer.viewer import Viewer
from tests.plugins.slicer.stand_in_server import StandInServer
from trame.app import get_server

archive = StandInServer(({}, b""), lambda params: ({}, b""))
archive.images["case1"] = b""
viewer = Viewer(get_server(client_type="vue3"), archive.address)
block, state = viewer.correction_block, viewer.state
seen = []


def look():
    seen.append([sorted(block.corrections.findings), bool(state.busy), str(state.status), str(state.verdict)])


async def until(holds):
    while not holds():
        await asyncio.sleep(0.02)


async def main():
    def opened():
        volume = viewer.scene.open(Scan(np.zeros((8, 8, 8), np.int16), np.eye(4)), "scan")
        viewer.studies.server_has(volume, image="case1")

    opened()
    state.selected = "Hernia"
    archive.kept.clear()
    block.on_verdict(True, "A. Reader")
    await until(lambda: archive.corrections["findings"])
    block.on_agreement()  # a question, as a click on a row asks one
    await until(lambda: state.agreement is not None)
    look()
    archive.kept.set()
    await until(lambda: not state.busy)
    look()
    archive.kept.clear()
    block.on_verdict(False, "A. Reader")
    await until(lambda: not archive.corrections["findings"]["Hernia"]["present"])
    viewer.close_scan("")
    opened()
    archive.kept.set()
    await until(lambda: not state.busy)
    look()
    archive.failures["/corrections/"] = (400, b'{"detail": "the disk is full"}')
    block.on_verdict(True, "A. Reader")
    await until(lambda: not state.busy)
    look()


asyncio.run(asyncio.wait_for(main(), 60))
print(json.dumps(seen))
"""


def test_a_question_does_not_drop_a_correction_that_is_sent_and_another_scan_does_not_get_it() -> None:
    asked, saved, left, refused = run_in_viewer(SAVING)
    assert asked[:2] == [[], True], "the answer to the question came first"
    assert saved == [["Hernia"], False, "Saved on the server.", "Hernia: present, A. Reader, 2026-11-29."]
    assert left[:2] == [[], False]
    assert refused[3] == "Not saved. The server says: the disk is full"
