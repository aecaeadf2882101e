"""Training from the server: the bundle's own, on what readers corrected and what the datastore knows of its scans."""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask

from bundle.ctfindings.files.atomic_write import write_text
from bundle.ctfindings.networks.checkpoint import sha256_of
from bundle.ctfindings.networks.domain import load_domain

from .corrections import CorrectionStore
from .options import Options
from .reader import Reader, check_mask
from .taught_studies import Study, taught_studies, write_datalist
from .usage_error import UsageError

logger = logging.getLogger(__name__)

FEWEST_STUDIES = 3

_LIMITS: dict[str, tuple[float, float]] = {
    "max_epochs": (1, 10_000),
    "batch_size": (2, 256),
    "learning_rate": (1e-8, 1.0),
    "val_split": (0.01, 0.9),
}
_DEFAULTS: dict[str, float] = {"max_epochs": 10, "batch_size": 4, "learning_rate": 0.0002, "val_split": 0.2}


class FineTuning(TrainTask):
    """Trains on the server's scans. What it serves does not change: the new weights are a file.

    A scan takes part when a reader corrected it, when its info in the datastore has a ``study`` (labels, captions,
    report, snippets; as in a datalist), or when a label with the tag ``final`` was saved for it, which is its anatomy
    mask. Training is ``configs/finetune.json`` from the weights that the server uses; where an overlay of the server
    names a frozen tower, it is ``configs/adapt.json``, which trains a head on its tokens.

    Args:
        options: of the app.
        corrections: of the readers.
    """

    def __init__(self, options: Options, corrections: CorrectionStore) -> None:
        super().__init__(
            "Trains the findings on corrected scans. The server keeps its weights; the new ones are a file."
        )
        self.options = options
        self.corrections = corrections

    def config(self) -> dict[str, Any]:
        return dict(_DEFAULTS)

    def check(self, params: Mapping[str, Any], datastore: Datastore) -> None:
        """Refuses what cannot be trained before a process is started.

        Raises:
            UsageError: for a parameter outside its limits, or fewer than three studies.
        """
        _settings(params)
        self._studies(datastore)

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        settings, studies = _settings(request), self._studies(datastore)
        self._check_masks(studies)
        run = self.options.work / "training" / time.strftime("%Y%m%d_%H%M%S")
        (run / "tmp").mkdir(parents=True)
        # Cross-validation by patient chooses how the head of a frozen tower is trained: it needs no split of its own.
        share = 0.0 if self._is_frozen() else settings["val_split"]
        counts = write_datalist(run / "datalist.json", studies, share)
        configs, keys = self.workflow(run, settings, counts["training"])
        write_text(run / "settings.json", json.dumps(keys, indent=1))
        self._run(run, configs)
        model = run / "model.pt"
        domain = load_domain(model)
        if not domain.fitted:
            logger.warning("%s: domain unknown; it gives findings for scans unlike its training scans too", model.name)
        return {
            "model": str(model),
            "weights_sha256": sha256_of(model),
            "domain": {"scans": int(domain.scans), "threshold": float(domain.threshold)} if domain.fitted else None,
            **(self._adapted(run) if self._is_frozen() else self._fine_tuned(counts, settings, keys)),
        }

    def workflow(self, run: Path, settings: Mapping[str, float], studies: int) -> tuple[list[str], dict[str, Any]]:
        """Configuration files of the bundle, and the keys that override them.

        Args:
            run: folder of the training.
            settings: parameters of the request; those that the head of a frozen tower has no use for are left out.
            studies: for training.
        """
        keys: dict[str, Any] = {
            "bundle_root": str(self.options.bundle),
            "datalist": str(run / "datalist.json"),
            "output_dir": str(run),
            "cache_dir": str(self.options.work / "training" / "cache"),
        }
        if self._is_frozen():
            return ["configs/adapt.json", *self.options.overlays], keys
        if self.options.checkpoint is not None:
            keys["init_ckpt"] = str(self.options.checkpoint)
        keys |= {
            "epochs": int(settings["max_epochs"]),
            "batch_size": min(int(settings["batch_size"]), studies),
            "learning_rate": settings["learning_rate"],
        }
        return ["configs/train.json", *self.options.overlays, "configs/finetune.json"], keys

    def _fine_tuned(
        self, counts: Mapping[str, int], settings: Mapping[str, float], keys: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What the fine-tuning used: studies of each split, and its parameters."""
        used = {"max_epochs": keys["epochs"], **{name: keys[name] for name in ("batch_size", "learning_rate")}}
        return {**counts, **used, "val_split": settings["val_split"]}

    def _adapted(self, run: Path) -> dict[str, Any]:
        """What the adaptation used: studies, and the setting that its cross-validation chose."""
        record = json.loads((run / "adaptation.json").read_text(encoding="utf-8"))
        return {
            "training": record["scans"],
            "validation": 0,
            "head": record["training"]["kind"],
            **{name: record[name] for name in ("steps", "learning_rate", "weight_decay")},
        }

    def _studies(self, datastore: Datastore) -> list[Study]:
        studies = taught_studies(datastore, self.corrections)
        if len(studies) < FEWEST_STUDIES:
            raise UsageError(
                400,
                f"{len(studies)} scans have a correction, a study record or a final label; "
                f"training needs {FEWEST_STUDIES} or more",
            )
        return studies

    def _check_masks(self, studies: Sequence[Study]) -> None:
        """Refuses to train on a label that is not a mask: a folder may hold some that never came through the server."""
        reader = Reader(self.options.limits)
        for study in studies:
            if "anatomy" in study:
                reader.run(check_mask, Path(study["anatomy"]), Path(study["image"]))

    def _is_frozen(self) -> bool:
        files = [self.options.bundle / name for name in self.options.overlays]
        return any("frozen_tokens" in json.loads(file.read_text(encoding="utf-8")) for file in files)

    def _run(self, run: Path, configs: Sequence[str]) -> None:
        """The bundle's training in a process of its own, whose last lines are the reason when it fails."""
        files = [str(self.options.bundle / name) for name in configs] + [str(run / "settings.json")]
        command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(files)]
        path = os.pathsep.join(filter(None, [str(self.options.bundle), os.environ.get("PYTHONPATH")]))
        lines: list[str] = []
        with subprocess.Popen(
            command,
            cwd=self.options.bundle,
            env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(run / "tmp")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                lines = [*lines[-19:], line.rstrip()]
                logger.info(line.rstrip())
        if process.returncode != 0 or not (run / "model.pt").is_file():
            raise RuntimeError(f"training ended with code {process.returncode}: {' / '.join(lines[-3:])}")


def _settings(params: Mapping[str, Any]) -> dict[str, float]:
    settings = dict(_DEFAULTS)
    for name, (low, high) in _LIMITS.items():
        value = params.get(name, settings[name])
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise UsageError(400, f"{name}: expected a number from {low:g} to {high:g}, got {value!r}")
        settings[name] = value
    return settings
