"""The viewer's page in headless Chromium: how tests start it, ask it and look at it."""

import io
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import requests
from PIL import Image
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By

from tests.plugins.monailabel.live_server import LiveServer
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[3]
PYTHON = ROOT / ".venv-viewer" / "bin" / "python"
MODULES = os.pathsep.join(str(ROOT / "plugins" / name) for name in ("client", "viewer"))
"""PYTHONPATH of a program that imports the viewer in its own environment."""
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
START_SECONDS, ANSWER_SECONDS = 300, 120

SET = """
const [name, value, done] = arguments, state = window.trame.state;
const waits = () => state.dirtyKeys.size || state.client.isBusy();
const send = () => waits() ? state.flush().then(() => setTimeout(send, 20)) : done();
state.set(name, value).then(send);
"""
"""While the page waits for an answer, it holds its changes back, and two changes of a state become one."""

NEEDS = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.is_file(), reason="the viewer's environment is missing (make viewer)"),
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="no browser (Debian: apt-get install chromium chromium-driver)"
    ),
]
"""Marks of every test that opens the page."""


def run_in_viewer(program: str) -> Any:
    """What a program prints last as JSON, in the viewer's environment."""
    path = os.pathsep.join([MODULES, str(ROOT)])
    done = subprocess.run(
        [str(PYTHON), "-c", program],
        capture_output=True,
        check=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": path},
        timeout=START_SECONDS,
    )
    return json.loads(done.stdout.splitlines()[-1])


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
        """Changes a state of the page; the viewer has acted on it when this returns."""
        self.driver.execute_async_script(SET, name, value)

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
            except WebDriverException:
                pass  # the page is being drawn anew
            assert time.monotonic() < deadline, f"{what}; the status line says: {self.text('#status')}"
            time.sleep(0.1)

    def view(self, name: str) -> np.ndarray:
        """Pixels of a slice view ``(height, width, 3)`` without the page's own letters."""
        x, y, width, height = self.box(name)
        picture = Image.open(io.BytesIO(self.driver.get_screenshot_as_png())).convert("RGB")
        return np.asarray(picture.crop((x + 30, y + 45, x + width - 30, y + height - 45))).astype(int)

    def settled(self, name: str) -> np.ndarray:
        """Pixels of a view once two looks at it are the same."""
        deadline = time.monotonic() + ANSWER_SECONDS
        last = self.view(name)
        while True:
            time.sleep(0.4)
            now = self.view(name)
            if np.array_equal(now, last):
                return now
            assert time.monotonic() < deadline, f"the view {name} never came to rest"
            last = now

    def element(self, view: str) -> Any:
        """The part of the page with a slice view."""
        return self.driver.execute_script(
            f"return document.querySelector('#place-{view}').closest('.layout-grid-item')"
        )

    def answered(self, act: Callable[[], None], said: str) -> None:
        """Acts, and waits until the status line begins with what is said of it and nothing runs any more."""
        self.set("status", "")
        act()
        self.until(lambda: self.text("#status").startswith(said) and not self.state("busy"), f"{said!r} was not said")

    def open(self) -> None:
        """Opens the synthetic scan of the server, also if it is open."""
        self.set("scan_id", None)
        self.answered(lambda: self.set("scan_id", "synthetic"), "Press Find.")

    def choose(self, row: int) -> str:
        """Clicks on a row of the table, waits for its answer, and returns the name of its finding."""
        name = str(self.state("rows")[row]["name"])
        self.answered(lambda: self.click(f"#findings tbody tr:nth-child({row + 1})"), f"{name} ")
        return name

    def open_and_find(self) -> None:
        """Opens the synthetic scan of the server and asks for its findings."""
        self.open()
        self.click("#find")
        self.until(
            lambda: not self.state("busy") and "strongest at" in self.text("#status"), "the finding was not shown"
        )

    def box(self, view: str) -> tuple[int, int, int, int]:
        """Left, top, width and height of a slice view in pixels of the page."""
        script = "const r = arguments[0].getBoundingClientRect(); return [r.x, r.y, r.width, r.height]"
        x, y, width, height = (round(value) for value in self.driver.execute_script(script, self.element(view)))
        return x, y, width, height


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
            while not _answers(f"http://127.0.0.1:{port}/index.html"):
                text = log.read_text(encoding="utf-8", errors="replace")[-3000:]
                assert process.poll() is None, text
                assert time.monotonic() < deadline, text
                time.sleep(0.3)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=ANSWER_SECONDS)


def _answers(address: str) -> bool:
    try:
        return requests.get(address, timeout=10).ok
    except (requests.ConnectionError, requests.Timeout):
        return False


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


def slice_centre(page: Page, scan: Path) -> list[float]:
    """Where the slice views meet, in RAS mm, as their corners say: two coordinates, and an image of the scan."""
    sides = {"L": -1, "P": -1}
    places = [page.text(f"#place-{name}").split() for name in ("sagittal", "coronal")]
    _, image, _, images = page.text("#place-axial").split()
    affine = nib.load(scan).affine
    return [
        *(sides.get(side, 1) * float(value) for side, value, _ in places),
        float(affine[2, 3] + affine[2, 2] * (int(images) - int(image))),
    ]
