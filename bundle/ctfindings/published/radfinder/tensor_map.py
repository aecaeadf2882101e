"""The published checkpoint of RadFinder: its tensors and where they go."""

from __future__ import annotations

import torch
from torch import Tensor

from bundle.ctfindings.findings import FINDINGS, TEMPLATES
from bundle.ctfindings.networks.classifier import PromptBank
from bundle.ctfindings.published.checkpoint_conversion import Dropped, PublishedModel, Taken

WIDTH, PERCEPTRON, EMBEDDING = 1080, 4320, 512
WINDOW_BLOCKS, COMBINER_BLOCKS, PERIODS = 24, 4, 15
HIDDEN, BOTTLENECK = 2048, 256
PATCH = (16, 16, 4)
TEXT_WIDTH, TEXT_LAYERS, TEXT_PERCEPTRON, TEXT_QUERIES, TEXT_KEYS, TEXT_HEAD, VOCABULARY = (
    1024,
    28,
    3072,
    2048,
    1024,
    128,
    151669,
)


def fold_patch_kernel(kernel: Tensor) -> Tensor:
    """SPECTRE's kernel of depth 8, for slices of 1.5 mm, as one of depth 4 for slices of 3 mm: neighbours are added."""
    return kernel.unflatten(-1, (-1, 2)).sum(dim=-1)


def _norm(name: str, target: str) -> list[Taken]:
    return [Taken(f"{name}.{part}", (WIDTH,), f"{target}.{part}") for part in ("weight", "bias")]


def _linear(name: str, target: str, out: int, width: int) -> list[Taken]:
    return [Taken(f"{name}.weight", (out, width), f"{target}.weight"), Taken(f"{name}.bias", (out,), f"{target}.bias")]


def _blocks(file: str, ours: str, count: int) -> list[Taken]:
    taken = [
        Taken(f"{file}.cls_token", (1, 1, WIDTH), f"{ours}.cls_token"),
        Taken(f"{file}.rope.periods", (PERIODS,), f"{ours}.rope.periods"),
        *_norm(f"{file}.norm", f"{ours}.norm"),
    ]
    for block in range(count):
        own, to = f"{file}.blocks.{block}", f"{ours}.blocks.{block}"
        taken += [
            *_norm(f"{own}.norm1", f"{to}.norm1"),
            *_linear(f"{own}.attn.q", f"{to}.attn.q", WIDTH, WIDTH),
            *_linear(f"{own}.attn.kv", f"{to}.attn.kv", 2 * WIDTH, WIDTH),
            *_linear(f"{own}.attn.proj", f"{to}.attn.proj", WIDTH, WIDTH),
            Taken(f"{own}.ls1.gamma", (WIDTH,), f"{to}.ls1.gamma"),
            *_norm(f"{own}.norm2", f"{to}.norm2"),
            *_linear(f"{own}.mlp.fc1", f"{to}.mlp.linear1", PERCEPTRON, WIDTH),
            *_linear(f"{own}.mlp.fc2", f"{to}.mlp.linear2", WIDTH, PERCEPTRON),
            Taken(f"{own}.ls2.gamma", (WIDTH,), f"{to}.ls2.gamma"),
        ]
    return taken


def _head(file: str, ours: str, features: int) -> list[Taken]:
    weight = "last_layer.parametrizations.weight"
    return [
        *_linear(f"{file}.layers.0", f"{ours}.layers.0", HIDDEN, features),
        *_linear(f"{file}.layers.2", f"{ours}.layers.2", HIDDEN, HIDDEN),
        *_linear(f"{file}.layers.4", f"{ours}.layers.4", BOTTLENECK, HIDDEN),
        Taken(f"{file}.{weight}.original0", (EMBEDDING, 1), f"{ours}.{weight}.original0"),
        Taken(f"{file}.{weight}.original1", (EMBEDDING, BOTTLENECK), f"{ours}.{weight}.original1"),
    ]


