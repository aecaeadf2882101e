"""The published checkpoint of fVLM: its tensors and where they go."""

from __future__ import annotations

import torch
from torch import Tensor

from bundle.ctfindings.findings import FINDINGS
from bundle.ctfindings.networks.classifier import PromptBank
from bundle.ctfindings.published.checkpoint_conversion import Dropped, PublishedModel, Taken

WIDTH, DEPTH, EMBEDDING, PERCEPTRON = 768, 12, 256, 3072
PATCH, GRID = (16, 16, 32), (7, 16, 11)
VOCABULARY, POSITIONS = 30522, 512


def turn_patch_kernel(kernel: Tensor) -> Tensor:
    """Axes Z, Y, X of the file to our X, Y, Z, ``[d, 1, z, y, x]`` to ``[d, 1, x, y, z]``."""
    return kernel.permute(0, 1, 4, 3, 2)


def turn_positions(table: Tensor) -> Tensor:
    """The table of positions ``[1, N, d]``, X fastest, to our volume ``[1, d, gx, gy, gz]``."""
    return table.unflatten(1, GRID).permute(0, 4, 3, 2, 1)


def turn_to_ras(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The image tower for scans in RAS+, from that for LPS+: kernel and positions mirrored along X and Y.

    Attention does not see an order, so that a mirrored scan then gives the same tokens at mirrored places.

    Args:
        state: tensors of a ``VisionTransformerTower`` by name.
    """
    return {**state, "embed.weight": state["embed.weight"].flip(2, 3), "position": state["position"].flip(2, 3)}


def _norm(name: str, target: str) -> list[Taken]:
    return [Taken(f"{name}.{part}", (WIDTH,), f"{target}.{part}") for part in ("weight", "bias")]


def _linear(name: str, target: str, out: int = WIDTH, width: int = WIDTH) -> list[Taken]:
    return [Taken(f"{name}.weight", (out, width), f"{target}.weight"), Taken(f"{name}.bias", (out,), f"{target}.bias")]


def _image() -> list[Taken]:
    file, ours = "visual_encoder", "image.tower"
    grid = GRID[0] * GRID[1] * GRID[2]
    taken = [
        Taken(
            f"{file}.patch_embedding.patch_embeddings.weight",
            (WIDTH, 1, *PATCH),
            f"{ours}.embed.weight",
            turn_patch_kernel,
        ),
        Taken(f"{file}.patch_embedding.patch_embeddings.bias", (WIDTH,), f"{ours}.embed.bias"),
        Taken(f"{file}.patch_embedding.position_embeddings", (1, grid, WIDTH), f"{ours}.position", turn_positions),
        *_norm(f"{file}.norm", f"{ours}.norm"),
    ]
    for block in range(DEPTH):
        own, to = f"{file}.blocks.{block}", f"{ours}.blocks.{block}"
        taken += [
            *_norm(f"{own}.norm1", f"{to}.norm1"),
            *_linear(f"{own}.attn.qkv", f"{to}.attn.qkv", 3 * WIDTH),
            *_linear(f"{own}.attn.out_proj", f"{to}.attn.out_proj"),
            *_norm(f"{own}.norm2", f"{to}.norm2"),
            *_linear(f"{own}.mlp.linear1", f"{to}.mlp.linear1", PERCEPTRON),
            *_linear(f"{own}.mlp.linear2", f"{to}.mlp.linear2", WIDTH, PERCEPTRON),
        ]
    taken += [
        Taken("query_tokens", (4, WIDTH), "image.query"),
        Taken("attention.in_proj_weight", (3 * WIDTH, WIDTH), "image.attention.in_proj_weight"),
        Taken("attention.in_proj_bias", (3 * WIDTH,), "image.attention.in_proj_bias"),
        *_linear("attention.out_proj", "image.attention.out_proj"),
        Taken("temp", (), "scorer.temperature"),
    ]
    for organ in range(4):
        taken += _linear(f"vision_projs.{organ}", f"image.projections.{organ}", EMBEDDING)
    return taken


def _text() -> list[Taken]:
    file, ours = "text_encoder", "text.trunk"
    taken = [
        Taken(
            f"{file}.embeddings.word_embeddings.weight",
            (VOCABULARY, WIDTH),
            f"{ours}.embeddings.word_embeddings.weight",
        ),
        Taken(
            f"{file}.embeddings.position_embeddings.weight",
            (POSITIONS, WIDTH),
            f"{ours}.embeddings.position_embeddings.weight",
        ),
        *_norm(f"{file}.embeddings.LayerNorm", f"{ours}.embeddings.LayerNorm"),
        *_linear("text_proj", "text.head", EMBEDDING),
    ]
    for layer in range(DEPTH):
        own, to = f"{file}.encoder.layer.{layer}", f"{ours}.encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            taken += _linear(f"{own}.attention.self.{part}", f"{to}.attention.self.{part}")
        taken += [
            *_linear(f"{own}.attention.output.dense", f"{to}.attention.output.dense"),
            *_norm(f"{own}.attention.output.LayerNorm", f"{to}.attention.output.LayerNorm"),
            *_linear(f"{own}.intermediate.dense", f"{to}.intermediate.dense", PERCEPTRON),
            *_linear(f"{own}.output.dense", f"{to}.output.dense", WIDTH, PERCEPTRON),
            *_norm(f"{own}.output.LayerNorm", f"{to}.output.LayerNorm"),
        ]
    return taken


def fvlm() -> PublishedModel:
    """What is known of the checkpoint of fVLM."""
    bank = PromptBank(EMBEDDING, len(FINDINGS), templates=1)
    return PublishedModel(
        name="fVLM",
        source="the repository that the paper names",
        paper="https://arxiv.org/abs/2501.14548",
        licence="none stated: no right to use, change or pass on the weights was given; ask the authors",
        taken=[*_image(), *_text()],
        dropped=[
            Dropped(r"text_encoder\.embeddings\.position_ids", "positions are counted"),
            Dropped(r"text_encoder\.embeddings\.token_type_embeddings\.weight", "the text path adds no token type"),
            Dropped(r"text_encoder\.cls\..*", "head of masked-language training"),
            Dropped(r"text_encoder\..*\.crossattention\..*", "the text path has no cross-attention"),
        ],
        added={
            "text.trunk.embeddings.token_type_embeddings.weight": torch.zeros(2, WIDTH),
            **{f"bank.{name}": value for name, value in bank.state_dict().items()},
        },
    )
