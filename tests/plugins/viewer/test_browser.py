"""The viewer in headless Chromium, over a server that runs with the shipped weights, on a synthetic scan.

``CTFINDINGS_KEEP_SCREENSHOT=1`` writes the pictures of docs/viewer.md again; ``CTFINDINGS_KEEP_PICTURES=DIR`` keeps
others in a folder.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import requests
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bundle.ctfindings.data.datalist import load_datalist
from bundle.ctfindings.findings import finding_index
from tests.plugins.monailabel.live_server import LiveServer, free_port, running

selenium = pytest.importorskip("selenium", reason="selenium is not installed")
pytest.importorskip("monailabel", reason="MONAI Label is not installed")

from selenium import webdriver  # noqa: E402
from selenium.webdriver import ActionChains  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
PYTHON = ROOT / ".venv-viewer" / "bin" / "python"
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
START_SECONDS, ANSWER_SECONDS = 300, 120
QUERY = "fluid around the lung"
# Width, height, picture in docs/images, and rows of the table that must be in sight.
SIZES = ((1440, 900, "viewer", 18), (1920, 1080, "viewer_1920x1080", 18), (1024, 768, "viewer_1024x768", 18))
ROWS_IN_SIGHT = """
const whole = document.querySelector('.ct-panel').getBoundingClientRect();
const block = document.querySelector('.ct-table-block').getBoundingClientRect();
const shown = document.querySelector('.ct-corrections').getBoundingClientRect();
const bottom = Math.min(whole.bottom, block.bottom, shown.top + 1);
return [...document.querySelectorAll('#findings tbody tr')].filter((row) =>
  row.getBoundingClientRect().bottom <= bottom).length;
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.is_file(), reason="the viewer's environment is missing (make viewer)"),
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="no browser (Debian: apt-get install chromium chromium-driver)"
    ),
]


@dataclass
class Page:
    """The open page, and how to ask it."""

    driver: Any
    address: str

    def text(self, selector: str) -> str:
        return str(self.driver.find_element(By.CSS_SELECTOR, selector).text)

    def click(self, selector: str) -> None:
        """Clicks as soon as something is there that can be clicked."""

        def clicked() -> bool:
            element = self.driver.find_element(By.CSS_SELECTOR, selector)
            if element.is_enabled():
                element.click()
                return True
            return False

        self.until(clicked, f"{selector} cannot be clicked")

    def set(self, name: str, value: Any) -> None:
        self.driver.execute_script("window.trame.state.set(arguments[0], arguments[1])", name, value)

    def state(self, name: str) -> Any:
        return self.driver.execute_script("return window.trame.state.get(arguments[0])", name)

    def names(self) -> list[str]:
        return [cell.text for cell in self.driver.find_elements(By.CSS_SELECTOR, "#findings tbody td:first-child")]

    def until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                if holds():
                    return
            except selenium.common.exceptions.WebDriverException:
                pass  # the page is being drawn anew
            assert time.monotonic() < deadline, f"{what}; the status line says: {self.text('#status')}"
            time.sleep(0.1)

    def view(self, name: str) -> np.ndarray:
        """Pixels of a slice view ``(height, width, 3)`` without the page's own letters."""
        place = self.driver.find_element(By.ID, f"place-{name}")
        box = self.driver.execute_script(
            "const r = arguments[0].closest('.layout-grid-item').getBoundingClientRect();"
            "return [r.x, r.y, r.width, r.height]",
            place,
        )
        x, y, width, height = (round(value) for value in box)
        picture = Image.open(io.BytesIO(self.driver.get_screenshot_as_png())).convert("RGB")
        return np.asarray(picture.crop((x + 30, y + 45, x + width - 30, y + height - 45))).astype(int)

    def settled(self, name: str) -> np.ndarray:
        """Pixels of a view once two looks at it are the same."""
        deadline = time.monotonic() + ANSWER_SECONDS
        last = self.view(name)
        while True:
            time.sleep(1.0)
            now = self.view(name)
            if np.array_equal(now, last):
                return now
            assert time.monotonic() < deadline, f"the view {name} never came to rest"
            last = now


