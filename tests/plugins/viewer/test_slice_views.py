"""The slice views: keys, mouse, window, what is under the mouse, a distance."""

import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("selenium", reason="selenium is not installed")
pytest.importorskip("monailabel", reason="MONAI Label is not installed")

from selenium.webdriver import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.plugins.viewer.browser import NEEDS, Page, heat_coloured, run_in_viewer, slice_centre

pytestmark = NEEDS


def test_arrow_keys_scroll_the_view_under_the_mouse_or_the_axial_one(found: Page, studies: Path) -> None:
    page = found
    body = page.driver.find_element(By.TAG_NAME, "body")

    def pressed(key: str, view: str) -> float:
        """How far a key moves a view, in mm."""
        before, axis = page.text(f"#place-{view}"), ["sagittal", "coronal", "axial"].index(view)
        old = slice_centre(page, studies / "synthetic.nii.gz")[axis]
        body.send_keys(key)
        page.until(lambda: page.text(f"#place-{view}") != before, f"{key!r} did not move the {view} view")
        return slice_centre(page, studies / "synthetic.nii.gz")[axis] - old

    ActionChains(page.driver).move_to_element(page.driver.find_element(By.CSS_SELECTOR, ".ct-title")).perform()
    page.settled("axial")
    spacing = float(nib.load(studies / "synthetic.nii.gz").header.get_zooms()[2])
    assert pressed(Keys.ARROW_UP, "axial") == pytest.approx(spacing, rel=1e-3)
    assert pressed(Keys.ARROW_DOWN, "axial") == pytest.approx(-spacing, rel=1e-3)
    axial = page.text("#place-axial")
    ActionChains(page.driver).move_to_element(page.element("coronal")).perform()
    assert pressed(Keys.ARROW_LEFT, "coronal") < 0 and page.text("#place-axial") == axial
    ActionChains(page.driver).move_to_element(page.element("sagittal")).perform()
    assert pressed(Keys.ARROW_RIGHT, "sagittal") > 0, "right is the right side of the patient"
    place = page.text("#place-coronal")
    page.driver.find_element(By.ID, "query").send_keys(Keys.ARROW_UP, "N")
    time.sleep(1)
    assert page.text("#place-coronal") == place and page.state("scan_id") == "synthetic", "a field's keys are its own"


def test_two_clicks_measure_a_distance_in_mm_that_grows_with_the_pixels_between_them(found: Page) -> None:
    page = found
    view = page.element("axial")

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


def test_all_of_the_scan_is_shown_again_at_the_same_slice(found: Page) -> None:
    page = found
    page.choose(0)
    place = page.text("#place-axial")
    reset = page.driver.find_element(
        By.XPATH, "//*[@id='place-axial']/ancestor::*[contains(@class, 'layout-grid-item')]//button[@title='Show all']"
    )
    whole = page.settled("axial")
    origin = ScrollOrigin.from_element(page.element("axial"))
    mouse = ActionChains(page.driver).key_down(Keys.CONTROL).scroll_from_origin(origin, 0, -300)
    mouse.key_up(Keys.CONTROL).perform()
    zoomed = page.settled("axial")
    assert not np.array_equal(zoomed, whole)
    reset.click()
    assert np.abs(page.settled("axial") - whole).mean() < 0.2 * np.abs(zoomed - whole).mean()
    assert page.text("#place-axial") == place


