"""Runs of an experiment over a locked image tower: one encoding of all scans, then a run of minutes for each variant
and seed.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from bundle.ctfindings.data.cache_key import describe_pipeline, version_of
from bundle.ctfindings.data.datalist import load_datalist
from bundle.ctfindings.data.loaders import cached_dataset, study_loader
from bundle.ctfindings.data.scan_cache import study_digest
from bundle.ctfindings.data.study_record import SPLITS
from bundle.ctfindings.data.transforms import KeepGeometryd
from bundle.ctfindings.evaluation.calibrate import calibrate
from bundle.ctfindings.evaluation.diagnostics import DIAGNOSTICS_FILE, diagnose
from bundle.ctfindings.files.atomic_write import atomic_path
from bundle.ctfindings.metrics.thresholds import ThresholdRule
from bundle.ctfindings.networks.checkpoint import load_checkpoint, sha256_of
from bundle.ctfindings.networks.text.text_tower import TextTower
from experiments.harness.locked_image_model import LockedImageModel
from experiments.harness.locked_image_training import (
    LockedSplit,
    encode_split,
    locked_model,
    score_locked,
    train_locked,
)
from experiments.harness.runs import ROOT, Variant, claim_run, split_digests

logger = logging.getLogger(__name__)

THRESHOLD_RULE: ThresholdRule = "youden"
"""Of the templates' F1 in every comparison over a locked tower, recorded ones included; ``evaluate.json`` has a key for
its own.
"""


class LockedRuns:
    """Trains and scores variants on the scans of a datalist, as an image tower sees them.

    Args:
        checkpoint: weights of the image tower: a training checkpoint or ``models/model.pt``.
        datalist: the JSON file with ``training``, ``validation`` and ``test``.
        folder: of the experiment; encoded scans and runs are kept there.
        keys: config keys for all runs, such as ``epochs``.

    Raises:
        ValueError: the checkpoint or the datalist does not fit.
    """

    def __init__(self, checkpoint: Path, datalist: Path, folder: Path, keys: Mapping[str, Any]) -> None:
        self.folder, self.keys = folder, dict(keys)
        self.image_weights = sha256_of(checkpoint)
        self.datalist = split_digests(datalist)
        self.studies = {split: load_datalist(datalist, split) for split in SPLITS}
        parser = _parser(None, self.keys)
        self.steps = [*parser.get_parsed_content("whole_scan"), KeepGeometryd("image")]
        self.pipeline = version_of(describe_pipeline(self.steps))
        # Asked before the steps have run, which may change what they say of themselves.
        self.paths = {split: self._path(split) for split in SPLITS}
        self._encode_missing(parser, checkpoint)
        self.encoded = {split: LockedSplit.load(self.paths[split]) for split in SPLITS}
        # The tower of the last run: a frozen trunk reads the same texts in every run.
        self._text: TextTower | None = None

    def __call__(self, variant: Variant, seed: int) -> Path:
        """Trains and scores a variant unless that is done; returns the folder of its evaluation.

        Raises:
            ValueError: the folder holds a run with other settings.
        """
        run = self.claim(variant, seed)
        if (run / DIAGNOSTICS_FILE).is_file():
            logger.info("%s: is done", run)
            return run
        model = self.model(variant, seed, run)
        scores = {
            split: score_locked(model, self.encoded[split], self.studies[split]) for split in ("validation", "test")
        }
        fitted = calibrate(scores["validation"], "validation", THRESHOLD_RULE)
        diagnose(model.text, scores["test"], self.studies["test"], fitted, seed).save(run / DIAGNOSTICS_FILE)
        return run

    def claim(self, variant: Variant, seed: int) -> Path:
        """The folder of a run.

        Raises:
            ValueError: the folder holds a run with other settings.
        """
        run = self.folder / f"{variant.name}_seed{seed}"
        keys = {**self.keys, **variant.keys}
        settings = {
            "overlays": list(variant.overlays),
            "keys": keys,
            "seed": seed,
            "image_weights": self.image_weights,
            "pipeline": self.pipeline,
            "datalist": self.datalist,
        }
        claim_run(run, settings)
        return run

    def model(self, variant: Variant, seed: int, run: Path) -> LockedImageModel:
        """The model of a variant: trained, and written into the folder of its run, or with its initial weights."""
        parser = _parser(variant, {**self.keys, **variant.keys, "seed": seed})
        model = locked_model(parser, self.encoded["training"])
        if self._text is not None:
            model.text.adopt_features(self._text)
        self._text = model.text
        if variant.trained:
            model = train_locked(parser, model, self.encoded["training"], self.studies["training"])
        with atomic_path(run / "last.pt") as temporary:
            torch.save({"model": model.state_dict()}, temporary)
        return model

    def _path(self, split: str) -> Path:
        """Named by all that the features depend on: the scans, what makes an image of them, and the weights."""
        names = ("id", "image", "stored")
        scans = [study_digest({name: study[name] for name in names if name in study}) for study in self.studies[split]]
        return (
            self.folder
            / "encoded"
            / f"{split}_{version_of(describe_pipeline(self.steps, [self.image_weights, scans]))}.npz"
        )

    def _encode_missing(self, parser: ConfigParser, checkpoint: Path) -> None:
        """Encodes the splits that are not on disk."""
        missing = [split for split in SPLITS if not self.paths[split].is_file()]
        if not missing:
            return
        image = parser.get_parsed_content("network_def#image")
        load_checkpoint({"image": image}, checkpoint)
        for split in missing:
            loader = study_loader(cached_dataset(self.studies[split], self.steps), batch_size=1)
            encode_split(image, loader, f"encoding {split}").save(self.paths[split])


def _parser(variant: Variant | None, keys: Mapping[str, Any]) -> ConfigParser:
    names = ["train.json", *(variant.overlays if variant else ()), "evaluate.json"]
    parser = ConfigParser()
    parser.read_config([str(ROOT / "configs" / name) for name in names])
    parser.update({"bundle_root": str(ROOT), **keys})
    return parser
