"""The pictures of docs/viewer.md, and that nothing of the page is cut at their sizes.

``CTFINDINGS_KEEP_SCREENSHOT=1`` writes them again.
"""

import io
import os
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.plugins.monailabel.live_server import LiveServer

pytest.importorskip("selenium", reason="selenium is not installed")
pytest.importorskip("monailabel", reason="MONAI Label is not installed")

from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By

from tests.plugins.viewer.browser import NEEDS, ROOT, Page, record_of

pytestmark = NEEDS


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
SCROLLED = """
return [...document.querySelectorAll('.ct-page, .ct-page *')].filter((one) =>
  ['auto', 'scroll'].includes(getComputedStyle(one).overflowY) && one.scrollHeight > one.clientHeight + 1).length;
"""
CUT = """
return [...document.querySelectorAll('#findings :is(td, th button), .ct-key-name')].filter((one) =>
  one.scrollWidth > one.clientWidth).map((one) => one.innerText);
"""
COLLIDING = """
const texts = [...document.querySelectorAll(
  '.ct-view-name, .ct-place, .ct-edge, .ct-window, .ct-colours, .ct-reset, .ct-key')];
const boxes = texts.map((text) => [text.className, text.getBoundingClientRect()]).filter(([, box]) => box.width);
return boxes.flatMap(([name, a], at) => boxes.slice(at + 1).filter(([, b]) =>
  a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom).map(([other]) => `${name} ${other}`));
"""


def test_the_pictures_of_the_docs(page: Page, server: LiveServer, tmp_path: Path) -> None:
    """All of the page as a reader sees it; where they are not kept, they are still drawn and must not be empty."""
    page.set("show_box", True)
    page.set("opacity", 0.35)  # as at first
    page.set("query", "")
    page.open_and_find()
    page.driver.execute_script("document.activeElement.blur()")
    ActionChains(page.driver).move_to_element(page.driver.find_element(By.CSS_SELECTOR, ".ct-title")).perform()
    keep = os.environ.get("CTFINDINGS_KEEP_SCREENSHOT") == "1"
    told = PngInfo()
    told.add_text("weights", str(record_of(server)["model"]["weights_sha256"]))
    for width, height, name, rows in SIZES:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        page.set("show_anatomy", name != "viewer")  # one picture as it is at first, and the others with outlines
        page.settled("axial")  # has its new size
        for fit in page.driver.find_elements(By.CSS_SELECTOR, ".ct-reset"):
            fit.click()  # as a scan is shown when it is opened in a window of this size
        drawn = [page.settled(view) for view in ("axial", "coronal", "sagittal")]
        assert all(view.std() > 20 for view in drawn)
        assert page.driver.execute_script(ROWS_IN_SIGHT) >= rows, "too little of the table is in sight"
        assert page.driver.execute_script("return document.documentElement.scrollWidth") == width, "it is cut"
        assert page.driver.execute_script(SCROLLED) <= (width < 1320), "more scroll bars than the panel's at 1024"
        assert page.driver.execute_script(CUT) == [], "texts are cut"
        assert page.driver.execute_script(COLLIDING) == [], "texts over the views cover each other"
        target = (ROOT / "docs" / "images" if keep else tmp_path) / f"{name}.png"
        picture = Image.open(io.BytesIO(page.driver.get_screenshot_as_png())).convert("RGB")
        drawing = picture.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        drawing.save(target, optimize=True, pnginfo=told)
        assert picture.size == (width, height) and 50_000 < target.stat().st_size < 300_000
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    page.set("show_anatomy", False)
