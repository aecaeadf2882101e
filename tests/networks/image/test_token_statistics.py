"""Token statistics: extremes at several scales and roundness against loops in NumPy, and what they tell apart."""

import itertools

import numpy as np
import pytest
import torch
from scipy.ndimage import generic_filter
from torch import Tensor

from bundle.ctfindings.networks.image.hounsfield_windows import HounsfieldWindows
from bundle.ctfindings.networks.image.token_statistics import TokenStatistics, roundness

PATCH = 4
WIDE = ((-1000, 1000),)


def statistics(windows: tuple[tuple[int, int], ...] = WIDE) -> TokenStatistics:
    torch.manual_seed(0)
    return TokenStatistics(HounsfieldWindows((-1000, 1000), windows), (-1000, 1000), PATCH, hidden=7, width=6)


def features(module: TokenStatistics, scan: Tensor) -> Tensor:
    return module.features(scan, module.windows(scan))


def box_mean(volume: np.ndarray) -> np.ndarray:
    """Mean over 3 x 3 x 3 cells, of those that exist."""
    return np.asarray(generic_filter(volume, np.nanmean, size=3, mode="constant", cval=np.nan))


def cells(volume: np.ndarray, edge: int) -> np.ndarray:
    """The voxels of each cell in a last axis, cells in C order."""
    x, y, z = (extent // edge for extent in volume.shape)
    return volume.reshape(x, edge, y, edge, z, edge).transpose(0, 2, 4, 1, 3, 5).reshape(x, y, z, edge**3)


def test_features_are_the_means_and_the_extremes_of_each_scale() -> None:
    scan = np.random.default_rng(0).random((12, 12, 16)).astype(np.float32)
    found = features(statistics(), torch.from_numpy(scan)[None, None])[0]
    halved = cells(scan, 2).mean(-1)
    means = cells(scan, PATCH).mean(-1)
    expected = [means, box_mean(means)]
    for volume, edge in ((scan, PATCH), (halved, PATCH // 2), (box_mean(scan), PATCH), (box_mean(halved), PATCH // 2)):
        expected += [cells(volume, edge).max(-1), cells(volume, edge).min(-1)]
    # The one window spans all HU, so a ramp is 2 v - 1.
    np.testing.assert_allclose(
        found[:, :10].numpy(), 2 * np.stack([values.ravel() for values in expected], axis=1) - 1, atol=1e-5
    )


def test_a_vessel_fades_with_the_scale_and_a_nodule_does_not() -> None:
    scan = torch.zeros(2, 1, 12, 12, 12)
    scan[0, 0, 4:7, 4:7, 4:7] = 1.0
    scan[1, 0, 5, 5, :] = 1.0
    nodule, vessel = features(statistics(), scan)[:, 13]
    # Feature 2 is the brightest voxel, feature 6 the brightest box of 3 voxels.
    assert nodule[2] == vessel[2] == 1.0
    assert nodule[6] == pytest.approx(1.0) and vessel[6] == pytest.approx(2 * 3 / 27 - 1)


def slow_roundness(scan: np.ndarray, distance: int) -> np.ndarray:
    """The smallest difference between a voxel and the mean of two opposite ones, over all 26 neighbours."""
    padded = np.pad(scan, distance, mode="edge")
    found = np.empty_like(scan)
    for place in np.ndindex(*scan.shape):
        center = np.add(place, distance)
        sides = [np.multiply(step, distance) for step in itertools.product((-1, 0, 1), repeat=3) if any(step)]
        found[place] = min(
            scan[place] - (padded[tuple(center + side)] + padded[tuple(center - side)]) / 2 for side in sides
        )
    return found


@pytest.mark.parametrize("distance", [1, 2])
def test_roundness_is_the_least_contrast_to_two_opposite_sides(distance: int) -> None:
    scan = np.random.default_rng(1).random((5, 6, 7)).astype(np.float32)
    bright, dark = roundness(torch.from_numpy(scan)[None, None], distance, statistics().directions)
    np.testing.assert_allclose(bright[0, 0].numpy(), slow_roundness(scan, distance), atol=1e-6)
    np.testing.assert_allclose(dark[0, 0].numpy(), slow_roundness(-scan, distance), atol=1e-6)


def test_a_nodule_is_round_in_its_token_and_a_vessel_and_a_plate_are_not() -> None:
    scan = torch.full((3, 1, 16, 16, 16), 0.1)
    scan[0, 0, 4:8, 4:8, 4:8] = 0.5
    scan[1, 0, 4:8, 4:8, :] = 0.5
    scan[2, 0, 4:8, :, :] = 0.5
    # The token that holds the object; the brightest spots in the lung's window, finest scale and the three coarser
    # ones.
    nodule, vessel, plate = features(statistics(), scan)[:, 21][:, [10, 12, 18, 24]]
    # 0.1 and 0.5 are -800 and 0 HU: 4 / 3 apart on the ramp from -1000 to 200 HU.
    assert nodule.tolist() == pytest.approx([2 / 3, 2 / 3, 4 / 3, 4 / 3 * 6 / 27], abs=1e-5)
    assert vessel.abs().max() < 1e-5 and plate.abs().max() < 1e-5


def test_features_are_standardised_over_the_tokens_seen_in_training() -> None:
    module = statistics(((-1000, 1000), (0, 500)))
    scan = torch.rand(2, 1, 16, 16, 16)
    raw = features(module, scan).flatten(0, 1)
    module.train()(features(module, scan))
    torch.testing.assert_close(module.standardize.mean[0], raw.mean(0))
    seen: list[Tensor] = []
    module.perceptron.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    output = module.eval()(features(module, scan))
    assert output.shape == (2, 64, 6)
    torch.testing.assert_close(seen[0].flatten(0, 1).mean(0), torch.zeros(40), atol=1e-4, rtol=0)


def test_every_scan_of_a_batch_has_the_statistics_it_has_alone() -> None:
    module = statistics().eval()
    scan = torch.rand(2, 1, 12, 12, 12)
    torch.testing.assert_close(features(module, scan)[1:], features(module, scan[1:]))
