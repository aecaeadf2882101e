"""What answers: the weights by their digest, and what the bundle says these were trained on."""

from __future__ import annotations

import json
from pathlib import Path

from bundle.ctfindings import __version__
from bundle.ctfindings.inference.record import ModelInfo

BUNDLE_NAME = "chest_ct_zero_shot_findings"
METADATA = Path("configs") / "metadata.json"


def describe_model(bundle_root: str | Path, weights_sha256: str, network: str) -> ModelInfo:
    """The model block of a record.

    ``weights`` of the metadata names the digest of the file that ships and what it was trained on; of any other file nothing is known.

    Args:
        bundle_root: folder of the bundle; without metadata in it, nothing is known of the weights.
        weights_sha256: digest of the weights file.
        network: name of the image tower.
    """
    metadata = Path(bundle_root) / METADATA
    shipped = json.loads(metadata.read_text(encoding="utf-8")).get("weights", {}) if metadata.is_file() else {}
    known = weights_sha256 == shipped.get("sha256")
    return ModelInfo(BUNDLE_NAME, __version__, weights_sha256, network, shipped.get("trained_on") if known else None)


def training_warnings(model: ModelInfo) -> list[str]:
    """What a reader has to know of the weights before anything else: nothing where it is not known what they were trained on."""
    if model.trained_on is None:
        return []
    return [f"these weights were trained only on {model.trained_on}, and were never checked on patients"]