def drag(page: Page, view: str, right: int, down: int) -> None:
    """Drags over a view with the right mouse button."""
    actions = ActionChains(page.driver)
    mouse = actions.w3c_actions.pointer_action
    mouse.move_to(page.element(view)).pointer_down(button=2)
    for _ in range(5):
        mouse.move_by(right // 5, down // 5)
    mouse.pointer_up(button=2)
    actions.perform()


def test_a_drag_with_the_right_button_sets_the_window_of_all_slice_views_and_a_key_brings_the_named_one_back(
    found: Page,
) -> None:
    page = found
    body = page.driver.find_element(By.TAG_NAME, "body")
    body.send_keys("1")
    page.until(lambda: page.text("#window-axial") == "W 1500\nL -600", "the key did not set the window of the lung")
    before = page.settled("coronal")
    heat = heat_coloured(before).mean()

    def window() -> tuple[float, float]:
        (_, width), (_, level) = (line.split() for line in page.text("#window-coronal").splitlines())
        return float(width), float(level)

    drag(page, "axial", 50, 0)
    page.until(lambda: window()[0] > 1600, "a drag to the right did not widen the window")
    assert window()[1] == -600, "a drag to the right changed the level"
    drag(page, "axial", 0, 50)
    page.until(lambda: window()[1] < -700, "a drag downwards did not lower the level")
    windows = [f"#window-{view}" for view in ("axial", "coronal", "sagittal")]
    page.until(lambda: len({page.text(window) for window in windows}) == 1, "the views have different windows")
    assert page.state("window") == "", "the drag left the name of another window"
    page.until(
        lambda: (np.abs(page.view("coronal") - before).max(axis=-1) > 20).mean() > 0.2,
        "the coronal view kept its window",
    )
    dragged = page.settled("coronal")
    assert heat_coloured(dragged).mean() == pytest.approx(heat, rel=0.5), "the drag changed the heat map"
    body.send_keys("1")
    page.until(lambda: window() == (1500, -600) and page.state("window") == "Lung", "the key brought nothing back")
    page.until(
        lambda: (np.abs(page.view("coronal") - before).max(axis=-1) > 10).mean() < 0.01, "the view is not as before"
    )


def test_hu_zone_and_image_under_the_mouse_are_those_of_what_is_drawn_there(found: Page) -> None:
    page = found
    page.driver.find_element(By.TAG_NAME, "body").send_keys("1")  # lung: black is -1350, white 150 HU
    page.until(lambda: page.text("#window-axial") == "W 1500\nL -600", "the key did not set the window of the lung")
    page.set("opacity", 0.0)
    page.set("show_box", False)
    page.set("show_anatomy", False)
    page.until(lambda: not heat_coloured(page.view("axial")).any(), "heat without opacity is still drawn")
    picture = page.settled("axial").mean(axis=-1)
    _, _, width, height = page.box("axial")

    def even(low: float, high: float, first: int, last: int) -> tuple[int, int]:
        """A pixel (column, row) between two columns with such greys around it."""
        around = np.lib.stride_tricks.sliding_window_view(picture[:, first:last], (15, 15))
        rows, columns = np.nonzero(((around > low) & (around < high)).all(axis=(2, 3)))
        middle = len(rows) // 2
        return int(columns[middle]) + first + 7, int(rows[middle]) + 7

    def said() -> tuple[float, str, str]:
        """HU, zone and image under the mouse."""
        hu, words, image = page.text("#mouse-axial").splitlines() or ("nan HU", "", "")
        return float(hu.removesuffix(" HU")), words, image

    half = picture.shape[1] // 2
    for low, high, first, last, zone in ((72, 125, half, 2 * half, "left"), (225, 254, 0, half, "")):
        column, row = even(low, high, first, last)
        # The picture of a view leaves out 30 columns and 45 rows at each edge.
        right, down = column + 30 - width // 2, row + 45 - height // 2
        ActionChains(page.driver).move_to_element_with_offset(page.element("axial"), right - 1, down).move_by_offset(
            1, 0
        ).perform()
        drawn = pytest.approx(-1350 + picture[row, column] / 255 * 1500, abs=60)
        page.until(lambda drawn=drawn: said()[0] == drawn, "the HU under the mouse are not those that are drawn")
        _, words, image = said()
        assert image == page.text("#place-axial")
        assert words.startswith(zone) and words.endswith(" zone") == bool(zone)

    body = page.driver.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.ARROW_UP)
    page.until(lambda: page.text("#place-axial") != image, "the key did not move the view")
    page.until(
        lambda: page.text("#mouse-axial").splitlines()[-1] == page.text("#place-axial"), "another slice is named"
    )
    body.send_keys(Keys.ARROW_DOWN)
    page.until(lambda: page.text("#place-axial") == image, "the key did not move the view back")

    def coronal_image() -> int:
        return int(page.text("#mouse-coronal").split()[-3])

    def point(down: int) -> None:
        ActionChains(page.driver).move_to_element_with_offset(page.element("coronal"), 0, down).perform()

    point(-40)
    page.until(lambda: "image" in page.text("#mouse-coronal"), "nothing is said of the coronal view")
    page.until(lambda: not page.text("#mouse-axial"), "the view that the mouse has left still says something")
    above = coronal_image()
    point(40)
    page.until(lambda: coronal_image() > above, "images are not counted from the head")
    page.set("opacity", 0.35)
    page.set("show_box", True)


