"""Training over a locked image tower: batches keep a study together, every study comes once, and the objective is
learned.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from sklearn.metrics import roc_auc_score

from bundle.ctfindings.anatomy import THORAX
from bundle.ctfindings.evaluation.report_sections import localization_of, retrieval_of
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.networks.image.image_encoder import ImageEncoder
from bundle.ctfindings.networks.image.image_tower import ConvolutionalTower
from experiments.harness.locked_image_training import (
    LockedBatches,
    LockedSplit,
    encode_split,
    locked_model,
    score_locked,
    train_locked,
)

STUDIES = 12
SITES = ("A nodule in the lower lobe.", "An enlarged node beside the trachea.")


def studies() -> list[dict[str, Any]]:
    """Every other one with a large heart."""
    captions = ("The heart is enlarged.", "Heart size is normal.")
    return [
        {
            "id": f"s{index}",
            "patient": f"p{index}",
            "captions": {"heart": captions[index % 2]},
            "caption_id": torch.tensor([0, index % 2 + 1, 0, 0, 0, 0]),
            "caption_sentences": torch.zeros(6, 1, dtype=torch.int64),
            "caption_normal": torch.tensor([False, index % 2 == 1, False, False, False, False]),
            "labels": torch.full((18,), 1 - index % 2),
            "report": {"findings": captions[index % 2], "impression": ""},
            "snippets": [
                {"text": SITES[index % 2], "z_mm": 100.0 + 12 * (1 + index % 2)},
                {"text": "Series 3.", "z_mm": None},
            ],
        }
        for index in range(STUDIES)
    ]


def encoded() -> LockedSplit:
    """Features in which the rows of heart and thorax tell the two kinds apart and the first value is the number of the
    study.

    A depth knows its number of four; the last two are beyond the end of every other scan.
    """
    features = np.zeros((STUDIES, 6, 4), dtype=np.float32)
    features[:, :, 0] = np.arange(STUDIES)[:, None] / 100
    for row in (1, THORAX):
        features[::2, row, 1], features[1::2, row, 2] = 1, 1
    depth = np.tile(np.eye(4, 5, dtype=np.float32), (STUDIES, 1, 1))
    depth_mm = np.tile(100 + 12 * np.arange(4, dtype=np.float32), (STUDIES, 1))
    depth_mm[::2, 3] = np.nan
    ids = np.asarray([f"s{index}" for index in range(STUDIES)])
    return LockedSplit(ids, features, np.ones((STUDIES, 6), dtype=bool), depth, depth_mm)


def test_every_study_comes_once_an_epoch_with_its_own_features() -> None:
    batches = LockedBatches(encoded(), studies(), batch_size=4, augmentation=None, seed=0)
    seen = [
        (round(float(value) * 100), int(label))
        for batch in batches
        for value, label in zip(batch["features"][:, 0, 0], batch["labels"][:, 0], strict=True)
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
    assert found.ids.tolist() == encoded().ids.tolist()
    for name in ("features", "valid", "depth", "depth_mm"):
        np.testing.assert_array_equal(getattr(found, name), getattr(encoded(), name))


def test_images_meet_the_captions_they_were_trained_with(bundle_root: Path) -> None:
    parser = ConfigParser()
    parser.read_config([str(bundle_root / "configs" / name) for name in ("train.json", "objectives/ca_gcl.json")])
    parser.update({"bundle_root": str(bundle_root), "seed": 0, "epochs": 8, "batch_size": 6, "embedding": 16})
    model = train_locked(parser, locked_model(parser, encoded()), encoded(), studies())
    scores = score_locked(model, encoded(), studies())
    with torch.no_grad():
        large, normal = model.text(["The heart is enlarged.", "Heart size is normal."], "anatomy").double().numpy()
    nearer = scores.anatomy[:, 1] @ (large - normal) > 0
    assert nearer.tolist() == [index % 2 == 0 for index in range(STUDIES)]
    assert scores.template_logits.shape == (STUDIES, 7, 18)


def test_reports_prompts_and_snippets_meet_the_scans_they_were_trained_with(bundle_root: Path) -> None:
    parser = ConfigParser()
    parser.read_config([str(bundle_root / "configs" / name) for name in ("train.json", "objectives/radfinder.json")])
    parser.update({"bundle_root": str(bundle_root), "seed": 0, "epochs": 40, "batch_size": 6, "embedding": 16})
    model = train_locked(parser, locked_model(parser, encoded()), encoded(), studies())
    labels = np.stack([study["labels"].numpy() for study in studies()])
    heart = FINDING_NAMES.index("Cardiomegaly")
    scores = score_locked(model, encoded(), studies())
    assert roc_auc_score(labels[:, heart], scores.logits[:, heart]) == 1.0
    bootstrap = Bootstrap(scores.patients, resamples=20)
    placed = localization_of(scores, studies(), model, bootstrap)
    assert placed is not None and placed["left_out"] == STUDIES
    assert placed["all"]["model"]["mae_mm"]["value"] < 1.0 < placed["all"]["middle"]["mae_mm"]["value"]
    found = retrieval_of(scores, studies(), model, bootstrap)
    assert found is not None and found["pools"]["dup_all"]["text_to_image"]["recall"]["5"]["value"] > 0.6


def test_a_split_holds_what_the_tower_tells_of_each_scan_whatever_its_height() -> None:
    torch.manual_seed(0)
    image = ImageEncoder(
        ConvolutionalTower(patch=2, channels=(8, 8, 8, 16), blocks=(1, 1, 1, 1), width=12, heads=2),
        embedding=8,
        heads=2,
    )
    affine = torch.diag(torch.tensor([4.0, 4.0, 3.0, 1.0]))[None]
    scans = [{"id": [f"s{z}"], "image": torch.rand(1, 1, 8, 8, z), "image_affine": affine} for z in (8, 16)]
    split = encode_split(image, scans, "encoding")
    assert split.features.shape[:2] == (2, 6) and split.depth.shape[:2] == (2, 8)
    np.testing.assert_allclose(
        split.depth_mm, [[1.5 + 6 * row if row < 4 else np.nan for row in range(8)], 1.5 + 6.0 * np.arange(8)]
    )
    with torch.no_grad():
        levels, _ = image.tower(scans[1]["image"])
    cells = levels[0].unflatten(1, (16, 8))[0]
    assert (split.depth[1, :, 12:24] <= cells.amax(0).numpy() + 1e-6).all() and (
        split.depth[1, :, 24:] >= cells.amin(0).numpy() - 1e-6
    ).all()
