"""The summary of runs on RadFinder's objectives: means over seeds, paired differences, and verdicts that can fail."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiments.radfinder.results import expectations, plot_radfinder, radfinder_page, radfinder_summary

SCANS = 60
LABELS = np.tile([[0, 1], [1, 0], [0, 0], [1, 1]], (SCANS // 4, 9))


def result(variant: str, seed: int, separation: float, recall: float, ratio: float | None) -> dict[str, Any]:
    """A run whose logits tell the labels by so many standard deviations."""
    noise = np.random.default_rng(seed).normal(size=LABELS.shape)
    placed = None
    if ratio is not None:
        error = {"value": ratio, "interval": [ratio - 0.05, ratio + 0.05]}
        guesses = {
            name: {"mae_mm": {"value": value}}
            for name, value in (("model", 100 * ratio), ("middle", 100.0), ("random", 150.0))
        }
        placed = {"all": {"mae_of_middle": error, "profile_mae_of_middle": error, "snippets": 40, **guesses}}
    return {
        "variant": variant,
        "seed": seed,
        "macro_auc": {"value": separation / 10, "interval": [0.1, 0.9]},
        "retrieval": {
            "text_to_image": {
                "recall": {"10": {"value": recall, "interval": [recall - 0.02, recall + 0.02], "chance": 0.1}}
            }
        },
        "localization": placed,
        "localization_reworded": placed,
        "localization_trained": ratio is not None,
        "logits": (separation * LABELS + noise).tolist(),
        "labels": LABELS.tolist(),
        "patients": [f"p{scan}" for scan in range(SCANS)],
    }


def record(prompts: float = 3.0, localized: float = 3.0, ratio: float = 0.4, recall: float = 0.3) -> dict[str, Any]:
    runs = [
        result(*row)
        for seed in (0, 1)
        for row in (
            ("siglip", seed, 1.0, 0.3, None),
            ("siglip_prompts", seed, prompts, 0.3, None),
            ("radfinder", seed, localized, recall, ratio),
        )
    ]
    settings = {
        "command": "python scripts/x.py",
        "seeds": [0, 1],
        "studies": {"test": SCANS},
        "locked_image": "ab" * 32,
        "pool": 300,
    }
    return {"settings": settings, **radfinder_summary(runs)}


def verdicts(**changes: float) -> list[bool]:
    return [holds for _, holds, _ in expectations(record(**changes))]


def test_summary_has_means_over_seeds_and_differences_of_the_same_scans() -> None:
    found = record()
    assert found["variants"]["radfinder"]["localization"]["mae_of_middle"]["mean"] == pytest.approx(0.4)
    assert "localization" not in found["variants"]["siglip"]
    assert [gap["seed"] for gap in found["differences"]["siglip_prompts - siglip"]] == [0, 1]
    # The same logits give a difference of exactly nothing.
    assert all(
        gap["macro_auc"] == 0 and gap["interval"] == [0, 0]
        for gap in found["differences"]["radfinder - siglip_prompts"]
    )


def test_every_expectation_can_fail() -> None:
    assert verdicts() == [True] * 4
    assert verdicts(ratio=0.96) == [False, False, True, True]
    assert verdicts(prompts=1.0, localized=1.0)[2] is False
    assert verdicts(recall=0.11)[3] is False


def test_page_says_what_holds_and_that_the_tower_was_not_trained() -> None:
    page = "\n".join(radfinder_page(record(ratio=0.6)))
    expected = "radfinder, snippets in their own words: error below that of the middle slice"
    assert f"| {expected} | yes | 0.60 (0.55 to 0.65), 0.60 (0.55 to 0.65) |" in page
    assert "| radfinder | 0.300 | 0.300 | 0.100 | 0.60 (0.60) | 0.60 (0.60) |" in page
    assert "| siglip | 0.100 | 0.300 | 0.100 | not trained | not trained |" in page
    assert "weights with SHA-256 `abababababab`" in page and "python scripts/x.py" in page


def test_figure_has_the_variants_that_were_not_trained_to_place_a_sentence(tmp_path: Path) -> None:
    plot_radfinder(record(), tmp_path / "variants.png")
    assert Image.open(tmp_path / "variants.png").width > 300
