"""The format of fVLM's published checkpoint."""

import math
import tomllib
from pathlib import Path

import torch
from torch import Tensor
from transformers import BertConfig

from bundle.ctfindings.networks.classifier import PromptBank
from bundle.ctfindings.published.checkpoint_format import PublishedCheckpoint, published_format
from bundle.ctfindings.published.fvlm.image_encoder import FvlmScorer, fvlm_image_encoder
from bundle.ctfindings.published.fvlm.text_tower import text_network

WIDTH = 768  # Width of a token in both towers.
PATCH, GRID = (16, 16, 32), (7, 16, 11)  # Voxels of a token, and tokens of a scan, along the file's axes Z, Y, X.


def fvlm_checkpoint() -> PublishedCheckpoint:
    """The format of fVLM's published checkpoint."""
    with torch.device("meta"):
        image = fvlm_image_encoder()
        parts = {"image": image, "scorer": FvlmScorer(), "text": text_network(BertConfig())}
    bank = PromptBank(image.embedding, templates=1).state_dict(prefix="bank.")
    return published_format(
        tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")),
        parts,
        added={"text.trunk.embeddings.token_type_embeddings.weight": torch.zeros(2, WIDTH), **bank},
        layouts={
            "image.tower.embed.weight": {(WIDTH, 1, *PATCH): kernel_to_xyz},
            "image.tower.position": {(1, math.prod(GRID), WIDTH): positions_to_xyz},
        },
    )


def kernel_to_xyz(kernel: Tensor) -> Tensor:
    """The patch kernel ``[d, 1, z, y, x]`` of the file as ``[d, 1, x, y, z]``."""
    return kernel.permute(0, 1, 4, 3, 2).contiguous()


def positions_to_xyz(table: Tensor) -> Tensor:
    """The position table ``[1, N, d]`` of the file, X fastest, as ``[1, d, gx, gy, gz]``."""
    return table.unflatten(1, GRID).permute(0, 4, 3, 2, 1).contiguous()
