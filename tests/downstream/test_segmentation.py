"""Segmentation: the decoder, its targets and scores, and the whole task on a tower without a scan file."""

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from bundle.ctfindings.downstream.best_training import BestTraining
from bundle.ctfindings.downstream.segmentation import Segmentation
from bundle.ctfindings.downstream.segmentation_scores import KnownMaskLoss, OverlapScores
from bundle.ctfindings.downstream.segmentation_targets import SegmentationClasses
from bundle.ctfindings.downstream.segmenter import level_strides
from bundle.ctfindings.downstream.task_run import TaskRun
from bundle.ctfindings.networks.image.segmentation_decoder import SegmentationDecoder

SIZE = 16


class TwoLevels(nn.Module):
    """A tower of the mean of each block: tokens of 4 voxels, and of 8."""

    width, multiple, stride = 8, (8, 8, 8), (4, 4, 4)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(1, 2, self.width))

    def forward(self, image: torch.Tensor) -> tuple[list[torch.Tensor], list[list[int]]]:
        pooled = [nn.functional.avg_pool3d(image, edge) for edge in (4, 8)]
        grids = [list(level.shape[2:]) for level in pooled]
        position = torch.arange(self.width) / self.width
        return [torch.cos(6 * level.flatten(2).transpose(1, 2) * self.weight + position) for level in pooled], grids


class DrawScan:
    """In place of the image pipeline: a bright block, the heart, at a place that depends on the study."""

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        start = 4 * (sum(data["id"].encode()) % 3)
        anatomy = torch.ones(1, SIZE, SIZE, SIZE, dtype=torch.uint8)
        anatomy[:, start : start + 4, 4:12, 4:12] = 2
        meta = {"original_affine": np.eye(4), "spatial_shape": np.array([SIZE] * 3)}
        image = MetaTensor((anatomy == 2).float() * 0.8, affine=torch.eye(4, dtype=torch.float64), meta=meta)
        known = torch.tensor([True, True, False, False, False, False])
        return {**data, "image": image, "anatomy": anatomy, "anatomy_known": known}


