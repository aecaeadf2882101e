"""RadFinder's text tower: the encoder of Qwen3-Embedding-0.6B, its last token, and two heads."""

from typing import Any

from torch import nn
from transformers import Qwen3Config, Qwen3Model
from transformers.initialization import no_init_weights

from bundle.ctfindings.published.radfinder.image_encoder import ProjectionHead
from bundle.ctfindings.published.text_tower import PublishedTextTower, load_tokenizer

QWEN3_EMBEDDING: dict[str, Any] = {
    "vocab_size": 151669,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
}
"""Configuration of Qwen3-Embedding-0.6B."""


def radfinder_text_tower(tokenizer: str, **changes: Any) -> PublishedTextTower:
    """RadFinder's text tower without weights; ``changes`` are keys of ``Qwen3Config`` that differ from the published.

    ``tokenizer`` is a folder or hub name of the encoder (``Qwen/Qwen3-Embedding-0.6B``), for its vocabulary;
    ``ValueError`` if there is none or it belongs to another encoder.
    """
    config = Qwen3Config(**{**QWEN3_EMBEDDING, **changes}, use_cache=False)
    words = load_tokenizer(tokenizer, config.vocab_size, "tokenizer.json of Qwen3-Embedding-0.6B")
    return PublishedTextTower(words, text_network(config), pooling="last")


def text_network(config: Qwen3Config) -> nn.ModuleDict:
    """The encoder and both heads, without weights."""
    with no_init_weights():
        trunk = Qwen3Model(config)
        heads = {name: ProjectionHead(config.hidden_size) for name in ("head", "snippet_head")}
        return nn.ModuleDict({"trunk": trunk, **heads})
