"""Text towers of published models: an encoder whose weights come with the model, and a tokenizer from a folder or the
hub.

Nothing but the tokenizer is read from the folder, and no code of it is run: the encoder is built here, without values,
and filled from the checkpoint.

Shapes: n texts, E embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoTokenizer, BertConfig, BertModel, BertTokenizer, PreTrainedModel, Qwen3Config, Qwen3Model
from transformers.initialization import no_init_weights

from bundle.ctfindings.networks.text.text_tower import check_texts
from bundle.ctfindings.published.radfinder.image_encoder import ProjectionHead


class PublishedTextTower(nn.Module):
    """A transformers encoder with a head, behind the interface of ``TextTower``.

    Args:
        tokenizer: of the encoder.
        trunk: the encoder.
        head: features to embeddings, not normalized.
        snippet_head: the same for the role ``snippet``; the first head by default.
        pooling: ``cls`` (first token) or ``last`` token.
        max_tokens: texts are cut to this many tokens.
        batch_size: texts in a pass.
    """

    def __init__(
        self,
        tokenizer: Any,
        trunk: PreTrainedModel,
        head: nn.Module,
        snippet_head: nn.Module | None = None,
        pooling: str = "cls",
        max_tokens: int = 512,
        batch_size: int = 16,
    ) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.trunk = trunk
        self.head = head
        if snippet_head is not None:
            self.snippet_head = snippet_head
        self.register_buffer(
            "snippet_head_trained", torch.tensor([snippet_head is not None], dtype=torch.uint8), persistent=False
        )
        self.pooling = pooling
        self.max_tokens = max_tokens
        self.batch_size = batch_size

    def pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """``[n, L, d]`` and the mask of real tokens ``[n, L]`` to features ``[n, d]``."""
        if self.pooling == "cls":
            return hidden[:, 0]
        # The last position that is real, whichever side is padded.
        last = mask.shape[1] - 1 - mask.flip(1).long().argmax(dim=1)
        return hidden[torch.arange(len(hidden), device=hidden.device), last]

    def features(self, texts: Sequence[str]) -> Tensor:
        """Features of texts, ``[n, d]``, in the order given; texts of like length share a batch."""
        device = next(self.trunk.parameters()).device
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        parts = []
        for start in range(0, len(order), self.batch_size):
            chunk = [texts[index] for index in order[start : start + self.batch_size]]
            batch = self.tokenizer(
                chunk, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
            ).to(device)
            hidden = self.trunk(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
            parts.append(self.pool(hidden, batch["attention_mask"]))
        back = torch.empty(len(order), dtype=torch.long, device=device)
        back[torch.tensor(order, device=device)] = torch.arange(len(order), device=device)
        return torch.cat(parts)[back]

    def forward(self, texts: Sequence[str], role: str = "prompt") -> Tensor:
        """Unit embeddings ``[n, E]`` of texts in a role, one of ``ROLES``.

        Raises:
            ValueError: for an unknown role or no text.
        """
        check_texts(texts, role)
        head = getattr(self, "snippet_head", self.head) if role == "snippet" else self.head
        return F.normalize(head(self.features(texts)), dim=-1)


def fvlm_text_tower(tokenizer: str, embedding: int = 256, **changes: Any) -> PublishedTextTower:
    """fVLM's text side: a BERT of base size without token types, its first token, and a linear map.

    Args:
        tokenizer: folder or hub name of CXR-BERT (``microsoft/BiomedVLP-CXR-BERT-specialized``), for its vocabulary.
        embedding: size E of the shared space.
        changes: keys of ``BertConfig`` that differ from BERT base.

    Raises:
        ValueError: when no vocabulary is there, or that of another encoder.
    """
    try:
        # CXR-BERT names a tokenizer class of its own, which would be remote code; its vocabulary is that of a plain
        # BERT.
        words = BertTokenizer.from_pretrained(tokenizer)
    except OSError as error:
        raise ValueError(_no_tokenizer(tokenizer, "vocab.txt of CXR-BERT")) from error
    config = BertConfig(**changes)
    _check_vocabulary(words, tokenizer, config.vocab_size, "vocab.txt of CXR-BERT")
    with no_init_weights():
        trunk = BertModel(config, add_pooling_layer=False)
        head = nn.Linear(config.hidden_size, embedding)
    return PublishedTextTower(words, trunk, head, pooling="cls", max_tokens=384)


def radfinder_text_tower(
    tokenizer: str, embedding: int = 512, hidden: int = 2048, bottleneck: int = 256, **changes: Any
) -> PublishedTextTower:
    """RadFinder's text side: an encoder of the shape of Qwen3-Embedding-0.6B, its last token, and two heads.

    Args:
        tokenizer: folder or hub name of the encoder (``Qwen/Qwen3-Embedding-0.6B``), for its vocabulary.
        embedding: size E of the shared space.
        hidden: width of the heads' perceptrons.
        bottleneck: width before the heads' last map.
        changes: keys of ``Qwen3Config`` that differ from Qwen3-Embedding-0.6B.

    Raises:
        ValueError: when no tokenizer is there, or that of another encoder.
    """
    try:
        words = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
    except OSError as error:
        raise ValueError(_no_tokenizer(tokenizer, "tokenizer.json of Qwen3-Embedding-0.6B")) from error
    shape = {
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
    config = Qwen3Config(**{**shape, **changes}, use_cache=False)
    _check_vocabulary(words, tokenizer, config.vocab_size, "tokenizer.json of Qwen3-Embedding-0.6B")
    with no_init_weights():
        trunk = Qwen3Model(config)
        heads = [ProjectionHead(config.hidden_size, embedding, hidden, bottleneck) for _ in range(2)]
    return PublishedTextTower(words, trunk, heads[0], heads[1], pooling="last", max_tokens=512)


def _check_vocabulary(words: Any, name: str, rows: int, what: str) -> None:
    """Refuses a tokenizer whose size tells that it belongs to another encoder; one of like size cannot be told apart."""
    # Where a name is not found, transformers may make a tokenizer of its special tokens alone.
    if len(words) <= len(words.all_special_ids):
        raise ValueError(_no_tokenizer(name, what))
    if not rows / 2 <= len(words) <= rows:
        raise ValueError(
            f"{name}: its tokenizer has {len(words)} pieces and the encoder {rows}; give the folder with {what} as text_encoder"
        )


def _no_tokenizer(name: str, what: str) -> str:
    return f"{name}: no tokenizer is there; give the folder with {what} as text_encoder, or its hub name where a network may be used"
