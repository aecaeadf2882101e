"""The text tower: a transformers encoder as trunk, and heads that map its features into the shared space."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.ctfindings.networks.product_embedding import ProductEmbedding
from bundle.ctfindings.networks.text.pretrained_encoder import encoder_digest, load_encoder

ROLES = ("report", "anatomy", "prompt", "sentence", "snippet")
"""What a text is for. All roles share one head except ``snippet``, which has its own, as in RadFinder."""

MAX_TOKENS, BATCH_SIZE, CACHE_SIZE = 256, 16, 100_000
"""Word pieces that are read at once, texts of a pass through the trunk, and texts whose features are kept."""

SNIPPET_NOISE = 0.5
"""Noise on the trunk features of a snippet in training, in standard deviations of the features. A study has few
snippets; with their wording blurred, the head learns what they mean."""


class TextHead(nn.Module):
    """Maps trunk features to unit vectors: a linear map plus a residual perceptron that starts at zero.

    The linear map starts as a random orthogonal projection: texts start as close to each other as the pretrained trunk
    puts them, and training only has to learn what the trunk confuses, such as negation.

    Args:
        features: Width of the trunk.
        embedding: Size E of the shared space.
        hidden: Width of the perceptron.
    """

    def __init__(self, features: int, embedding: int, hidden: int) -> None:
        super().__init__()
        self.normalize = nn.LayerNorm(features)
        self.linear = nn.Linear(features, embedding)
        self.perceptron = nn.Sequential(nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, embedding))
        nn.init.orthogonal_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        for parameter in self.perceptron[2].parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Tensor:
        """``[n, features]`` to unit vectors ``[n, E]``."""
        features = self.normalize(features)
        return F.normalize(self.linear(features) + self.perceptron(features), dim=-1)


def check_texts(texts: Sequence[str], role: str) -> None:
    """Raises a ValueError for an unknown role or an empty list."""
    if role not in ROLES:
        raise ValueError(f"role {role!r} is unknown; known are {', '.join(ROLES)}")
    if len(texts) == 0:
        raise ValueError("expected at least one text, got none")


class TextTower(nn.Module):
    """Any transformers encoder, mean-pooled over its tokens, behind ``forward(texts, role)``.

    A text of more than ``MAX_TOKENS`` word pieces, as most whole reports of a hospital are, is read in windows of that
    many, and the mean is that of all windows; with a tokenizer that is written in Python, it is cut.

    A frozen trunk (``trainable_layers`` 0) is not part of the checkpoint: the checkpoint holds the digest of its files,
    and does not load on another trunk. Its features are computed once per distinct text.

    Args:
        encoder: Local folder or hub name of a transformers encoder; remote code is never run.
        embedding: Size E of the shared space.
        hidden: Width of the perceptron of the heads.
        trainable_layers: Number of last layers of the trunk to train; -1 trains the whole trunk.
        from_scratch: Configuration keys of a new trunk without pretrained weights.
        parts: Splits the embeddings into parts; None leaves them whole.

    Raises:
        ValueError: The encoder is missing or lacks weights, or a new trunk is frozen.
    """

    trunk_digest: Tensor
    snippet_head_trained: Tensor

    def __init__(
        self,
        encoder: str,
        embedding: int = 128,
        hidden: int = 256,
        trainable_layers: int = 0,
        from_scratch: dict[str, Any] | None = None,
        parts: ProductEmbedding | None = None,
    ) -> None:
        super().__init__()
        self.parts = nn.Identity() if parts is None else parts
        if from_scratch is not None and trainable_layers == 0:
            raise ValueError("a text encoder from scratch must be trained; set trainable_layers to -1")
        self.tokenizer, self.trunk = load_encoder(encoder, from_scratch)
        self.max_tokens = min(MAX_TOKENS, self._longest_text())
        self.batch_size, self.cache_size, self.snippet_noise = BATCH_SIZE, CACHE_SIZE, SNIPPET_NOISE
        self._cache: OrderedDict[str, Tensor] = OrderedDict()
        self.frozen = trainable_layers == 0
        self._freeze(trainable_layers)
        self.head = TextHead(int(self.trunk.config.hidden_size), embedding, hidden)
        self.snippet_head = copy.deepcopy(self.head)
        digest = encoder_digest(encoder) if self.frozen else torch.zeros(32, dtype=torch.uint8)
        self.register_buffer("trunk_digest", digest)
        # Without slice references the snippet head is untrained, and localization has to say so.
        self.register_buffer("snippet_head_trained", torch.zeros(1, dtype=torch.uint8))
        self.register_load_state_dict_post_hook(_allow_missing)

    def _longest_text(self) -> int:
        """Word pieces that the tokenizer and the encoder accept."""
        positions = getattr(self.trunk.config, "max_position_embeddings", 0)
        longest = int(self.tokenizer.model_max_length)
        return min(longest, positions) if positions > 0 else longest

    def _freeze(self, trainable_layers: int) -> None:
        if trainable_layers < 0:
            return
        self.trunk.requires_grad_(False)
        layers = list(cast(nn.ModuleList, cast(nn.Module, self.trunk.encoder).layer)) if trainable_layers else []
        for layer in layers[max(len(layers) - trainable_layers, 0) :]:
            layer.requires_grad_(True)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.frozen:
            self.trunk.eval()
        return self

    def state_dict(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        state = super().state_dict(*args, **kwargs)
        if self.frozen:
            for key in [key for key in state if ".trunk." in key or key.startswith("trunk.")]:
                del state[key]
        return state

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        digest = state_dict.get(f"{prefix}trunk_digest")
        if self.frozen and digest is not None and not torch.equal(digest.cpu(), self.trunk_digest.cpu()):
            raise ValueError(
                "the checkpoint was trained on another text encoder; give the folder of that encoder as text_encoder"
            )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def features(self, texts: Sequence[str]) -> Tensor:
        """Trunk features of texts, ``[n, width]``; each distinct text is encoded once."""
        distinct = list(dict.fromkeys(texts))
        device = self.head.linear.weight.device
        if not self.frozen:
            # Texts of similar length share a pass, which then has little padding.
            distinct.sort(key=len)
            encoded = torch.cat([self._encode(chunk, device) for chunk in _chunks(distinct, self.batch_size)])
        else:
            missing = sorted((text for text in distinct if text not in self._cache), key=len)
            for chunk in _chunks(missing, self.batch_size):
                with torch.no_grad():
                    self._cache.update(zip(chunk, self._encode(chunk, device).cpu().unbind(0), strict=True))
            encoded = torch.stack([self._cache[text] for text in distinct]).to(device)
            for text in distinct:
                self._cache.move_to_end(text)
            while len(self._cache) > self.cache_size:
                self._cache.popitem(last=False)
        position = {text: index for index, text in enumerate(distinct)}
        return encoded[torch.tensor([position[text] for text in texts], device=device)]

    def adopt_features(self, other: TextTower) -> None:
        """Shares the stored features of another tower on the same frozen trunk; does nothing for other trunks."""
        if self.frozen and other.frozen and torch.equal(self.trunk_digest.cpu(), other.trunk_digest.cpu()):
            self._cache = other._cache

    @contextmanager
    def frozen_trunk(self) -> Iterator[None]:
        """Treats a trained trunk as frozen, so that each text is encoded once while only the heads learn."""
        if self.frozen:
            yield
            return
        training = self.trunk.training
        self.frozen = True
        self.trunk.eval()
        try:
            yield
        finally:
            self.frozen = False
            self.trunk.train(training)
            self._cache.clear()

    def _encode(self, texts: list[str], device: torch.device) -> Tensor:
        options = {"padding": True, "truncation": True, "max_length": self.max_tokens, "return_tensors": "pt"}
        windows = self.tokenizer(texts, return_overflowing_tokens=True, **options).to(device)
        # Tokenizers that are written in Python know no windows, and cut the text.
        text = windows.pop("overflow_to_sample_mapping", torch.arange(len(texts), device=device))
        sums, counts = [], []
        for start in range(0, len(text), self.batch_size):
            part = {name: rows[start : start + self.batch_size] for name, rows in windows.items()}
            mask = part["attention_mask"].unsqueeze(-1)
            sums.append((self.trunk(**part).last_hidden_state * mask).sum(1))
            counts.append(mask.sum(1))
        added, counted = torch.cat(sums), torch.cat(counts)
        total = added.new_zeros(len(texts), added.shape[1]).index_add(0, text, added)
        return total / counted.new_zeros(len(texts), 1).index_add(0, text, counted)

    def forward(self, texts: Sequence[str], role: str = "prompt") -> Tensor:
        """Unit embeddings ``[n, E]`` of n texts in a role, one of ``ROLES``.

        ValueError for an unknown role or no text.
        """
        check_texts(texts, role)
        features = self.features(texts)
        if role != "snippet":
            return self.parts(self.head(features))
        if self.training:
            features = features + self.snippet_noise * features.std(dim=1, keepdim=True) * torch.randn_like(features)
        embedded: Tensor = self.parts(self.snippet_head(features))
        if self.training and embedded.requires_grad:
            embedded.register_hook(self._note_training)
        return embedded

    def _note_training(self, gradient: Tensor) -> None:
        """Marks the snippet head as trained when a gradient arrives; snippets are also encoded without their loss."""
        if gradient.any():
            self.snippet_head_trained.fill_(1)


def _chunks(texts: list[str], size: int) -> Iterator[list[str]]:
    return (texts[start : start + size] for start in range(0, len(texts), size))


def _allow_missing(module: nn.Module, incompatible) -> None:  # type: ignore[no-untyped-def]
    """Allows a checkpoint without the frozen trunk, and without the mark of a trained snippet head."""
    allowed = ("trunk.", "snippet_head_trained") if module.frozen else ("snippet_head_trained",)
    missing = incompatible.missing_keys
    missing[:] = [key for key in missing if not any(part in key for part in allowed)]
