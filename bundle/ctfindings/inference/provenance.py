"""Where the weights come from: their digest, and what the bundle or the file says about their training."""

import json
from pathlib import Path

from bundle.ctfindings import __version__
from bundle.ctfindings.inference.findings_record import ModelInfo
from bundle.ctfindings.networks.checkpoint import read_source, sha256_of

BUNDLE_NAME = "chest_ct_zero_shot_findings"
METADATA = Path("configs") / "metadata.json"


def describe_model(bundle_root: str | Path, checkpoint: str | Path, network: str) -> ModelInfo:
    """The model block of a record.

    The metadata of the bundle, if there is one, names the digest and training data of the shipped weights. Weights
    converted from a published model name their source themselves, and adapted ones what they were adapted from. Nothing
    is known about any others.
    """
    weights_sha256 = sha256_of(checkpoint)
    metadata = Path(bundle_root) / METADATA
    shipped = json.loads(metadata.read_text(encoding="utf-8")).get("weights", {}) if metadata.is_file() else {}
    source = read_source(checkpoint) or {}
    adapted_to, first = source.pop("adapted_to", None), source.pop("adapted_from", weights_sha256)
    trained_on = shipped.get("trained_on") if first == shipped.get("sha256") else None
    return ModelInfo(
        BUNDLE_NAME, __version__, weights_sha256, network, trained_on, source if "model" in source else None, adapted_to
    )


def training_warnings(model: ModelInfo) -> list[str]:
    """What a reader has to know about the weights first; empty if nothing is known about them."""
    if model.published is not None:
        said = {key: model.published.get(key, "unknown") for key in ("model", "paper", "licence")}
        work = "and were not shown to work on others"
        adapted = "" if model.adapted_to is None else f", adapted to {model.adapted_to}, {work}"
        weights = f"These are the published weights of {said['model']} ({said['paper']}){adapted}"
        return [f"{weights}; licence: {said['licence']}"]
    if model.adapted_to is not None:
        first = "" if model.trained_on is None else f"trained only on {model.trained_on}, then "
        return [f"These weights were {first}adapted to {model.adapted_to}, and were not shown to work on others"]
    if model.trained_on is None:
        return []
    return [f"These weights were trained only on {model.trained_on}, and were not shown to work on scans of patients"]
