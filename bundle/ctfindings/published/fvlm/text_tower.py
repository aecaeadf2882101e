"""fVLM's text tower: a BERT of base size without token types, its first token, and a linear map."""

from typing import Any

from torch import nn
from transformers import BertConfig, BertModel, BertTokenizer
from transformers.initialization import no_init_weights

from bundle.ctfindings.published.fvlm.image_encoder import EMBEDDING
from bundle.ctfindings.published.text_tower import PublishedTextTower, load_tokenizer


def fvlm_text_tower(tokenizer: str, **changes: Any) -> PublishedTextTower:
    """fVLM's text tower without weights; ``changes`` are keys of ``BertConfig`` that differ from BERT base.

    ``tokenizer`` is a folder or hub name of CXR-BERT (``microsoft/BiomedVLP-CXR-BERT-specialized``), for its
    vocabulary; ``ValueError`` if there is none or it belongs to another encoder.
    """
    config = BertConfig(**changes)
    # CXR-BERT names its own tokenizer class, which would be remote code; its vocabulary is that of a plain BERT.
    words = load_tokenizer(tokenizer, config.vocab_size, "vocab.txt of CXR-BERT", BertTokenizer)
    return PublishedTextTower(words, text_network(config), pooling="cls", max_tokens=384)


def text_network(config: BertConfig) -> nn.ModuleDict:
    """The encoder and its head, without weights."""
    with no_init_weights():
        trunk = BertModel(config, add_pooling_layer=False)
        return nn.ModuleDict({"trunk": trunk, "head": nn.Linear(config.hidden_size, EMBEDDING)})