class ToyEncoder:
    """An encoder whose tower is ``TwoLevels``."""

    ckpt_path, device, preprocessing = None, torch.device("cpu"), [DrawScan()]

    def __init__(self) -> None:
        self.network = SimpleNamespace(image=SimpleNamespace(tower=TwoLevels()))

    def load(self) -> None:
        """Nothing to load."""


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A datalist whose scans are drawn, with masks of lung and heart."""
    content = {
        split: [
            {"id": f"{split}{index}", "image": "none", "anatomy": "none", "labels": [0] * 18} for index in range(count)
        ]
        for split, count in {"training": 6, "validation": 2, "test": 4}.items()
    }
    path = tmp_path_factory.mktemp("segmentation") / "datalist.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    yield path


TRAINING = BestTraining(epochs=2, steps=12, patience=4, batch_size=4, learning_rate=0.01)


def task(**options: Any) -> Segmentation:
    settings: dict[str, Any] = {"training": TRAINING, "fractions": [50, 100], "seeds": [0, 1], "pictures": 2}
    return Segmentation(["heart"], [DrawScan()], **{**settings, **options})


@pytest.fixture(scope="module")
def record(masked: Path) -> dict:
    return TaskRun(task(), ToyEncoder(), masked, masked.parent / "out", resamples=20).run()


def test_the_decoder_learns_what_the_tokens_show_and_reports_both_intervals(record: dict) -> None:
    dice = record["fractions"]["100"]["dice"]
    assert dice["classes"]["heart"]["value"] > 0.8
    assert len(dice["macro"]["by_seed"]["values"]) == 2 and dice["macro"]["by_seed"]["interval"][0] is not None
    assert record["fractions"]["100"]["nsd"]["macro"]["value"] == 1.0  # 8 mm is as wide as the block
    assert record["fractions"]["100"]["false_positive_scans"]["macro"]["value"] is None  # every scan has a heart
    assert [subset["scans"] for subset in record["subsets"]] == [3, 3, 6, 6]


def test_masks_scores_pictures_and_page_are_written(record: dict, masked: Path) -> None:
    folder = masked.parent / "out"
    assert {path.name for path in folder.iterdir()} >= {"masks.png", "dice_by_fraction.png", "report.html", "masks"}
    with (folder / "predictions_100.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [f"test{index}" for index in range(4)]
    assert float(rows[0]["truth_ml"]) == pytest.approx(4 * 8 * 8 / 1000, abs=1e-4)
    mask = nib.load(folder / "masks" / "test0.nii.gz")
    assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1} and mask.shape == (SIZE,) * 3


def test_a_scan_outside_every_organ_is_named(masked: Path, monkeypatch: pytest.MonkeyPatch, record: dict) -> None:
    draw = DrawScan.__call__

    def without_heart(step: DrawScan, data: dict[str, Any]) -> dict[str, Any]:
        drawn = draw(step, data)
        return {**drawn, "anatomy": drawn["anatomy"].clamp(max=1)} if data["id"] == "test2" else drawn

    monkeypatch.setattr(DrawScan, "__call__", without_heart)
    training = replace(TRAINING, epochs=1, steps=1)
    options = {"training": training, "fractions": [100], "seeds": [0], "pictures": 1}
    found = TaskRun(task(**options), ToyEncoder(), masked, masked.parent / "outside", resamples=5).run()
    line = "segmentation: no anatomy has a voxel in test2: they show false positives alone"
    assert found["warnings"] == [line] and record["warnings"] == []


def test_a_tuned_tower_is_a_copy(masked: Path) -> None:
    encoder = ToyEncoder()
    before = encoder.network.image.tower.weight.detach().clone()
    training = replace(TRAINING, epochs=1, steps=2)
    options = {"training": training, "fractions": [100], "seeds": [0], "tuning_rate": 0.0003}
    TaskRun(task(**options), encoder, masked, masked.parent / "tuned", resamples=5).run()
    assert torch.equal(encoder.network.image.tower.weight, before)


def test_a_class_without_a_mask_is_named_or_refused_before_a_scan_is_read(masked: Path) -> None:
    content = json.loads(masked.read_text(encoding="utf-8"))
    studies = {
        split: [{**study, "patient": study["id"], "labels": torch.tensor(study["labels"])} for study in listed]
        for split, listed in content.items()
    }
    options = {"preprocessing": [], "training": TRAINING, "fractions": [100], "seeds": [0]}
    _, names, lines = Segmentation(["Heart", "lung nodule"], **options)._usable(studies)
    assert names == ["heart"]
    assert lines[0] == "100 % of the labels (seed 0, 6 scans): without a mask: Lung nodule; left out at every fraction"
    with pytest.raises(ValueError, match=r"segmentation: 100 % .* leave no class with a mask; use larger fractions"):
        Segmentation("findings", **options).check(studies)
    with pytest.raises(ValueError, match=r"classes: expected 'anatomies', 'findings', or names .* got 'liver'"):
        SegmentationClasses(["liver"])


@pytest.mark.parametrize(
    ("strides", "size"),
    [([[4, 4, 4], [8, 8, 8]], (16, 8, 24)), ([[32, 16, 16]] * 3, (32, 16, 16)), ([[3, 2, 1]], (9, 4, 5))],
)
def test_masks_have_the_size_of_the_scan_for_towers_of_any_stride(strides: list[list[int]], size: tuple) -> None:
    levels = [torch.randn(2, 8, *(edge // step for edge, step in zip(size, s, strict=True))) for s in strides]
    assert SegmentationDecoder(8, strides, classes=3)(levels).shape == (2, 3, *size)


def test_strides_of_a_tower_are_found() -> None:
    assert level_strides(TwoLevels()) == [[4, 4, 4], [8, 8, 8]]


def test_an_absent_finding_is_an_empty_mask_and_an_unmarked_one_is_unknown() -> None:
    labels = torch.zeros(3, 18, dtype=torch.long)
    labels[1:, 9] = 1
    bits = torch.zeros(3, 1, 2, 2, 2, dtype=torch.int32)
    bits[1, 0, 0, 0, 0] = 1 << 9
    batch = {"image": torch.zeros(3, 1, 2, 2, 2), "labels": labels, "finding_masks": bits}
    masks, known = SegmentationClasses(["Lung nodule", "heart"]).targets(batch)
    assert masks[:, 0].sum().item() == 1 and masks[1, 0, 0, 0, 0] == 1
    assert known.tolist() == [[True, False], [True, False], [False, False]]


def test_the_mediastinum_contains_the_heart() -> None:
    batch = {"image": torch.zeros(1, 1, 1, 1, 2), "labels": torch.zeros(1, 18, dtype=torch.long)}
    batch |= {"anatomy": torch.tensor([1, 2]).view(1, 1, 1, 1, 2), "anatomy_known": torch.ones(1, 6, dtype=torch.bool)}
    masks, known = SegmentationClasses(["lung", "heart", "mediastinum"]).targets(batch)
    assert masks[0].flatten(1).tolist() == [[1, 0], [0, 1], [0, 1]] and known.all()


def test_an_unknown_mask_gives_no_gradient() -> None:
    logits = torch.zeros(1, 2, 4, 4, 4, requires_grad=True)
    targets = {"masks": torch.ones(1, 2, 4, 4, 4), "known": torch.tensor([[True, False]])}
    KnownMaskLoss()(logits, targets).backward()
    assert logits.grad is not None and logits.grad[0, 0].abs().sum() > 0 and logits.grad[0, 1].abs().sum() == 0
    assert KnownMaskLoss()(logits, {**targets, "known": torch.zeros(1, 2, dtype=torch.bool)}) == 0


def test_dice_volume_and_surface_of_a_shifted_cube() -> None:
    truth, predicted = torch.zeros(1, 2, 12, 12, 12), torch.full((1, 2, 12, 12, 12), -1.0)
    truth[0, 0, 2:6, 2:6, 2:6] = 1
    predicted[0, 0, 3:7, 2:6, 2:6] = 1
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0]))[None]
    targets = {"masks": truth, "known": torch.ones(1, 2, dtype=torch.bool), "affine": affine}
    engine = SimpleNamespace(
        state=SimpleNamespace(output={"pred": predicted, "label": targets}, iteration=1, metrics={})
    )
    scores = {}
    for tolerance in (1.9, 2.0):
        collected = OverlapScores(tolerance)
        collected._collect(engine)
        collected._finish(engine)
        scores[tolerance] = collected.scores()
    assert scores[2.0]["dice"][0, 0] == pytest.approx(2 * 48 / 128)
    assert np.isnan(scores[2.0]["dice"][0, 1]) and np.isnan(scores[2.0]["nsd"][0, 1])
    assert scores[2.0]["truth_ml"][0].tolist() == pytest.approx([64 * 8 / 1000, 0])
    assert scores[2.0]["nsd"][0, 0] == 1.0 > scores[1.9]["nsd"][0, 0] > 0.5
    assert engine.state.metrics["dice"] == pytest.approx(0.75)
