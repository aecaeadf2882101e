"""Places of a scan in words: image numbers, zones of the lungs, organs and sides."""

import numpy as np
import pytest
from ctfindings_viewer.places import Places, image_number, thinned

LUNG, HEART, THORAX = 1, 2, 6
NAMES = {"lung": LUNG, "heart": HEART, "thorax": THORAX}
# 5 mm voxels; the first axis runs to the left and the second to the back, as scanners store them.
AFFINE = np.array([[-5.0, 0, 0, 150], [0, -5.0, 0, 100], [0, 0, 5.0, -300], [0, 0, 0, 1]])


def places() -> Places:
    """A body 300 mm wide around x = 0 with two lungs, of which the left one is higher, and a heart."""
    labels = np.full((60, 41, 61), THORAX, np.uint8)  # K J I
    labels[:, :20, [0, 60]] = 0  # the chest is narrower at its sides
    labels[0:31, :, 10:25] = LUNG  # x 100 to 30: right; z -300 to -150
    labels[0:60, :, 36:51] = LUNG  # x -30 to -100: left; z -300 to -5
    labels[:, :, 29:32] = HEART
    return Places(labels, AFFINE, NAMES)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ((60, 0, -290), "right lower zone"),
        ((60, 0, -225), "right middle zone"),
        ((60, 0, -160), "right upper zone"),
        ((-60, 0, -225), "left lower zone"),
        ((-60, 0, -10), "left upper zone"),
        ((0, 0, -100), "heart"),
        ((140, 0, -100), "right of midline"),
        ((-140, 0, -100), "left of midline"),
        ((-400, 0, -100), ""),
    ],
)
def test_zones_are_thirds_of_the_own_lung_and_other_parts_of_the_body_have_a_side(
    place: tuple[float, float, float], name: str
) -> None:
    assert places().name(place) == name


def test_outside_of_the_body_nothing_is_named_and_the_midline_is_that_of_the_body() -> None:
    labels = np.zeros((4, 41, 71), np.uint8)
    labels[:, :, 40:61] = THORAX  # x -50 to -150: its middle is at -100
    of = Places(labels, AFFINE, NAMES)
    assert [of.name((x, 0, -300)) for x in (0, -100, -60, -140)] == [
        "",
        "near midline",
        "right of midline",
        "left of midline",
    ]


def test_half_a_chest_has_no_sides() -> None:
    whole = places()
    labels = np.full((60, 41, 31), THORAX, np.uint8)  # x 150 to 0: cut through the middle of the body
    labels[0:31, :, 10:25] = LUNG
    half = Places(labels, AFFINE, NAMES)
    assert [whole.name((x, 0, -290)) for x in (60, 140)] == ["right lower zone", "right of midline"]
    assert [half.name((x, 0, -290)) for x in (60, 140)] == ["lower zone", ""]


def test_a_scan_without_a_body_has_no_places() -> None:
    assert Places(np.zeros((4, 4, 4), np.uint8), AFFINE, NAMES).name((150, 100, -300)) == ""


@pytest.mark.parametrize(("step", "z_mm", "text"), [(3.0, 0, 10), (3.0, 27, 1), (-3.0, 0, 1), (-3.0, -27, 10)])
def test_images_are_counted_from_the_most_superior_one(step: float, z_mm: float, text: int) -> None:
    affine = np.diag([1.0, 1.0, step, 1.0])
    assert image_number((0, 0, z_mm), affine, (10, 5, 5)) == f"image {text} of 10"
    assert image_number((0, 0, z_mm + 100 * step), affine, (10, 5, 5)) == ""


def test_images_of_a_coronal_scan_are_counted_along_its_own_rows() -> None:
    affine = np.array([[1.0, 0, 0, 0], [0, 0, 1.0, 0], [0, 2.0, 0, 0], [0, 0, 0, 1]])  # the second axis is superior
    assert image_number((0, 0, 12.0), affine, (3, 20, 5)) == "image 14 of 20"


def test_thinned_voxels_keep_their_place() -> None:
    labels = np.arange(8 * 9 * 10).reshape(8, 9, 10)
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    affine[:3, 3] = 7, 8, 9
    thin, thin_affine = thinned(labels, affine, 4.0)
    assert thin.shape == (8, 5, 3), "steps of 4, 2 and 1 voxels along i, j and k"
    i, j, k = 2, 3, 5
    assert thin[k, j, i] == labels[5, 6, 8]
    assert (thin_affine @ [i, j, k, 1]).tolist() == (affine @ [8, 6, 5, 1]).tolist()
