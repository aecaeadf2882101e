"""The format of RadFinder's published checkpoint."""

import tomllib
from pathlib import Path

import torch
from torch import Tensor
from transformers import Qwen3Config

from bundle.ctfindings.networks.classifier import PromptBank
from bundle.ctfindings.networks.scoring import FindingScorer
from bundle.ctfindings.published.checkpoint_format import PublishedCheckpoint, published_format
from bundle.ctfindings.published.radfinder.image_encoder import radfinder_image_encoder
from bundle.ctfindings.published.radfinder.text_tower import QWEN3_EMBEDDING, text_network


def radfinder_checkpoint() -> PublishedCheckpoint:
    """The format of RadFinder's published checkpoint."""
    with torch.device("meta"):
        image, text = radfinder_image_encoder(), text_network(Qwen3Config(**QWEN3_EMBEDDING))
        parts = {"image": image, "scorer": FindingScorer(tokens=False), "text": text}
    kernel = tuple(image.tower.embed.weight.shape)
    bank = PromptBank(image.embedding).state_dict(prefix="bank.")
    return published_format(
        tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")),
        parts,
        # Probabilities are the softmax of two cosines without a temperature.
        added={"scorer.log_row_scale": torch.zeros(()), **bank},
        layouts={"image.tower.embed.weight": {kernel: Tensor.float, (*kernel[:4], 8): fold_patch_kernel}},
    )


def fold_patch_kernel(kernel: Tensor) -> Tensor:
    """Sums neighbours of SPECTRE's kernel of depth 8, for slices of 1.5 mm, to depth 4, for slices of 3 mm."""
    return kernel.unflatten(-1, (-1, 2)).sum(dim=-1)
