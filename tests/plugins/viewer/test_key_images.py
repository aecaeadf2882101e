"""Key images: small pictures of the slice of a finding, above the views and beside the rows of the table."""

import io
import json
import os
import subprocess
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from tests.plugins.monailabel.live_server import LiveServer

pytest.importorskip("selenium", reason="selenium is not installed")
pytest.importorskip("monailabel", reason="MONAI Label is not installed")

from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By

from tests.plugins.viewer.browser import MODULES, NEEDS, PYTHON, Page, record_of

pytestmark = NEEDS

DRAWN = """
import io, json, sys
import numpy as np
from PIL import Image
from ctfindings_client.record import Row
from ctfindings_viewer.key_images import draw

# 3 mm voxels whose first axis runs to the left, second to the back and third to the feet.
affine = np.diag([-3.0, -3.0, -3.0, 1.0])
affine[:3, 3] = 150, 120, 90
voxels = np.full((60, 80, 100), -600, np.int16)  # K J I; grey in the window of the lung
i, j, k = np.rint((np.array([50, 30, 20]) - affine[:3, 3]) / -3).astype(int)
voxels[k - 1 : k + 2, j - 2 : j + 3, i - 2 : i + 3] = 400
box = ((-60.0, -50.0, 0.0), (-20.0, -10.0, 40.0))
row = Row("Lung nodule", 0.5, 0.2, True, "lung", True, (0.4, 0.6), "right", (50.0, 30.0, 20.0), box)
content = draw(voxels, affine, row, [(-134.0, 134.0), (-86.0, 86.0), (0.0, 1.0)])
picture = np.asarray(Image.open(io.BytesIO(content))).astype(int)
print(json.dumps({"shape": picture.shape, "pixels": [picture[at].tolist() for at in eval(sys.argv[1])]}))
"""


def drawn(*places: tuple[int, int]) -> list[list[int]]:
    """Pixels (row, column) of a picture of 1 mm per pixel: 268 + 20 mm and 172 + 20 mm on 288 x 192 pixels."""
    done = subprocess.run(
        [str(PYTHON), "-c", DRAWN, repr(places)],
        capture_output=True,
        check=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": MODULES},
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["shape"] == [192, 288, 3]
    return list(answer["pixels"])


def test_a_key_image_has_the_right_side_on_the_left_anterior_above_and_the_box_of_the_finding() -> None:
    # x 50 is 50 pixels left of the middle, y 30 is 30 above it. The box spans x -60..-20 and y -50..-10.
    bright, mirrored, edge, inside, background = drawn((66, 94), (126, 194), (126, 164), (126, 184), (20, 20))
    assert min(bright) > 230
    assert all(abs(value - 127) < 12 for value in [*mirrored, *background, *inside]), "not the grey of -600 HU"
    assert edge[0] - edge[2] > 100, "the box is not where it should be"


def shown(page: Page) -> list[Any]:
    return list(page.driver.find_elements(By.CSS_SELECTOR, "#key-images button"))


def test_each_present_finding_has_a_key_image_whose_click_moves_the_views(found: Page, server: LiveServer) -> None:
    page, record = found, record_of(server)
    present = sorted((f for f in record["findings"] if f["present"]), key=lambda f: -f["probability"])
    assert [button.text.replace("\n", " ") for button in shown(page)] == [finding["name"] for finding in present]
    widths = "return [...document.querySelectorAll('#key-images img')].map((image) => image.naturalWidth)"
    page.until(lambda: page.driver.execute_script(widths) == [288] * len(present), "a picture was not loaded")
    last = present[-1]
    page.answered(lambda: shown(page)[-1].click(), f"{last['name']} ")
    page.until(
        lambda: page.text("#place-axial") == f"image {last['evidence']['image']} of {record['scan']['shape'][2]}",
        "the views did not move",
    )
    assert page.state("selected") == last["name"]


def test_a_row_shows_its_key_image_beside_it_until_it_is_chosen(found: Page) -> None:
    page = found
    absent = [row["name"] for row in page.state("rows") if not row["present"] and row["name"] != page.state("selected")]
    at = [row["name"] for row in page.state("rows")].index(absent[0])
    row = page.driver.find_elements(By.CSS_SELECTOR, "#findings tbody tr")[at]
    picture = "const one = document.querySelector('.ct-peek img'); return one && one.naturalWidth"
    assert not page.driver.execute_script(picture)
    ActionChains(page.driver).move_to_element(row).perform()
    page.until(lambda: page.driver.execute_script(picture) == 288, "no picture came")
    beside = "return document.querySelector('.ct-peek').getBoundingClientRect().left"
    assert page.driver.execute_script(beside) >= row.rect["x"] + row.rect["width"] - 1, "it covers the table"
    row.click()
    page.until(
        lambda: not any(peek.is_displayed() for peek in page.driver.find_elements(By.CSS_SELECTOR, ".ct-peek")),
        "the picture stays over the views",
    )


def test_key_images_of_an_earlier_answer_and_of_no_finding_are_refused(found: Page) -> None:
    address = f"{found.address}/key-image"
    now, name = found.state("answers"), found.names()[0]
    answer = requests.get(address, params={"of": now, "finding": name}, timeout=30)
    assert answer.status_code == 200 and answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin", "other sites may show it"
    assert np.asarray(Image.open(io.BytesIO(answer.content))).std() > 20, "the picture is empty"
    for of, finding in ((now - 1, name), (now, "Hangnail")):
        assert requests.get(address, params={"of": of, "finding": finding}, timeout=30).status_code == 404