def test_outlines_of_lung_and_heart_have_their_own_colours(found: Page) -> None:
    page = found
    page.set("show_anatomy", False)

    def drawn() -> tuple[float, float]:
        """Share of the lung's blue and of the heart's pink."""
        red, green, blue = np.moveaxis(page.settled("axial"), -1, 0)
        return float((blue - red > 60).mean()), float(((red - green > 60) & (blue - green > 20)).mean())

    page.choose(0)
    page.set("opacity", 0.0)
    page.until(lambda: drawn() == (0.0, 0.0), "more than the scan is drawn")
    page.set("show_anatomy", True)
    page.until(lambda: min(drawn()) > 0.001, "an outline is missing")
    page.set("show_anatomy", False)
    page.until(lambda: drawn() == (0.0, 0.0), "an outline remained")
    page.set("opacity", 0.35)


BALL = """
import json
import numpy as np
from ctfindings_viewer.surfaces import surface
from vtk import vtkMassProperties
from vtk.util.numpy_support import vtk_to_numpy

k, j, i = np.ogrid[:41, :41, :41]
affine = np.diag([2.0, 2.0, 2.0, 1.0])
affine[:3, 3] = -40.0
ball = surface((i - 20) ** 2 + (j - 20) ** 2 + (k - 20) ** 2 <= 15**2, affine)
measured = vtkMassProperties()
measured.SetInputData(ball)
radii = np.linalg.norm(vtk_to_numpy(ball.GetPoints().GetData()), axis=1)
print(json.dumps([float(radii.min()), float(radii.max()), measured.GetSurfaceArea()]))
"""


def test_the_surface_of_a_ball_has_no_steps() -> None:
    least, most, area = run_in_viewer(BALL)
    assert least > 28 and most < 32, "more than a voxel of 2 mm from the radius of 30 mm"
    # The sides of voxels would have half as much again.
    assert area == pytest.approx(4 * np.pi * 30**2, rel=0.05)


PITCHED = """
import json
import numpy as np
from ctfindings_client.answers import Scan
from ctfindings_viewer.scene import Scene, without_warnings
from trame.app import get_server

nothing = lambda *_: None
with without_warnings():
    scene = Scene(get_server(client_type="vue3"), nothing, nothing, nothing, nothing)
pitch = np.radians(20)
turn = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
affine = np.eye(4)
affine[:3, :3] = turn @ np.diag([-2.0, -2.0, 3.0])
affine[:3, 3] = turn @ [60.0, 60.0, -60.0]
scene.open(Scan(np.zeros((40, 60, 60), np.int16), affine), "scan")
moved = {}
for name in ("Axial", "Coronal", "Sagittal"):
    before = scene.places()[name]
    scene.step(name, 2)
    moved[name] = scene.places()[name] - before
scene.set_height(-30.0)
print(json.dumps({**moved, "height": scene.places()["Axial"]}))
"""


def test_views_of_a_pitched_scan_step_towards_head_front_and_right_and_reach_a_height_of_the_patient() -> None:
    moved = run_in_viewer(PITCHED)
    cosine = np.cos(np.radians(20))
    # Two slices along the axes of the scan, whose voxels are 2 x 2 x 3 mm.
    assert moved["Axial"] == pytest.approx(6 * cosine) and moved["Coronal"] == pytest.approx(4 * cosine)
    assert moved["Sagittal"] == pytest.approx(4)
    assert moved["height"] == pytest.approx(-30)
