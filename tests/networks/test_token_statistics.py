"""Token statistics: extremes at several scales against a loop in NumPy, and what they tell apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import generic_filter
from torch import Tensor

from bundle.ctfindings.networks.hounsfield_windows import HounsfieldWindows
from bundle.ctfindings.networks.token_statistics import TokenStatistics

PATCH = 4
WIDE = ((-1000, 1000),)


def statistics(windows: tuple[tuple[int, int], ...] = WIDE) -> TokenStatistics:
    torch.manual_seed(0)
    return TokenStatistics(HounsfieldWindows((-1000, 1000), windows), PATCH, width=6)


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
    np.testing.assert_allclose(found.numpy(), 2 * np.stack([values.ravel() for values in expected], axis=1) - 1, atol=1e-5)


def test_a_vessel_fades_with_the_scale_and_a_nodule_does_not() -> None:
    scan = torch.zeros(2, 1, 12, 12, 12)
    scan[0, 0, 4:7, 4:7, 4:7] = 1.0
    scan[1, 0, 5, 5, :] = 1.0
    nodule, vessel = features(statistics(), scan)[:, 13]
    # Feature 2 is the brightest voxel, feature 6 the brightest box of 3 voxels.
    assert nodule[2] == vessel[2] == 1.0
    assert nodule[6] == pytest.approx(1.0) and vessel[6] == pytest.approx(2 * 3 / 27 - 1)


def test_features_are_standardised_over_the_tokens_seen_in_training() -> None:
    module = statistics(((-1000, 1000), (0, 500)))
    scan = torch.rand(2, 1, 16, 16, 16)
    raw = features(module, scan).flatten(0, 1)
    module.train()(scan, module.windows(scan))
    torch.testing.assert_close(module.standardize.mean[0], raw.mean(0))
    seen: list[Tensor] = []
    module.perceptron.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    output = module.eval()(scan, module.windows(scan))
    assert output.shape == (2, 64, 6)
    torch.testing.assert_close(seen[0].flatten(0, 1).mean(0), torch.zeros(20), atol=1e-4, rtol=0)


def test_every_scan_of_a_batch_has_the_statistics_it_has_alone() -> None:
    module = statistics().eval()
    scan = torch.rand(2, 1, 12, 12, 12)
    torch.testing.assert_close(features(module, scan)[1:], features(module, scan[1:]))
