"""The published checkpoint of fVLM: names, layouts and licence."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import BertConfig

from bundle.ctfindings.networks.classifier import PromptBank
from bundle.ctfindings.published.checkpoint_format import PublishedCheckpoint, map_tensors
from bundle.ctfindings.published.fvlm.image_encoder import FvlmScorer, fvlm_image_encoder
from bundle.ctfindings.published.fvlm.text_tower import text_network

WIDTH = 768
PATCH, GRID = (16, 16, 32), (7, 16, 11)
"""Voxels of a token, and tokens of a scan, along the file's axes Z, Y, X."""

NAMES = {
    r"^image\.tower\.embed\.": "visual_encoder.patch_embedding.patch_embeddings.",
    r"^image\.tower\.position$": "visual_encoder.patch_embedding.position_embeddings",
    r"^image\.tower\.": "visual_encoder.",
    r"^image\.query$": "query_tokens",
    r"^image\.projections\.": "vision_projs.",
    r"^image\.attention\.": "attention.",
    r"^scorer\.temperature$": "temp",
    r"^text\.trunk\.": "text_encoder.",
    r"^text\.head\.": "text_proj.",
}
"""Our names and those of the file."""


def fvlm_checkpoint() -> PublishedCheckpoint:
    """The format of fVLM's published checkpoint."""
    with torch.device("meta"):
        image = fvlm_image_encoder()
        parts = {"image": image, "scorer": FvlmScorer(), "text": text_network(BertConfig())}
    bank = PromptBank(image.embedding, templates=1)
    added = {
        "text.trunk.embeddings.token_type_embeddings.weight": torch.zeros(2, WIDTH),
        **{f"bank.{name}": value for name, value in bank.state_dict().items()},
    }
    tokens = GRID[0] * GRID[1] * GRID[2]
    transforms = {
        "image.tower.embed.weight": ((WIDTH, 1, *PATCH), kernel_to_xyz),
        "image.tower.position": ((1, tokens, WIDTH), positions_to_xyz),
    }
    return PublishedCheckpoint(
        name="fVLM",
        source="the repository that the paper names",
        paper="https://arxiv.org/abs/2501.14548",
        licence="none stated: no right to use, change or pass on the weights was given; ask the authors",
        mapping=map_tensors(parts, NAMES, added, transforms),
        dropped={
            r"text_encoder\.embeddings\.position_ids": "positions are counted",
            r"text_encoder\.embeddings\.token_type_embeddings\.weight": "the text path adds no token type",
            r"text_encoder\.cls\..*": "head of masked-language training",
            r"text_encoder\..*\.crossattention\..*": "the text path has no cross-attention",
        },
        added=added,
    )


def kernel_to_xyz(kernel: Tensor) -> Tensor:
    """The patch kernel ``[d, 1, z, y, x]`` of the file as ``[d, 1, x, y, z]``."""
    return kernel.permute(0, 1, 4, 3, 2)


def positions_to_xyz(table: Tensor) -> Tensor:
    """The position table ``[1, N, d]`` of the file, X fastest, as ``[1, d, gx, gy, gz]``."""
    return table.unflatten(1, GRID).permute(0, 4, 3, 2, 1)
