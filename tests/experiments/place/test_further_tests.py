"""The tests without training pass for what they look for, and are refuted by what explains it away."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bundle.ctfindings.losses.pathology_alignment import Observations
from experiments.place import further_tests
from experiments.place.further_tests import Pairs, correlation_test, lesion_size_test, shuffled_words_test

SCANS = 12


def scans_of(explained_by: str, seed: int) -> list[Pairs]:
    """Scans whose correlations follow from the tissues, from positions, or from what only the model knows."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(SCANS):
        classes, places = rng.integers(0, 4, 300), rng.uniform(-1, 1, (300, 6))
        known = {"classes": classes / 3, "places": places[:, 0] * places[:, 1], "model": rng.normal(0, 0.5, 300)}
        target = known[explained_by] + rng.normal(0, 0.05, 300)
        predicted = known["model"] if explained_by == "model" else 0.3 * target + rng.normal(0, 0.3, 300)
        found.append(Pairs(predicted, target, np.ones(300), classes, places))
    return found


@pytest.mark.parametrize(("explained_by", "best"), [("classes", "pair_of_classes"), ("places", "positions")])
def test_correlations_that_a_control_explains_refute_the_model(explained_by: str, best: str) -> None:
    found = correlation_test(scans_of(explained_by, 0), scans_of(explained_by, 1), resamples=50)
    assert not found["passed"] and found[best]["value"] > 0.8 > 0.6 > found["model"]["value"]


def test_a_model_that_explains_more_than_both_controls_passes() -> None:
    found = correlation_test(scans_of("model", 0), scans_of("model", 1), resamples=50)
    assert found["passed"] and found["model"]["value"] > 0.9 and found["scans"] == SCANS
    assert found["pair_of_classes"]["value"] < 0.1


def test_the_gap_has_to_grow_with_the_lesions() -> None:
    rng = np.random.default_rng(0)
    volumes = rng.permutation(90).astype(float)
    noise = rng.normal(0, 0.01, 90)
    growing, flat = ([[1.0, 1 + step * v + n, 1.0] for v, n in zip(volumes, noise, strict=True)] for step in (0.01, 0))
    found = lesion_size_test(growing, volumes.tolist())
    assert found["passed"] and [third["largest_ml"] for third in found["thirds"]] == [29, 59, 89]
    # Thirds of 0 to 29 and 60 to 89 ml: their means are 60 ml apart.
    assert found["largest_minus_smallest"]["value"] == pytest.approx(0.6, abs=0.01)
    assert not lesion_size_test(flat, volumes.tolist())["passed"]


def words_of() -> dict[str, Any]:
    """Scans that answer to their own sentence, and a text encoder for which other words in order are another text."""
    texts = [" ".join(np.random.default_rng(scan).permutation(list("abcdefghijkl"))) for scan in range(20)]

    def encode(given: list[str], role: str) -> torch.Tensor:
        return torch.stack([F.normalize(torch.randn(64, generator=_seeded(text)), dim=0) for text in given])

    rows, scans = encode(texts, "sentence"), torch.arange(20)
    observed = Observations(
        *(rows[:, None], torch.ones(20, 1, dtype=torch.bool), torch.full((20, 1), -1), torch.ones(20)),
        *(scans, rows, scans, torch.zeros(20, dtype=torch.bool), scans, torch.zeros(20, 18, dtype=torch.bool)),
    )
    network = SimpleNamespace(encode_text=encode)
    return {"observer": SimpleNamespace(network=network), "read": SimpleNamespace(rows=observed, texts=texts)}


def _seeded(text: str) -> torch.Generator:
    return torch.Generator().manual_seed(sum(ord(letter) * 31**place for place, letter in enumerate(text)) % 2**31)


def test_an_encoder_that_reads_the_order_of_words_finds_less_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(further_tests, "FOUND", 1)
    found = shuffled_words_test(**words_of())
    assert found["written"] == 1 and found["shuffled"] < 0.5 and found["passed"]