@pytest.fixture(scope="module")
def studies(phantom_scan: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    image = nib.load(phantom_scan[0])
    hu = np.asarray(image.dataobj).astype(np.int16)
    nib.save(nib.Nifti1Image(hu, image.affine), folder / "synthetic.nii.gz")
    nib.save(nib.Nifti1Image(hu + np.int16(1), image.affine), folder / "another.nii.gz")
    return folder


@pytest.fixture(scope="module")
def server(studies: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with running(ROOT, studies, tmp_path_factory.mktemp("server"), []) as live:
        yield live


@contextmanager
def viewing(server: LiveServer, log: Path, *options: str) -> Iterator[str]:
    """Runs a viewer that is connected to the server, and gives its address."""
    port = free_port()
    command = [
        str(PYTHON),
        str(ROOT / "plugins" / "viewer" / "start_viewer.py"),
        "--server",
        server.url,
        "--port",
        str(port),
        *options,
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + START_SECONDS
            while True:
                try:
                    if requests.get(f"http://127.0.0.1:{port}/index.html", timeout=10).ok:
                        break
                except requests.ConnectionError:
                    text = log.read_text(encoding="utf-8", errors="replace")[-3000:]
                    assert process.poll() is None, text
                    assert time.monotonic() < deadline, text
                    time.sleep(0.3)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=60)


@pytest.fixture(scope="module")
def viewer(server: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a viewer that is connected to the server."""
    key = ("--api-key", str(server.work / "api_key"))
    with viewing(server, tmp_path_factory.mktemp("viewer") / "output.txt", *key) as address:
        yield address


@pytest.fixture(scope="module")
def page(viewer: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    quiet = [
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-quic",
    ]
    looks = ["--headless=new", "--disable-gpu", "--force-device-scale-factor=1", "--window-size=1440,1000"]
    for argument in ["--no-sandbox", f"--user-data-dir={profile}", *quiet, *looks]:
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        driver.get(viewer + "/index.html")
        page = Page(driver, viewer)
        page.until(lambda: page.text("#server-line").startswith("Connected: CT Findings"), "the viewer did not connect")
        yield page
    finally:
        driver.quit()


def record_of(server: LiveServer) -> dict[str, Any]:
    return dict(server.infer("findings", "image=synthetic", output="json").params["record"])


def uploads(server: LiveServer) -> list[Path]:
    """What the server keeps of uploaded scans."""
    return sorted((server.work / "sessions").iterdir())


def heat_coloured(view: np.ndarray) -> np.ndarray:
    """Pixels that are not grey but of the heat's colours: red well above blue."""
    return view[..., 0] - view[..., 2] > 40


def outlined(view: np.ndarray) -> np.ndarray:
    """Pixels of the blue and violet that outline lung and aorta."""
    return view[..., 2] - view[..., 0] > 60


def corrected_colour(view: np.ndarray) -> np.ndarray:
    """Pixels of the green of a place that a reader set."""
    return view[..., 1] - np.maximum(view[..., 0], view[..., 2]) > 60


def height(text: str) -> float:
    """``I 9.0 mm`` as -9.0."""
    side, value, _ = text.split()
    return float(value) * (1 if side == "S" else -1)


def slice_centre(page: Page) -> list[float]:
    """Where the slice views meet, in RAS mm, as their corners say."""
    sides = {"L": -1, "P": -1, "I": -1}
    places = [page.text(f"#place-{name}").split() for name in ("sagittal", "coronal", "axial")]
    return [sides.get(side, 1) * float(value) for side, value, _ in places]


def test_from_a_scan_of_the_server_to_findings_heat_and_free_text(page: Page, server: LiveServer) -> None:
    record = record_of(server)
    present = sorted((f for f in record["findings"] if f["present"]), key=lambda f: -f["probability"])
    assert page.text(".ct-notice") == "Research only. Not a diagnosis."
    page.set("scan_id", "synthetic")
    page.until(lambda: page.text("#status") == "Press Find.", "the scan did not open")
    before = page.settled("axial")
    assert before.std() > 20, "the axial view is empty"

    page.click("#find")
    page.until(lambda: len(page.names()) == 18, "the table did not fill")
    assert page.names()[: len(present)] == [finding["name"] for finding in present], "present findings come first"
    page.until(lambda: "strongest at" in page.text("#status"), "the first finding was not shown")
    assert page.state("show_anatomy") is False and not outlined(page.settled("axial")).any()
    page.set("show_anatomy", True)
    page.until(lambda: outlined(page.view("axial")).mean() > 0.001, "the outlines are not drawn")
    page.set("show_anatomy", False)
    page.set("show_box", False)

    first, other = (
        present[0],
        next(f for f in present[1:] if abs(f["evidence"]["z_mm"] - present[0]["evidence"]["z_mm"]) > 5),
    )
    at_first = page.settled("axial")
    assert heat_coloured(at_first).mean() > heat_coloured(before).mean() + 0.001, "no heat over the axial view"
    assert height(page.text("#place-axial")) == pytest.approx(first["evidence"]["z_mm"], abs=0.06)
    page.click(f"#findings tbody tr:nth-child({page.names().index(other['name']) + 1})")
    said = f"{other['name']} {other['probability']:.2f}: strongest at"
    page.until(lambda: page.text("#status").startswith(said), "a click had no answer")
    assert height(page.text("#place-axial")) == pytest.approx(other["evidence"]["z_mm"], abs=0.06)
    at_other = page.settled("axial")
    assert (np.abs(at_other - at_first).max(axis=-1) > 30).mean() > 0.01, "the view did not move"

    heated = heat_coloured(at_other)
    page.set("opacity", 0.0)
    page.until(lambda: heat_coloured(page.view("axial")).mean() < 0.0005, "heat without opacity is still drawn")
    inside = heated[:, 1:] & heated[:, :-1]
    with_heat, without = (
        np.abs(np.diff(view.mean(axis=-1), axis=1))[inside].mean() for view in (at_other, page.settled("axial"))
    )
    assert with_heat > 0.6 * without > 0, "the heat hides the scan below it"
    page.set("opacity", 0.5)
    page.until(lambda: heat_coloured(page.view("axial")).mean() > 0.001, "the heat did not come back")

    asked = server.infer("evidence", "image=synthetic", {"query": QUERY}, output="json").params
    page.driver.find_element(By.CSS_SELECTOR, "input#query").send_keys(QUERY)
    page.click("#ask")
    page.until(lambda: page.text("#status").startswith(f"{QUERY}: strongest at"), "the free text had no answer")
    assert height(page.text("#place-axial")) == pytest.approx(asked["z_mm"], abs=0.06)
    line = page.driver.find_element(By.CSS_SELECTOR, "#depth polyline").get_attribute("points")
    assert len(line.split()) == len(asked["depth"]), "the profile has a point for each level"


def test_nothing_came_from_another_machine(page: Page) -> None:
    loaded = page.driver.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert any("index" in name for name in loaded)
    assert [name for name in loaded if not name.startswith((page.address, "data:", "blob:"))] == []


def test_a_click_on_a_head_sorts_the_table(page: Page) -> None:
    page.click("#findings th:nth-child(1)")
    page.until(lambda: page.names() == sorted(page.names()), "the names are not in order")
    page.click("#findings th:nth-child(1)")
    page.until(lambda: page.names() == sorted(page.names(), reverse=True), "the order did not turn around")


def test_the_keyboard_sorts_the_table_and_its_head_says_how(page: Page) -> None:
    def order(column: int) -> str | None:
        return page.driver.find_element(By.CSS_SELECTOR, f"#findings th:nth-child({column})").get_attribute("aria-sort")

    before = order(1)
    page.driver.find_element(By.CSS_SELECTOR, "#findings th:nth-child(1) button").send_keys(Keys.ENTER)
    page.until(lambda: order(1) in {"ascending", "descending"} - {before}, "the key did nothing")
    assert page.names() == sorted(page.names(), reverse=order(1) == "descending")
    assert order(2) == "none"


def test_the_keyboard_opens_a_finding_asks_in_free_text_and_connects(page: Page) -> None:
    name = page.names()[-1]
    page.driver.find_element(By.CSS_SELECTOR, "#findings tbody tr:last-child").send_keys(Keys.ENTER)
    page.until(lambda: page.text("#status").startswith(name) and not page.state("busy"), "Return on a row did nothing")
    query = page.driver.find_element(By.ID, "query")
    query.send_keys(Keys.CONTROL, "a")
    query.send_keys("air around the heart", Keys.ENTER)
    page.until(
        lambda: page.text("#status").startswith("air around the heart: "), "Return after a free text did nothing"
    )
    assert query.get_attribute("maxlength") == "300"
    assert not page.driver.find_element(By.CSS_SELECTOR, ".ct-address").is_displayed(), "the address is not folded away"
    page.click("#change-server")
    page.until(page.driver.find_element(By.CSS_SELECTOR, ".ct-address").is_displayed, "the address cannot be opened")
    page.set("server_line", "")
    page.driver.find_element(By.CSS_SELECTOR, ".ct-address input").send_keys(Keys.ENTER)
    page.until(lambda: page.text("#server-line").startswith("Connected"), "Return after an address did nothing")
    page.until(lambda: not page.state("server_open"), "the address did not fold away again")


def test_arrow_keys_scroll_the_view_under_the_mouse_or_the_axial_one(page: Page) -> None:
    body = page.driver.find_element(By.TAG_NAME, "body")
    spacing = 3.0

    def pressed(key: str, view: str) -> float:
        before, sides = page.text(f"#place-{view}"), {"I": -1, "P": -1, "L": -1}
        body.send_keys(key)
        page.until(lambda: page.text(f"#place-{view}") != before, f"{key!r} did not move the {view} view")
        (side, value, _), (old_side, old, _) = page.text(f"#place-{view}").split(), before.split()
        return sides.get(side, 1) * float(value) - sides.get(old_side, 1) * float(old)

    ActionChains(page.driver).move_to_element(page.driver.find_element(By.CSS_SELECTOR, ".ct-title")).perform()
    page.settled("axial")
    up = pressed(Keys.ARROW_UP, "axial")
    assert 0 < up <= spacing and pressed(Keys.ARROW_DOWN, "axial") == pytest.approx(-up, abs=0.11)
    axial = page.text("#place-axial")
    coronal = page.driver.execute_script("return document.querySelector('#place-coronal').closest('.layout-grid-item')")
    ActionChains(page.driver).move_to_element(coronal).perform()
    assert pressed(Keys.ARROW_LEFT, "coronal") < 0 and page.text("#place-axial") == axial
    place = page.text("#place-coronal")
    page.driver.find_element(By.ID, "query").send_keys(Keys.ARROW_UP, "N")
    time.sleep(1)
    assert page.text("#place-coronal") == place and page.state("scan_id") == "synthetic", "a field's keys are its own"


def test_the_draft_report_is_unfolded_and_copied(page: Page, server: LiveServer) -> None:
    sent = str(server.infer("findings", "image=synthetic", output="json").params["draft_report"])
    assert "research only" in page.text("#open-draft") and not page.driver.find_elements(By.ID, "draft")
    page.click("#open-draft")
    page.until(lambda: page.text("#draft").split() == sent.split(), "the draft is not shown")
    page.driver.execute_cdp_cmd(
        "Browser.grantPermissions",
        {"origin": page.address, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]},
    )
    page.click("#copy-draft")
    page.until(lambda: page.text("#status").startswith("The draft report was copied."), "nothing was said")
    read = "const done = arguments[0]; navigator.clipboard.readText().then(done, (error) => done(String(error)))"
    assert page.driver.execute_async_script(read) == sent
    assert "Not a diagnosis" in sent or "not a diagnosis" in sent, "the copy does not say what it is worth"
    page.click("#open-draft")
    page.until(lambda: not page.driver.find_elements(By.ID, "draft"), "the draft does not fold away")


def test_keys_open_the_next_scan_of_the_server_and_find(page: Page) -> None:
    body = page.driver.find_element(By.TAG_NAME, "body")

    def pressed(key: str, scan: str) -> None:
        body.send_keys(key)
        page.until(lambda: page.text(".ct-scan-name") == scan and page.state("has_scan"), f"{key} did not open {scan}")

    pressed("P", "another")
    assert not page.names() and not page.driver.find_elements(By.ID, "draft-block")
    body.send_keys("P")
    page.until(lambda: "first scan" in page.text("#status"), "the end of the list was not said")
    pressed("N", "synthetic")
    body.send_keys("N")
    page.until(lambda: "last scan" in page.text("#status"), "the end of the list was not said")
    body.send_keys("f")
    page.until(lambda: "strongest at" in page.text("#status") and not page.state("busy"), "f did not find")


def test_what_a_reader_corrects_is_in_the_datalist_of_the_next_training_and_shown_when_the_scan_is_opened_again(
    page: Page, server: LiveServer, studies: Path
) -> None:
    def press(selector: str, holds: Callable[[], bool]) -> None:
        page.click(selector)
        page.until(lambda: not page.state("busy") and holds(), f"{selector} did nothing")

    def open_and_find() -> None:
        page.set("scan_id", None)
        page.set("scan_id", "synthetic")
        page.until(lambda: page.text("#status") == "Press Find.", "the scan did not open")
        press("#find", lambda: "strongest at" in page.text("#status"))

    open_and_find()
    press("#findings tbody tr:nth-child(1)", lambda: page.state("selected") == page.names()[0])
    confirmed, rejected = page.names()[:2]
    page.set("reader", "A. Reader")
    press("#confirm", lambda: page.text("#verdict").startswith(f"{confirmed}: present, A. Reader, "))
    assert not corrected_colour(page.view("axial")).any()
    press("#set-place", lambda: " mm." in page.text("#verdict"))
    page.until(lambda: bool(corrected_colour(page.view("axial")).any()), "the place is not marked")
    place = slice_centre(page)
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

    open_and_find()
    assert page.state("report") == "A report of the scan."
    assert page.names()[:2] == [f"✓ {confirmed}", f"✗ {rejected}"]
    press("#take-back", lambda: page.text("#verdict") == f"{confirmed}: not read yet.")
    press("#findings tbody tr:nth-child(2)", lambda: page.state("selected") == rejected)
    press("#take-back", lambda: page.text("#verdict") == f"{rejected}: not read yet.")
    page.set("report", "")
    press("#save-report", lambda: page.state("report_saved") == "")
    press("#open-report", lambda: not page.state("report_open"))
    page.set("scan_id", None)  # so that it can be chosen again


def test_two_clicks_measure_a_distance_in_mm_that_grows_with_the_pixels_between_them(page: Page) -> None:
    script = "return document.querySelector('#place-axial').closest('.layout-grid-item')"
    view = page.driver.execute_script(script)

    def measured(pixels: int) -> float:
        page.click("#distance")
        page.until(lambda: bool(page.state("measuring")), "no distance began")
        for offset in (0, pixels):
            ActionChains(page.driver).move_to_element_with_offset(view, offset, 0).pause(0.5).click().perform()
        page.until(lambda: page.state("distance") is not None, "no distance is measured")
        length = float(page.state("distance"))
        page.driver.find_element(By.TAG_NAME, "body").send_keys("d")
        page.until(lambda: page.state("distance") is None and not page.state("measuring"), "it was not removed")
        return length

    short, long = measured(60), measured(120)
    assert short > 5 and long == pytest.approx(2 * short, rel=0.05)


def test_all_of_the_scan_is_shown_again_at_the_same_slice(page: Page) -> None:
    page.click("#findings tbody tr:first-child")
    page.until(lambda: not page.state("busy") and "strongest at" in page.text("#status"), "a click had no answer")
    place = page.text("#place-axial")
    reset = page.driver.find_element(
        By.XPATH, "//*[@id='place-axial']/ancestor::*[contains(@class, 'layout-grid-item')]//button[@title='Show all']"
    )
    reset.click()
    time.sleep(3)
    assert page.text("#place-axial") == place


def test_a_damaged_upload_is_said_in_words_a_good_one_opens_and_neither_stays_on_the_server(
    page: Page, server: LiveServer, phantom_scan: tuple[Path, Path], tmp_path: Path
) -> None:
    damaged = tmp_path / "Doe^Jane.nii.gz"
    damaged.write_bytes(phantom_scan[0].read_bytes()[:50_000])
    page.driver.find_element(By.ID, "file").send_keys(str(damaged))
    page.until(lambda: "truncated or damaged" in page.text("#status"), "the damaged file was not refused")
    assert "Doe" not in page.text("#status"), "the server was told the name of the file"
    page.driver.find_element(By.ID, "file").send_keys(str(phantom_scan[0]))
    page.until(lambda: page.text("#status") == "Press Find.", "the upload did not open")
    assert page.text(".ct-scan-name") == "scan.nii.gz"
    page.until(lambda: len(uploads(server)) == 1, "the server keeps more than the scan that is shown")
    page.set("scan_id", "synthetic")
    page.until(
        lambda: page.text(".ct-scan-name") == "synthetic" and page.state("has_scan"),
        "the scan of the server did not open",
    )
    page.until(lambda: not uploads(server), "the server still has the upload, which nothing shows any more")
    page.set("scan_id", None)  # so that it can be chosen again


def test_the_end_of_the_viewer_deletes_the_scan_that_it_had_uploaded(
    server: LiveServer, phantom_scan: tuple[Path, Path], tmp_path: Path
) -> None:
    def opened() -> int:
        return server.log.read_text(encoding="utf-8").count("scan answered in")

    before = opened()
    with viewing(server, tmp_path / "output.txt", "--scan", str(phantom_scan[0])):
        deadline = time.monotonic() + ANSWER_SECONDS
        while opened() == before:
            assert time.monotonic() < deadline, (tmp_path / "output.txt").read_text(errors="replace")[-3000:]
            time.sleep(0.1)
        assert len(uploads(server)) == 1
    assert not uploads(server)
    said = (tmp_path / "output.txt").read_text(encoding="utf-8").splitlines()
    assert said[0] == "Loading the viewer ..." and len(said) == 2, "the terminal holds more than that and the address"


def test_a_server_that_is_gone_is_said_in_words(page: Page, server: LiveServer) -> None:
    page.click("#change-server")
    page.set("address", f"http://127.0.0.1:{free_port()}")
    page.click("#connect")
    page.until(lambda: "no server answers there" in page.text("#server-line"), "nothing was said")
    page.set("address", server.url)
    page.click("#connect")
    page.until(lambda: page.text("#server-line").startswith("Connected"), "the viewer did not connect again")


def test_a_server_that_dies_is_noticed_while_the_page_rests_and_connected_again_when_it_is_back(
    page: Page, server: LiveServer
) -> None:
    """A gate stands between the viewer and the server, and is closed and opened again."""
    port = free_port()
    asked: list[str] = []

    def gate() -> ThreadingHTTPServer:
        class Gate(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                answer = server.get(self.path)
                self.send_response(answer.status_code)
                self.end_headers()
                self.wfile.write(answer.content)

            def log_message(self, *_: object) -> None:
                pass

        opened = ThreadingHTTPServer(("127.0.0.1", port), Gate)
        threading.Thread(target=opened.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return opened

    for opening in range(2):
        opened = gate()
        if opening == 0:
            page.click("#change-server")
            page.set("address", f"http://127.0.0.1:{port}")
            page.click("#connect")
        # The list of scans is the last thing that it asks for; until then, the line may be that of the server before.
        page.until(lambda: any("datastore" in path for path in asked), "the viewer did not ask")
        page.until(lambda: page.text("#server-line").startswith("Connected"), "the viewer did not connect")
        opened.shutdown()
        opened.server_close()
        asked.clear()
        with socket.socket() as held:  # Nobody else may take the port meanwhile.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(("127.0.0.1", port))
            page.until(lambda: "no server answers there" in page.text("#server-line"), "the end was not noticed")
    page.set("address", server.url)
    page.click("#connect")
    page.until(lambda: page.text("#server-line").startswith("Connected"), "the viewer did not connect again")


def test_pages_of_other_sites_are_refused(viewer: str) -> None:
    assert (
        requests.get(viewer + "/index.html", headers={"Origin": "https://evil.example.org"}, timeout=30).status_code
        == 403
    )
    assert requests.get(viewer + "/index.html", headers={"Host": "evil.example.org"}, timeout=30).status_code == 403
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    assert (
        requests.get(viewer + "/ws", headers={**upgrade, "Origin": "https://evil.example.org"}, timeout=30).status_code
        == 403
    )


@pytest.mark.parametrize(
    ("query", "words", "placed"),
    [
        (QUERY, ["unrelated texts on this scan", "Nearest finding: "], True),
        ("no pleural effusion", ["'no pleural effusion'", "it is asked as 'pleural effusion'"], True),
        ("asdf qwerty zxcv", ["The score means nothing", "None of its words"], False),
        ("Pleuraerguss links", ["The score means nothing", "It seems to be German"], False),
    ],
)
def test_a_free_text_is_told_in_words_and_nonsense_shows_no_place(
    page: Page, query: str, words: list[str], placed: bool, tmp_path: Path
) -> None:
    if page.state("scan_name") != "synthetic" or not page.state("has_scan"):
        page.set("scan_id", "synthetic")
        page.until(lambda: page.state("has_scan"), "the scan did not open")
    page.set("show_anatomy", False)
    page.set("show_box", False)
    page.set("query", query)
    page.click("#ask")
    page.until(lambda: page.text("#status").startswith(f"{query}: "), "the free text had no answer")
    for word in words:
        assert word in page.text("#meaning")
    assert bool(page.driver.find_elements(By.CSS_SELECTOR, "#depth")) == placed
    assert (heat_coloured(page.settled("axial")).mean() > 0.001) == placed
    if keep := os.environ.get("CTFINDINGS_KEEP_PICTURES"):
        page.driver.save_screenshot(str(Path(keep) / f"{query.replace(' ', '_')}.png"))


def test_the_pictures_of_the_docs(page: Page, server: LiveServer, tmp_path: Path) -> None:
    """All of the page as a reader sees it; where they are not kept, they are still drawn and must not be empty."""
    page.set("scan_id", None)
    page.set("scan_id", "synthetic")
    page.until(lambda: page.text("#status") == "Press Find.", "the scan did not open")
    page.set("show_box", True)
    page.set("opacity", 0.35)  # as at first
    page.set("query", "")
    page.click("#find")
    page.until(lambda: "strongest at" in page.text("#status"), "no finding was shown")
    keep = os.environ.get("CTFINDINGS_KEEP_SCREENSHOT") == "1"
    told = PngInfo()
    told.add_text("weights", str(record_of(server)["model"]["weights_sha256"]))
    for width, height, name, rows in SIZES:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        page.set("show_anatomy", name != "viewer")  # one picture as it is at first, and the others with outlines
        drawn = [page.settled(view) for view in ("axial", "coronal", "sagittal")]
        assert all(view.std() > 20 for view in drawn)
        assert page.driver.execute_script(ROWS_IN_SIGHT) >= rows, "too little of the table is in sight"
        assert page.driver.execute_script("return document.documentElement.scrollWidth") == width, "it is cut"
        target = (ROOT / "docs" / "images" if keep else tmp_path) / f"{name}.png"
        picture = Image.open(io.BytesIO(page.driver.get_screenshot_as_png())).convert("RGB")
        drawing = picture.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        drawing.save(target, optimize=True, pnginfo=told)
        assert picture.size == (width, height) and 50_000 < target.stat().st_size < 300_000
