"""Names of places in a chest of boxes: two lungs of 240 mm, an aorta with an arch, and a mediastinum between."""

import numpy as np
import pytest

from bundle.ctfindings.anatomy import ANATOMY_NAMES, anatomy_index
from bundle.ctfindings.inference.region_names import region_name
from bundle.ctfindings.inference.regions import Regions

MIDLINE = 5.0


def chest(**without: bool) -> Regions:
    """On a grid of 8 mm: x from -120 to the patient's right, z from -400 to superior."""
    affine = np.diag([8.0, 8.0, 8.0, 1.0])
    affine[:3, 3] = -120, -100, -400
    inside = np.zeros((len(ANATOMY_NAMES), 31, 25, 50), dtype=bool)
    inside[anatomy_index("thorax")] = True
    lung = inside[anatomy_index("lung")]
    lung[2:13, :, 5:36], lung[19:29, :, 10:41] = True, True  # the left one reaches 40 mm further down
    aorta = inside[anatomy_index("aorta")]
    aorta[12:15, 4:7, 5:30], aorta[13:19, 14:17, 18:30], aorta[12:19, 4:17, 30:33] = True, True, True
    inside[anatomy_index("mediastinum"), 13:19] = True
    inside[anatomy_index("heart"), 10:22, 10:20, 5:18] = True
    inside[anatomy_index("esophagus"), 14:17, 8:10] = True
    for name in without:
        inside[anatomy_index(name)] = False
    return Regions(inside, inside, affine, inside, affine, 4.0)


@pytest.mark.parametrize(
    ("anatomy", "point", "expected"),
    [
        ("lung", (70, 0, -90), "right upper zone"),
        ("lung", (70, 0, -200), "right middle zone"),
        ("lung", (70, 0, -310), "right lower zone"),
        (
            "lung",
            (-70, 0, -260),
            "left middle zone",
        ),  # the lower zone of the right lung
        ("lung", (-70, 0, -350), "left lower zone"),
        ("lung", (6, 0, -350), "lower zones"),
        ("aorta", (-10, -60, -330), "descending aorta"),
        ("aorta", (10, 20, -230), "ascending aorta"),
        ("aorta", (-10, -60, -145), "aortic arch"),
        ("mediastinum", (40, 0, -220), "right hilum"),
        ("mediastinum", (-30, 0, -220), "left hilum"),
        ("mediastinum", (-30, 0, -100), "upper mediastinum"),
        ("mediastinum", (6, 0, -220), "middle mediastinum"),
        ("esophagus", (0, -30, -350), "lower esophagus"),
        ("heart", (0, 0, -300), None),
        ("thorax", (0, 0, -300), None),
    ],
)
def test_places_have_the_names_that_a_report_gives_them(
    anatomy: str, point: tuple[int, int, int], expected: str | None
) -> None:
    assert region_name(point, anatomy_index(anatomy), chest(), MIDLINE) == expected


def test_an_anatomy_that_the_thorax_answers_for_has_no_parts() -> None:
    assert region_name((0, 0, -200), anatomy_index("aorta"), chest(aorta=True), MIDLINE) is None


def test_without_lungs_only_the_aorta_has_names() -> None:
    assert region_name((0, 0, -200), anatomy_index("mediastinum"), chest(lung=True), MIDLINE) is None
    assert region_name((10, 20, -230), anatomy_index("aorta"), chest(lung=True), MIDLINE) == "ascending aorta"


@pytest.mark.parametrize(
    ("anatomy", "expected"), [("lung", "middle zone"), ("mediastinum", "middle mediastinum"), ("heart", None)]
)
def test_without_a_midline_a_place_has_no_side(anatomy: str, expected: str | None) -> None:
    assert region_name((70, 0, -220), anatomy_index(anatomy), chest(), None) == expected