def _image() -> list[Taken]:
    window, combiner = "backbone_image", "feature_comb_image"
    return [
        Taken(f"{window}.patch_embed.proj.weight", (WIDTH, 1, *PATCH), "image.tower.embed.weight"),
        Taken(f"{window}.patch_embed.proj.bias", (WIDTH,), "image.tower.embed.bias"),
        *_blocks(window, "image.tower", WINDOW_BLOCKS),
        *_linear(f"{combiner}.patch_proj", "image.combiner.patch_proj", WIDTH, 2 * WIDTH),
        *_linear(f"{combiner}.axis_patch_proj", "image.combiner.axis_patch_proj", WIDTH, WIDTH),
        *_blocks(combiner, "image.combiner", COMBINER_BLOCKS),
        *_head("projection_image", "image.retrieval_head", 2 * WIDTH),
        *_head("projection_image_copy", "image.disease_head", 2 * WIDTH),
        Taken("criterion.t", (), "scorer.log_token_scale"),
    ]


def _text() -> list[Taken]:
    file, ours = "backbone_text", "text.trunk"
    taken = [
        Taken(f"{file}.embed_tokens.weight", (VOCABULARY, TEXT_WIDTH), f"{ours}.embed_tokens.weight"),
        Taken(f"{file}.norm.weight", (TEXT_WIDTH,), f"{ours}.norm.weight"),
        *_head("projection_text", "text.head", TEXT_WIDTH),
        *_head("projection_text_copy", "text.snippet_head", TEXT_WIDTH),
    ]
    shapes = {
        "input_layernorm": (TEXT_WIDTH,),
        "post_attention_layernorm": (TEXT_WIDTH,),
        "mlp.gate_proj": (TEXT_PERCEPTRON, TEXT_WIDTH),
        "mlp.up_proj": (TEXT_PERCEPTRON, TEXT_WIDTH),
        "mlp.down_proj": (TEXT_WIDTH, TEXT_PERCEPTRON),
        "self_attn.q_proj": (TEXT_QUERIES, TEXT_WIDTH),
        "self_attn.k_proj": (TEXT_KEYS, TEXT_WIDTH),
        "self_attn.v_proj": (TEXT_KEYS, TEXT_WIDTH),
        "self_attn.o_proj": (TEXT_WIDTH, TEXT_QUERIES),
        "self_attn.q_norm": (TEXT_HEAD,),
        "self_attn.k_norm": (TEXT_HEAD,),
    }
    for layer in range(TEXT_LAYERS):
        taken += [
            Taken(f"{file}.layers.{layer}.{name}.weight", shape, f"{ours}.layers.{layer}.{name}.weight")
            for name, shape in shapes.items()
        ]
    return taken


def radfinder() -> PublishedModel:
    """What is known of the checkpoint of RadFinder."""
    bank = PromptBank(EMBEDDING, len(FINDINGS), len(TEMPLATES))
    return PublishedModel(
        name="RadFinder",
        source="https://huggingface.co/lmb-freiburg/radfinder",
        paper="https://arxiv.org/abs/2603.02026",
        licence=(
            "CC BY-NC-SA 4.0: name the authors, no commercial use, pass changes on under the same terms; "
            "the terms of the data it was trained on apply too"
        ),
        taken=[*_image(), *_text()],
        dropped=[
            Dropped(r"criterion\.b", "the bias of the contrast cancels in the difference of two prompts"),
            Dropped(r"backbone_text\..*\.lora_[AB]", "the adapter is contained in the weight beside it"),
        ],
        added={
            # Probabilities are the softmax of two cosines without a temperature.
            "scorer.log_row_scale": torch.zeros(()),
            **{f"bank.{name}": value for name, value in bank.state_dict().items()},
        },
        prefix="model.",
        folds={"backbone_image.patch_embed.proj.weight": ((WIDTH, 1, 16, 16, 8), fold_patch_kernel)},
    )
