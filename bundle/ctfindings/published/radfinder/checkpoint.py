"""The published checkpoint of RadFinder: names, layouts and licence."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import Qwen3Config

from bundle.ctfindings.networks.classifier import PromptBank
from bundle.ctfindings.networks.scoring import FindingScorer
from bundle.ctfindings.published.checkpoint_format import PublishedCheckpoint, map_tensors
from bundle.ctfindings.published.radfinder.image_encoder import radfinder_image_encoder
from bundle.ctfindings.published.radfinder.text_tower import QWEN3_EMBEDDING, text_network

NAMES = {
    r"^image\.tower\.embed\.": "backbone_image.patch_embed.proj.",
    r"^image\.tower\.": "backbone_image.",
    r"^image\.combiner\.": "feature_comb_image.",
    r"^image\.retrieval_head\.": "projection_image.",
    r"^image\.disease_head\.": "projection_image_copy.",
    r"^scorer\.log_token_scale$": "criterion.t",
    r"^text\.trunk\.": "backbone_text.",
    r"^text\.head\.": "projection_text.",
    r"^text\.snippet_head\.": "projection_text_copy.",
    r"\.mlp\.linear(\d)\.": r".mlp.fc\1.",
}
"""Our names and those of the file."""


def radfinder_checkpoint() -> PublishedCheckpoint:
    """The format of RadFinder's published checkpoint."""
    with torch.device("meta"):
        image, text = radfinder_image_encoder(), text_network(Qwen3Config(**QWEN3_EMBEDDING))
        parts = {"image": image, "scorer": FindingScorer(tokens=False), "text": text}
    bank = PromptBank(image.embedding)
    added = {
        # Probabilities are the softmax of two cosines without a temperature.
        "scorer.log_row_scale": torch.zeros(()),
        **{f"bank.{name}": value for name, value in bank.state_dict().items()},
    }
    kernel = (*image.tower.embed.weight.shape[:4], 8)
    return PublishedCheckpoint(
        name="RadFinder",
        source="https://huggingface.co/lmb-freiburg/radfinder",
        paper="https://arxiv.org/abs/2603.02026",
        licence=(
            "CC BY-NC-SA 4.0: name the authors, no commercial use, pass changes on under the same terms; "
            "the terms of the data it was trained on apply too"
        ),
        mapping=map_tensors(
            parts, NAMES, added, alternatives={"image.tower.embed.weight": (kernel, fold_patch_kernel)}
        ),
        dropped={
            r"criterion\.b": "the bias of the contrast cancels in the difference of two prompts",
            r"backbone_text\..*\.lora_[AB]": "the adapter is contained in the weight beside it",
        },
        added=added,
        prefix="model.",
    )


def fold_patch_kernel(kernel: Tensor) -> Tensor:
    """Sums neighbours of SPECTRE's kernel of depth 8, for slices of 1.5 mm, to depth 4, for slices of 3 mm."""
    return kernel.unflatten(-1, (-1, 2)).sum(dim=-1)
