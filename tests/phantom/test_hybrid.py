"""Findings drawn into a scan: where they are, what stays as it was, and the noise that they get."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from bundle.ctfindings.phantom.hybrid import (
    DIFFUSE,
    EDGE_MM,
    HYBRID_FINDINGS,
    ORGAN_FINDINGS,
    PART_SOLID,
    HybridBase,
    noise_like,
    noise_of,
    upright,
)
from bundle.ctfindings.phantom.image.canvas import AORTA, HEART, LUNG

SPACING, SD = 4.0, 20.0
AFFINE = np.array([[SPACING, 0, 0, -150], [0, SPACING, 0, -120], [0, 0, SPACING, 300], [0, 0, 0, 1.0]])


@pytest.fixture(scope="module")
def scan() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A body with two lungs, a heart and an aorta, and white noise of 20 HU: HU and mask ids."""
    x, y, z = np.meshgrid(*(np.arange(size) * SPACING for size in (76, 60, 64)), indexing="ij")
    hu = np.full(x.shape, -1000.0)
    hu[((x - 150) / 145) ** 2 + ((y - 120) / 105) ** 2 < 1] = 40
    anatomy = np.zeros(x.shape, np.uint8)
    for middle in (82, 218):
        anatomy[((x - middle) / 55) ** 2 + ((y - 120) / 80) ** 2 + ((z - 125) / 110) ** 2 < 1] = LUNG
    hu[anatomy == LUNG] = -850
    anatomy[((x - 150) / 20) ** 2 + ((y - 140) / 40) ** 2 + ((z - 100) / 40) ** 2 < 1] = HEART
    anatomy[((x - 150) / 12) ** 2 + ((y - 80) / 12) ** 2 < 1] = AORTA
    noise = np.random.default_rng(0).normal(0, SD, x.shape)
    return (hu + noise).astype(np.float32), anatomy


@pytest.fixture(scope="module")
def base(scan) -> HybridBase:
    return HybridBase(scan[0], AFFINE, scan[1])


@pytest.mark.parametrize("finding", [*HYBRID_FINDINGS, *ORGAN_FINDINGS])
def test_a_finding_changes_the_scan_where_its_mask_is_and_little_besides(scan, base, finding: str) -> None:
    hu, anatomy = scan
    made = base.insert(finding, 3, 0.7)
    assert made.mask.any() and made.sites and made.hu.dtype == np.int16
    changed = np.abs(made.hu - hu) > 1
    if finding not in DIFFUSE:
        assert ndimage.maximum_filter(made.mask, 1 + 2 * int(EDGE_MM / SPACING))[changed].all()
    organ = ORGAN_FINDINGS.get(finding, LUNG)
    assert ndimage.binary_dilation(anatomy == organ, iterations=3)[made.mask].all()
    assert changed[made.mask].mean() > 0.5
    outside = ~ndimage.binary_dilation(anatomy > 0, iterations=8)
    np.testing.assert_array_equal(made.hu[outside], np.rint(hu[outside]))


def test_the_same_seed_gives_the_same_scan_and_another_one_another(base) -> None:
    first, second, third = (base.insert("Lung nodule", seed, 0.7) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.hu, second.hu)
    assert (first.hu != third.hu).any()


def test_what_is_drawn_has_the_noise_of_the_scan(base) -> None:
    made = base.insert("Pleural effusion", 3, 1.0)
    inner = ndimage.binary_erosion(made.mask, iterations=2)
    assert inner.sum() > 200
    assert made.hu[inner].std() == pytest.approx(SD, rel=0.2)


def test_the_centre_of_a_site_is_in_the_world_of_the_scan(base) -> None:
    made = base.insert("Consolidation", 3, 0.7)
    index = np.linalg.inv(AFFINE) @ [*made.sites[0].center_mm, 1]
    assert made.mask[tuple(np.rint(index[:3]).astype(int))]
    right = made.sites[0].side == "right"
    assert (made.sites[0].center_mm[0] > 0) == right


