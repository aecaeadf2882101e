"""Text tower of a published model: its weights come from the checkpoint, only its tokenizer from a folder or the hub.

Shapes: n texts, L tokens, d width of a token, E embedding.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from bundle.ctfindings.networks.text.text_tower import check_texts

BATCH_SIZE = 16  # Texts per pass.


class PublishedTextTower(nn.Module):
    """A transformers encoder with one or two heads, with the interface of ``TextTower``.

    Args:
        tokenizer: Tokenizer of the encoder.
        network: ``trunk`` (the encoder), ``head`` (features to embeddings, not normalized), perhaps ``snippet_head``.
        pooling: ``cls`` (first token) or ``last`` token.
        max_tokens: Number of tokens after which a text is cut off.
    """

    def __init__(self, tokenizer: Any, network: nn.ModuleDict, pooling: str, max_tokens: int = 512) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.trunk, self.head = network["trunk"], network["head"]
        if "snippet_head" in network:
            self.snippet_head = network["snippet_head"]
        self.register_buffer(
            "snippet_head_trained", torch.tensor(["snippet_head" in network], dtype=torch.uint8), persistent=False
        )
        self.pooling, self.max_tokens = pooling, max_tokens

    def pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Features ``[n, d]`` from hidden states ``[n, L, d]`` and the mask of real tokens ``[n, L]``."""
        if self.pooling == "cls":
            return hidden[:, 0]
        # The last real position, whichever side is padded.
        last = mask.shape[1] - 1 - mask.flip(1).long().argmax(dim=1)
        return hidden[torch.arange(len(hidden), device=hidden.device), last]

    def features(self, texts: Sequence[str]) -> Tensor:
        """Features of texts ``[n, d]``, in the given order; texts of similar length share a batch."""
        device = next(self.trunk.parameters()).device
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        parts = []
        for start in range(0, len(order), BATCH_SIZE):
            chunk = [texts[index] for index in order[start : start + BATCH_SIZE]]
            batch = self.tokenizer(
                chunk, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
            ).to(device)
            hidden = self.trunk(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
            parts.append(self.pool(hidden, batch["attention_mask"]))
        return torch.cat(parts)[torch.tensor(order, device=device).argsort()]

    def forward(self, texts: Sequence[str], role: str = "prompt") -> Tensor:
        """Unit embeddings ``[n, E]`` of texts in one of ``ROLES``; ``ValueError`` for another role or no texts."""
        check_texts(texts, role)
        head = getattr(self, "snippet_head", self.head) if role == "snippet" else self.head
        return F.normalize(head(self.features(texts)), dim=-1)


def load_tokenizer(folder: str, vocabulary: int, file: str, kind: type[Any] = AutoTokenizer) -> PreTrainedTokenizerBase:
    """The tokenizer of a text encoder; no code in its folder is executed.

    Args:
        folder: Folder or hub name of the encoder.
        vocabulary: Rows of the encoder's embedding table.
        file: File of the vocabulary, for error messages.
        kind: Tokenizer class.

    Raises:
        ValueError: There is no tokenizer, or its size shows that it belongs to another encoder.
    """
    missing = f"{folder}: no tokenizer found; set text_encoder to the folder with {file}, or online to its hub name"
    try:
        tokenizer: PreTrainedTokenizerBase = kind.from_pretrained(folder, trust_remote_code=False)
    except OSError as error:
        raise ValueError(missing) from error
    # For a name it does not find, transformers may create a tokenizer of special tokens only.
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ValueError(missing)
    if not vocabulary / 2 <= len(tokenizer) <= vocabulary:
        raise ValueError(
            f"{folder}: expected a tokenizer of at most {vocabulary} pieces, found {len(tokenizer)}; "
            f"set text_encoder to the folder with {file}"
        )
    return tokenizer
