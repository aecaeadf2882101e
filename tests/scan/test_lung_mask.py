"""The classical lung mask against the lungs of synthetic scans, and against masks drawn by others on real ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bundle.ctfindings.findings import FINDING_NAMES, finding_index
from bundle.ctfindings.phantom.dataset import make_case
from bundle.ctfindings.scan.load_scan import load_scan, read_volume
from bundle.ctfindings.scan.lung_mask import chest_regions, lung_mask

WANTED_DICE = 0.95


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


@pytest.fixture(scope="module")
def chest() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HU, lungs and affine of a synthetic scan without findings."""
    _, hu, anatomy, _, affine = make_case(seed=3, index=1, labels=[0] * len(FINDING_NAMES))
    return hu.astype(np.float32), anatomy == 1, affine


def test_lungs_of_a_synthetic_scan_are_found(chest: tuple) -> None:
    hu, lungs, affine = chest
    assert dice(lung_mask(hu, affine), lungs) >= WANTED_DICE


def test_the_volume_is_that_of_the_mask_without_making_it(chest: tuple) -> None:
    hu, lungs, affine = chest
    litres = np.count_nonzero(lungs) * abs(np.linalg.det(affine[:3, :3])) / 1e6
    assert chest_regions(hu, affine).litres == pytest.approx(litres, rel=0.05)
    assert chest_regions(np.full((40, 40, 30), 40.0, np.float32), np.diag([4.0, 4, 5, 1])).litres == 0


def test_order_and_direction_of_the_axes_do_not_matter(chest: tuple) -> None:
    hu, _, affine = chest
    turned = affine[:, [2, 0, 1, 3]] @ np.diag([-1.0, 1, 1, 1])
    found = lung_mask(np.transpose(hu, (2, 0, 1))[::-1], turned)
    np.testing.assert_array_equal(np.transpose(found[::-1], (1, 2, 0)), lung_mask(hu, affine))


def test_slices_of_eight_mm_are_enough(chest: tuple) -> None:
    hu, lungs, affine = chest
    times = round(8 / float(affine[2, 2]))
    levels = hu.shape[2] // times * times
    thick = hu[:, :, :levels].reshape(*hu.shape[:2], -1, times).mean(3)
    coarse = affine @ np.diag([1.0, 1, times, 1])
    assert (
        dice(lung_mask(thick, coarse), lungs[:, :, :levels].reshape(*hu.shape[:2], -1, times).mean(3) >= 0.5)
        >= WANTED_DICE
    )


def test_a_scan_that_cuts_the_apex_or_the_base_is_no_harder(chest: tuple) -> None:
    hu, lungs, affine = chest
    levels = np.flatnonzero(lungs.any((0, 1)))
    for part in (slice(0, levels[0] + 3 * len(levels) // 4), slice(levels[0] + len(levels) // 3, None)):
        assert dice(lung_mask(hu[:, :, part], affine), lungs[:, :, part]) >= WANTED_DICE


def test_gas_of_the_stomach_is_no_lung(chest: tuple) -> None:
    hu, lungs, affine = chest
    depth = np.argwhere(lungs)[:, 2].min() + 8
    x, y = (int(value) for value in np.argwhere(~lungs[:, :, depth] & (hu[:, :, depth] > -100)).mean(0))
    grid = np.meshgrid(*(np.arange(size) for size in hu.shape), indexing="ij")
    spacing = np.diag(affine)[:3]
    place = sum(((axis - at) * step) ** 2 for axis, at, step in zip(grid, (x, y, depth), spacing, strict=True))
    gas = place < 22**2
    found = lung_mask(np.where(gas & ~lungs, -1000, hu), affine)
    assert (found & gas & ~lungs).sum() < 0.1 * (gas & ~lungs).sum()


@pytest.mark.parametrize("finding", ["Consolidation", "Lung nodule", "Emphysema"])
def test_what_lies_within_the_lung_belongs_to_it(finding: str) -> None:
    labels = [0] * len(FINDING_NAMES)
    labels[finding_index(finding)] = 1
    _, hu, anatomy, _, affine = make_case(seed=5, index=2, labels=labels)
    assert dice(lung_mask(hu, affine), anatomy == 1) >= 0.93


@pytest.mark.parametrize("value", [40.0, -1000.0])
def test_a_scan_without_lungs_has_an_empty_mask(value: float) -> None:
    assert not lung_mask(np.full((40, 40, 30), value, np.float32), np.diag([4.0, 4, 5, 1])).any()


REAL: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    **{
        f"imlab_id00{number}_ct_128x128x64": (f"imlab_id00{number}_lungmask_128x128x64", lambda ids: ids > 0)
        for number in (1, 2, 3)
    },
    # Region and type in one number: region + 256 x type.
    "cip_ct-64": ("cip_lm-64", lambda ids: ids % 256 > 0),
    "nsclc_lung1-001_ct_1p5x1p5x3": ("nsclc_lung1-001_rtstruct_1p5x1p5x3", lambda ids: (ids == 1) | (ids == 2)),
    "ts_example_ct_3mm": ("ts_example_seg117_3mm", lambda ids: (ids >= 10) & (ids <= 14)),
}


@pytest.mark.parametrize("name", REAL)
def test_lungs_of_a_real_scan_agree_with_the_mask_that_came_with_it(shared_data: Path, name: str) -> None:
    scan = load_scan(shared_data / "ct" / f"{name}.nii.gz")
    mask, lungs = REAL[name]
    reference = lungs(read_volume(shared_data / "ct" / f"{mask}.nii.gz").array)
    assert dice(lung_mask(scan[0].numpy(), np.asarray(scan.affine)), reference) >= WANTED_DICE
