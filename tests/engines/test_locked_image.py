"""Training over a locked image tower: batches keep a study together, every study comes once, and the objective is learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from bundle.ctfindings.engines.locked_image import LockedBatches, LockedSplit, score_locked, train_locked

STUDIES = 12


def studies() -> list[dict[str, Any]]:
    """Every other one with a large heart."""
    captions = ("The heart is enlarged.", "Heart size is normal.")
    return [
        {
            "id": f"s{index}",
            "patient": f"p{index}",
            "captions": {"heart": captions[index % 2]},
            "caption_id": torch.tensor([0, index % 2 + 1, 0, 0, 0, 0]),
            "caption_normal": torch.tensor([False, index % 2 == 1, False, False, False, False]),
            "labels": torch.full((18,), 1 - index % 2),
        }
        for index in range(STUDIES)
    ]


def encoded() -> LockedSplit:
    """Features in which the heart row tells the two kinds apart and the first value is the number of the study."""
    features = np.zeros((STUDIES, 6, 4), dtype=np.float32)
    features[:, :, 0] = np.arange(STUDIES)[:, None] / 100
    features[::2, 1, 1], features[1::2, 1, 2] = 1, 1
    return LockedSplit(np.asarray([f"s{index}" for index in range(STUDIES)]), features, np.ones((STUDIES, 6), dtype=bool))


def test_every_study_comes_once_an_epoch_with_its_own_features() -> None:
    batches = LockedBatches(encoded(), studies(), batch_size=4, augmentation=None, seed=0)
    seen = [
        (round(float(value) * 100), int(label))
        for batch in batches
        for value, label in zip(batch["image"][:, 0, 0], batch["labels"][:, 0], strict=True)
    ]
    assert sorted(index for index, _ in seen) == list(range(STUDIES))
    assert all(label == 1 - index % 2 for index, label in seen)


def test_other_studies_than_were_encoded_are_refused() -> None:
    with pytest.raises(ValueError, match="not those of the datalist"):
        LockedBatches(encoded(), studies()[::-1], batch_size=4, augmentation=None, seed=0)
    with pytest.raises(ValueError, match="do not fill a batch of 16"):
        LockedBatches(encoded(), studies(), batch_size=16, augmentation=None, seed=0)


def test_encoded_studies_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    encoded().save(tmp_path / "split.npz")
    found = LockedSplit.load(tmp_path / "split.npz")
    assert found.ids.tolist() == encoded().ids.tolist() and np.array_equal(found.features, encoded().features)


def test_images_meet_the_captions_they_were_trained_with(bundle_root: Path) -> None:
    parser = ConfigParser()
    parser.read_config([str(bundle_root / "configs" / name) for name in ("train.json", "objectives/ca_gcl.json")])
    parser.update({"bundle_root": str(bundle_root), "seed": 0, "epochs": 8, "batch_size": 6, "embedding": 16})
    model = train_locked(parser, encoded(), studies())
    scores = score_locked(model, encoded(), studies())
    with torch.no_grad():
        large, normal = model.text(["The heart is enlarged.", "Heart size is normal."], "anatomy").double().numpy()
    nearer = scores.anatomy[:, 1] @ (large - normal) > 0
    assert nearer.tolist() == [index % 2 == 0 for index in range(STUDIES)]
    assert scores.template_logits.shape == (STUDIES, 7, 18)
