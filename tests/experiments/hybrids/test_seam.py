"""The seam experiment: its patches, their matches, and a classifier that sees a seam where there is one."""

import numpy as np
import pytest
from scipy import ndimage

from experiments.hybrids.seam import FEATURES, MATCHED, Sample, border_of, judged, nearest, patches


def noisy(seed: int, correlated: bool = False) -> np.ndarray:
    field = np.random.default_rng(seed).normal(0, 20, (24, 24, 12)).astype(np.float32)
    return ndimage.uniform_filter(field, (3, 1, 1)) if correlated else field


def test_features_are_those_of_the_patch_around_a_voxel() -> None:
    ramp = np.broadcast_to(5 * np.arange(24.0, dtype=np.float32)[:, None, None], (24, 24, 12))
    where = np.zeros(ramp.shape, bool)
    where[10, 12, 6] = where[1, 12, 6] = True
    (found,) = patches(ramp, where, np.random.default_rng(0))
    named = dict(zip(FEATURES, found, strict=True))
    assert named["mean"] == pytest.approx(50) and named["sd"] == pytest.approx(10)
    assert [named[f"gradient_{axis}"] for axis in "xyz"] == pytest.approx([5, 0, 0])
    assert named["grain"] == pytest.approx(0) and named["autocorrelation_y"] == pytest.approx(1, abs=1e-4)


def test_smoothed_noise_has_more_autocorrelation_along_its_axis() -> None:
    where, rng = np.ones((24, 24, 12), bool), np.random.default_rng(0)
    white, smooth = (patches(noisy(0, correlated), where, rng).mean(axis=0) for correlated in (False, True))
    x, y = FEATURES.index("autocorrelation_x"), FEATURES.index("autocorrelation_y")
    assert smooth[x] > white[x] + 0.4 and abs(smooth[y] - white[y]) < 0.15


def test_only_solid_nodules_have_a_border_of_that_kind() -> None:
    hu, mask = np.full((30, 12, 12), -850, np.float32), np.zeros((30, 12, 12), bool)
    mask[4:9, 4:9, 4:9] = mask[20:25, 4:9, 4:9] = True
    hu[4:9, 4:9, 4:9], hu[20:25, 4:9, 4:9] = 40, -500
    border = border_of(hu, mask, "solid nodule")
    assert border.sum() == 5**3 - 3**3 and not border[15:].any()
    assert border_of(hu, mask, "ground glass")[15:].any()


def test_each_untouched_patch_is_taken_once_and_is_the_nearest() -> None:
    rng = np.random.default_rng(0)
    others = rng.normal(size=(400, len(FEATURES)))
    wanted = others[:20] + 1e-6
    found = nearest(np.concatenate([wanted, wanted]), others)
    assert len(found) == len(np.unique(found, axis=0)) > 30
    columns = [FEATURES.index(name) for name in MATCHED]
    np.testing.assert_allclose(found[:20][:, columns], wanted[:, columns], atol=1e-5)


@pytest.mark.parametrize(("correlated", "low", "high"), [(False, 0.35, 0.65), (True, 0.95, 1.0)])
def test_the_classifiers_see_another_noise_and_no_difference_where_there_is_none(
    correlated: bool, low: float, high: float
) -> None:
    where, rng = np.ones((24, 24, 12), bool), np.random.default_rng(0)
    samples = [
        Sample(str(base), drawn, patches(noisy(2 * base + drawn, correlated and drawn), where, rng))
        for base in range(6)
        for drawn in (False, True)
    ]
    row = judged({"solid nodule": samples})["solid nodule"]
    assert (row["bases"], row["drawn"], row["others"]) == (6, 360, 360)
    for name in ("logistic regression", "gradient boosting"):
        assert low <= row[name]["auc"] <= high, row


def test_a_base_without_a_border_to_compare_is_left_out_and_of_two_bases_there_is_no_auc() -> None:
    rng = np.random.default_rng(0)
    samples = [Sample(str(base), drawn, rng.normal(size=(9, 9))) for base in range(3) for drawn in (False, True)]
    samples += [Sample("3", True, rng.normal(size=(9, 9))), Sample("3", False, np.zeros((0, 9)))]
    assert judged({"effusion": samples})["effusion"]["bases"] == 3
    few = judged({"effusion": samples[2:]})["effusion"]
    assert few == {"bases": 2, "logistic regression": None, "gradient boosting": None}
