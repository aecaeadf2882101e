"""Groups of scans are told apart by what differs between them, and by nothing else."""

from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pytest

from experiments.phantom_realism.compare import page
from experiments.phantom_realism.encoder_distances import (
    fitted_components,
    frechet_distances,
    read_features,
    residuals,
    way_to,
)
from experiments.phantom_realism.image_statistics import noise_power
from experiments.phantom_realism.render import GROUPS, PHANTOM


@pytest.fixture(scope="module")
def features() -> dict[str, np.ndarray]:
    """Two groups of one distribution and one that lies elsewhere, (N, 60)."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(5, 60))
    near, alike, far = (rng.normal(size=(30, 5)) @ mixing + 0.3 * rng.normal(size=(30, 60)) for _ in range(3))
    return {"near": near, "alike": alike, "far": far + 3 * rng.normal(size=60)}


def test_white_noise_has_the_same_power_at_all_frequencies_and_smooth_noise_little_at_the_highest() -> None:
    noise = np.random.default_rng(0).normal(0, 10, (100, 100, 9)).astype(np.float32)
    white = noise_power(noise)
    assert white == pytest.approx(np.full(5, np.median(white)), rel=0.25)
    smooth = noise_power((noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)) / 3)
    assert smooth[-1] / smooth[0] < 0.5 * white[-1] / white[0]
    assert np.isnan(noise_power(np.full((40, 40, 9), -1000, np.float32))).all()


def test_the_residual_is_large_only_for_scans_that_the_components_do_not_describe(features: dict) -> None:
    found = residuals(features["near"], {name: features[name] for name in ("alike", "far")})
    assert len(found["held_out"]) == 30
    assert np.median(found["alike"]) == pytest.approx(np.median(found["held_out"]), rel=0.15)
    assert min(found["far"]) > 2 * max(found["held_out"])


def test_the_frechet_distance_of_like_groups_is_that_of_a_group_to_itself(features: dict) -> None:
    table = frechet_distances(features)
    assert table["near"]["alike"] == pytest.approx(table["near"]["near"], rel=0.25)
    assert table["near"]["far"] > 2 * table["near"]["near"]


def test_the_way_begins_at_one_group_and_ends_at_the_other(features: dict) -> None:
    between = (features["near"] + features["far"]) / 2
    way = way_to(features["near"], features["far"], {**features, "between": between})
    means = [np.mean(way[name]) for name in ("near", "between", "far")]
    assert means == pytest.approx([0, 0.5, 1], abs=1e-6)


def test_features_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, value in (("b", 2), ("a", 1)):
        np.savez(tmp_path / f"{name}.npz", features=np.full(3, value, np.float32))
    assert read_features(tmp_path)[:, 0].tolist() == [1, 2]


def test_every_group_that_is_left_out_replaces_something_that_exists() -> None:
    for replaced in GROUPS.values():
        for name in replaced:
            assert callable(resolve_name(PHANTOM + name)), name


def test_the_page_shows_the_numbers_of_the_results() -> None:
    spread = {"min": 1.25, "median": 2.5, "max": 3.75}
    statistics = {"scans": 2, "lung_median": spread, "histogram": [0.1], "noise_power": [1.0]}
    results = {
        "commands": ["python experiments/phantom_realism/compare.py"],
        "image_statistics": {"phantom1": statistics},
        "scans_encoded": {"phantom1": 20, "real": 7},
        "residual_of_20_components": {"fitted_on_phantom1": {"held_out": spread, "real": spread}},
        "frechet_distance": {"phantom1": {"phantom1": 1.0, "real": 22.5}, "real": {"phantom1": 22.5, "real": 4.0}},
        "way_from_phantom1_to_real": {"phantom1": spread, "real": spread},
    }
    text = "\n".join(page(results))
    assert "| phantom1 | 2 | 2.5 (1.25 to 3.75) |" in text
    assert "| real | 22.5 | 4 |" in text
    assert "Residual of 15 principal components fitted on phantom1" in text


@pytest.mark.parametrize(("scans", "components"), [(20, 15), (25, 19), (27, 20), (40, 20)])
def test_components_that_a_fold_of_few_scans_has(scans: int, components: int) -> None:
    # Five folds keep at least 16, 20, 21 and 32 scans; centred points span one dimension less.
    assert fitted_components(scans) == components
