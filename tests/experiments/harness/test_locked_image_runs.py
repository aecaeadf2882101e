"""Runs over a locked image tower, as a whole: scans are encoded once, and a run that is done is not done again."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from bundle.ctfindings.evaluation.diagnostics import Diagnostics
from bundle.ctfindings.phantom.dataset import make_dataset
from experiments.ca_gcl.comparison import CA_GCL_VARIANTS
from experiments.harness import locked_image_runs as locked_experiments
from experiments.harness.locked_image_runs import LockedRuns
from experiments.harness.locked_image_training import LockedSplit
from experiments.harness.runs import Variant

KEYS = {"epochs": 1, "batch_size": 3}


@pytest.fixture(scope="module")
def datalist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("synthetic"), training=6, validation=4, test=4, seed=3, workers=1)


def variant(name: str) -> Variant:
    return next(variant for variant in CA_GCL_VARIANTS if variant.name == name)


def test_runs_are_trained_scored_and_kept(
    datalist: Path, untrained_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = LockedRuns(untrained_weights, datalist, tmp_path, KEYS)
    assert {name: len(split.ids) for name, split in runs.encoded.items()} == {"training": 6, "validation": 4, "test": 4}
    initial, trained = runs(variant("initial"), 0), runs(variant("fvlm"), 0)
    before, after = (torch.load(run / "last.pt", weights_only=True)["model"] for run in (initial, trained))
    # Both start from the same weights; one step of training moves the projections of the anatomies that have captions.
    assert not torch.equal(before["projection"], after["projection"])
    assert (before["projection"] - after["projection"]).abs().max() < 0.1
    found = Diagnostics.load(trained / locked_experiments.DIAGNOSTICS_FILE)
    assert len(found.ids) == 4 and found.logits.shape == (4, 18)

    def none(*_: object) -> None:
        raise AssertionError("scans are encoded, or a run is trained, a second time")

    monkeypatch.setattr(locked_experiments, "encode_split", none)
    monkeypatch.setattr(locked_experiments, "train_locked", none)
    again = LockedRuns(untrained_weights, datalist, tmp_path, KEYS)
    assert again(variant("fvlm"), 0) == trained
    with pytest.raises(ValueError, match="contains a run with other settings"):
        LockedRuns(untrained_weights, datalist, tmp_path, {**KEYS, "epochs": 2})(variant("fvlm"), 0)


def test_scans_are_encoded_again_when_the_image_pipeline_or_a_file_changes(
    datalist: Path, untrained_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def encode(image: object, loader: Sequence[object], name: str) -> LockedSplit:
        made.append(name)
        ids = [study["id"] for study in loader.dataset.data]  # type: ignore[attr-defined]
        depth, depth_mm = np.zeros((len(ids), 2, 3), np.float32), np.zeros((len(ids), 2), np.float32)
        return LockedSplit(
            np.asarray(ids), np.zeros((len(ids), 6, 4), np.float32), np.ones((len(ids), 6), dtype=bool), depth, depth_mm
        )

    monkeypatch.setattr(locked_experiments, "encode_split", encode)
    LockedRuns(untrained_weights, datalist, tmp_path, KEYS)
    LockedRuns(untrained_weights, datalist, tmp_path, KEYS)
    assert len(made) == 3
    LockedRuns(untrained_weights, datalist, tmp_path, {**KEYS, "divisible": 32})
    assert len(made) == 6
    scan = next((datalist.parent / "images").iterdir())
    os.utime(scan, ns=(0, 0))
    LockedRuns(untrained_weights, datalist, tmp_path, KEYS)
    assert len(made) == 7