def test_a_part_solid_nodule_is_a_solid_core_in_ground_glass(scan) -> None:
    base = HybridBase(scan[0], AFFINE, scan[1])
    assert base.field.part_solid == PART_SOLID
    base.field.part_solid = 0.68
    hybrids = [base.insert("Lung nodule", seed, 1.0) for seed in range(4)]
    found = [(made, site) for made in hybrids for site in made.sites]
    made, largest = max((each for each in found if each[1].kind == "part-solid"), key=lambda each: each[1].size_mm or 0)
    assert largest.size_mm is not None and largest.size_mm >= 20
    voxels = np.argwhere(made.mask)
    away = np.linalg.norm(voxels * SPACING + AFFINE[:3, 3] - np.array(largest.center_mm), axis=1) / largest.size_mm
    values = made.hu[tuple(voxels.T)]
    assert -100 < np.median(values[away < 0.12]) < 120
    assert -750 < np.median(values[(away > 0.36) & (away < 0.5)]) < -350


def test_some_nodules_hang_on_a_vessel_of_the_scan_and_none_on_a_mass(scan) -> None:
    hu, anatomy = scan[0].copy(), scan[1]
    x, y, z = np.meshgrid(*(np.arange(size) * SPACING for size in hu.shape), indexing="ij")
    hu[(np.abs(x - 218) < 5) & (np.abs(y - 120) < 5) & (np.abs(z - 125) < 70)] = 40  # a vessel along z
    hu[((x - 82) ** 2 + (y - 120) ** 2 + (z - 125) ** 2) < 25**2] = 40  # a mass
    base = HybridBase(hu, AFFINE, anatomy)
    right = base.field.vessel_points[:, 0] > 0
    assert right.all() and len(right) > 50, "points on the vessel, none on the mass"

    def beside() -> int:
        """Nodules whose surface is within a voxel of the vessel."""
        sites = [site for seed in range(30) for site in base.insert("Lung nodule", seed, 0.4).sites]
        centers = np.array([site.center_mm for site in sites]) - AFFINE[:3, 3]
        sizes = np.array([site.size_mm for site in sites])
        away = np.linalg.norm(centers[:, :2] - (218, 120), axis=1)
        return int((np.abs(away - sizes / 2) < SPACING).sum())

    with_vessels = beside()
    base.field.vessel_points = base.field.vessel_points[:0]
    assert with_vessels >= beside() + 5


def test_noise_is_measured_with_its_correlation_and_made_again() -> None:
    white = np.random.default_rng(1).normal(0, 1, (40, 40, 30))
    for share, expected in ((0.0, 0.0), (0.3, 0.6 / 1.18)):
        grain = ndimage.convolve1d(white, np.array([share, 1, share]), 2)
        found = noise_of((50 + 15 * grain / grain.std()).astype(np.float32))
        assert found.sd == pytest.approx(15, rel=0.05)
        assert found.correlation[2] == pytest.approx(expected, abs=0.05)
        again = noise_like(np.random.default_rng(2), white.shape, found)
        assert again.std() == pytest.approx(15, rel=0.05)
        near, far = again[:, :, :-1].ravel(), again[:, :, 1:].ravel()
        assert np.corrcoef(near, far)[0, 1] == pytest.approx(expected, abs=0.05)


def test_a_scan_without_soft_tissue_gets_no_noise() -> None:
    assert noise_of(np.full((8, 8, 8), -900, np.float32)).sd == 0


def test_what_cannot_be_drawn_is_an_error(scan, base) -> None:
    hu, anatomy = scan
    with pytest.raises(ValueError, match="finding 'Cardiomegaly': expected one of Lung nodule"):
        base.insert("Cardiomegaly", 0, 0.5)
    with pytest.raises(ValueError, match="no lung was found; give a mask"):
        HybridBase(hu, AFFINE, np.zeros_like(anatomy))
    lungs = np.where(anatomy == LUNG, LUNG, 0)
    with pytest.raises(ValueError, match="Arterial wall calcification: its organ is not in the anatomy mask"):
        HybridBase(hu, AFFINE, lungs).insert("Arterial wall calcification", 0, 0.5)


def test_upright_axes_keep_the_place_of_every_voxel() -> None:
    values = np.arange(24.0).reshape(2, 3, 4)
    affine = np.array([[0, 0, -2, 10], [-1, 0, 0, 5], [0, 3, 0, -7], [0, 0, 0, 1.0]])
    turned, new = upright(values, affine)
    for voxel in np.ndindex(values.shape):
        world = affine @ [*voxel, 1]
        index = np.rint(np.linalg.inv(new) @ world)[:3].astype(int)
        assert turned[tuple(index)] == values[voxel]
    assert (np.diag(new)[:3] > 0).all()
