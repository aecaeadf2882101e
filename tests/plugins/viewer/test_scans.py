"""Scans of the server and of files: how they are opened, and that no upload stays on the server."""

import time
from pathlib import Path

import pytest

from tests.plugins.monailabel.live_server import LiveServer

pytest.importorskip("selenium", reason="selenium is not installed")
pytest.importorskip("monailabel", reason="MONAI Label is not installed")

from selenium.webdriver.common.by import By

from tests.plugins.viewer.browser import ANSWER_SECONDS, NEEDS, Page, uploads, viewing

pytestmark = NEEDS


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
    page.open()
    page.until(lambda: not uploads(server), "the server still has the upload, which nothing shows any more")


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
