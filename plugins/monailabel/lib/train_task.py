"""Fine-tuning from the server: the bundle's own training, on the studies of the datastore that say something to learn
from.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.train import TrainTask

from bundle.ctfindings.data.datalist import PATH_KEYS, check_study
from bundle.ctfindings.files.atomic_write import atomic_path

from .datastores import READ_ONLY, SeriesDatastore
from .options import Options
from .usage_error import UsageError

logger = logging.getLogger(__name__)

STUDY = "study"
"""Key of an image's info in the datastore; its value is a study record without paths."""

_FIELDS = ("patient", "report", "captions", "labels", "snippets")
_PASSED_OVER = ("id", "stored", *PATH_KEYS)
"""Of a datalist's record: the datastore knows these itself."""

_LIMITS: dict[str, tuple[float, float]] = {
    "max_epochs": (1, 10_000),
    "batch_size": (2, 256),
    "learning_rate": (1e-8, 1.0),
    "val_split": (0.01, 0.9),
}
_DEFAULTS: dict[str, float] = {"max_epochs": 10, "batch_size": 4, "learning_rate": 0.0002, "val_split": 0.2}


class FineTuning(TrainTask):
    """Trains on the server's datastore, from the weights that the server uses. What it serves does not change: the new
    weights are a file.

    A scan takes part when its info in the datastore has a ``study`` (labels, captions, report, snippets; as in a
    datalist), or when a label with the tag ``final`` was saved for it, which is its anatomy mask.

    Args:
        options: of the app.
    """

    def __init__(self, options: Options) -> None:
        super().__init__(
            "Fine-tunes the findings on the datastore. The server goes on with its weights; the new ones are a file."
        )
        self.options = options

    def config(self) -> dict[str, Any]:
        return dict(_DEFAULTS)

    def check(self, params: Mapping[str, Any], datastore: Datastore) -> None:
        """Refuses what cannot be trained before a process is started.

        Raises:
            UsageError: for a parameter outside its limits, fewer than three studies, or a datastore that keeps no
                studies.
        """
        _settings(params)
        if isinstance(datastore, SeriesDatastore):
            raise UsageError(400, READ_ONLY)
        count = sum(1 for image in datastore.list_images() if _taught(datastore, image))
        if count < 3:
            raise UsageError(
                400, f"{count} scans of the datastore have a study record or a final label; fine-tuning needs 3 or more"
            )

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        self.check(request, datastore)
        settings = _settings(request)
        run = self.options.work / "training" / time.strftime("%Y%m%d_%H%M%S")
        (run / "tmp").mkdir(parents=True)
        counts = self._write_datalist(run / "datalist.json", datastore, settings["val_split"])
        keys: dict[str, Any] = {
            "bundle_root": str(self.options.bundle),
            "datalist": str(run / "datalist.json"),
            "output_dir": str(run),
            "cache_dir": str(self.options.work / "training" / "cache"),
            "epochs": int(settings["max_epochs"]),
            "batch_size": min(int(settings["batch_size"]), counts["training"]),
            "learning_rate": settings["learning_rate"],
        }
        if self.options.checkpoint is not None:
            keys["init_ckpt"] = str(self.options.checkpoint)
        with atomic_path(run / "settings.json") as temporary:
            temporary.write_text(json.dumps(keys, indent=1), encoding="utf-8")
        self._run(run)
        model = run / "model.pt"
        return {
            "model": str(model),
            "weights_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
            **counts,
            **settings,
        }

    def _write_datalist(self, path: Path, datastore: Datastore, share: float) -> dict[str, int]:
        """Studies by split; those of one patient stay together, and the same study is always on the same side of the
        same share.
        """
        studies = [_study(datastore, image) for image in datastore.list_images() if _taught(datastore, image)]
        patients = sorted(
            {_patient(study) for study in studies}, key=lambda patient: hashlib.sha256(patient.encode()).hexdigest()
        )
        if len(patients) < 2:
            raise UsageError(400, "all studies are of one patient; validation needs another")
        held_out = set(patients[: min(max(1, round(share * len(patients))), len(patients) - 1)])
        splits: dict[str, Any] = {
            "training": [study for study in studies if _patient(study) not in held_out],
            "validation": [study for study in studies if _patient(study) in held_out],
            "test": [],
        }
        counts = {name: len(splits[name]) for name in ("training", "validation")}
        if counts["training"] < 2:
            raise UsageError(400, "fewer than 2 studies are left for training; lower val_split, or add studies")
        with atomic_path(path) as temporary:
            temporary.write_text(
                json.dumps({"name": "datastore", "description": "studies of the server", **splits}), encoding="utf-8"
            )
        return counts

    def _run(self, run: Path) -> None:
        """The bundle's training in a process of its own, whose last lines are the reason when it fails."""
        configs = ["configs/train.json", *self.options.overlays, "configs/finetune.json"]
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


def check_taught(image: str, study: Any) -> None:
    """Refuses a study record that fine-tuning could not read, when it is sent.

    Args:
        image: id of the scan.
        study: as it is sent; paths in it are not used.

    Raises:
        UsageError: says what is wrong with it.
    """
    if not isinstance(study, Mapping):
        raise UsageError(400, f"info: {STUDY} is no object; give one with any of {', '.join(_FIELDS)}")
    unknown = sorted(set(study) - {*_FIELDS, *_PASSED_OVER})
    if unknown:
        raise UsageError(
            400, f"info: {STUDY} has the unknown field {unknown[0][:100]!r}; known are {', '.join(_FIELDS)}"
        )
    try:
        check_study({**{key: study[key] for key in _FIELDS if key in study}, "id": image}, "info")
    except ValueError as error:
        raise UsageError(400, str(error)) from error


def _settings(params: Mapping[str, Any]) -> dict[str, float]:
    settings = dict(_DEFAULTS)
    for name, (low, high) in _LIMITS.items():
        value = params.get(name, settings[name])
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise UsageError(400, f"{name}: {value!r} is no number from {low:g} to {high:g}")
        settings[name] = value
    return settings


def _taught(datastore: Datastore, image: str) -> bool:
    return bool(
        datastore.get_image_info(image).get(STUDY)
    ) or DefaultLabelTag.FINAL in datastore.get_labels_by_image_id(image)


def _study(datastore: Datastore, image: str) -> dict[str, Any]:
    """The record of a datalist. Paths come from the datastore alone: a client must not make the server read other
    files.
    """
    given = datastore.get_image_info(image).get(STUDY) or {}
    study = {
        "id": image,
        "image": datastore.get_image_uri(image),
        **{key: given[key] for key in _FIELDS if given.get(key)},
    }
    if DefaultLabelTag.FINAL in datastore.get_labels_by_image_id(image):
        study["anatomy"] = datastore.get_label_uri(image, DefaultLabelTag.FINAL)
    return study


def _patient(study: Mapping[str, Any]) -> str:
    return str(study.get("patient") or study["id"])
