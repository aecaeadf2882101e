"""A synthetic chest looks like a chest: attenuation, sizes, sides and coordinates of the organs."""

import numpy as np
import pytest

from bundle.ctfindings.phantom.dataset import make_case


@pytest.fixture(scope="module", params=[0, 1, 2])
def scan(request: pytest.FixtureRequest) -> tuple:
    return make_case(1, request.param, [0] * 18)


def test_organs_have_their_attenuation(scan: tuple) -> None:
    case, image, anatomy, _, _ = scan
    assert -920 < np.median(image[anatomy == 1]) < -740
    blood = np.median(image[anatomy == 4])
    assert (85 < blood < 430) if case.contrast else (5 < blood < 70)
    assert np.median(image[anatomy == 0]) < -950
    assert image.dtype == np.int16


def test_lung_volume_is_that_of_an_adult(scan: tuple) -> None:
    case, _, anatomy, _, _ = scan
    litres = (anatomy == 1).sum() * np.prod(case.spacing) / 1e6
    assert 2.5 < litres < 9.0


def test_the_heart_points_to_the_left_and_the_spine_lies_at_the_back(scan: tuple) -> None:
    _, image, anatomy, _, affine = scan
    heart = affine[:3, :3] @ np.array(np.nonzero(anatomy == 2)).mean(1)
    lung = affine[:3, :3] @ np.array(np.nonzero(anatomy == 1)).mean(1)
    # World is RAS: the patient's left has the smaller x.
    assert heart[0] < lung[0] - 5
    bone = affine[:3, :3] @ np.array(np.nonzero((image > 250) & (anatomy == 6))).mean(1)
    assert bone[1] < heart[1]


def test_the_field_and_the_geometry_are_those_of_a_chest_scan(scan: tuple) -> None:
    case, image, _, _, affine = scan
    extent = np.array(image.shape) * case.spacing
    assert (extent > [345, 255, 260]).all() and (extent < [475, 345, 355]).all()
    assert np.allclose(np.diag(affine)[:3], case.spacing)
    assert case.z_of_image(case.image_count) == pytest.approx(affine[2, 3])
    assert set(np.unique(scan[2])) == {0, 1, 2, 3, 4, 5, 6}
