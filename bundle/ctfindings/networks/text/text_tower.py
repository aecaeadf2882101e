"""The text tower: a transformers encoder as trunk, and a small head per role that maps into the shared space."""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, AutoTokenizer, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

ROLES = ("report", "anatomy", "prompt", "sentence", "snippet")
"""What a text is for. All roles share one head, but ``snippet``, which has its own, as in RadFinder."""

POOLING, MAX_TOKENS = "mean", 256
"""How a trunk is read where nothing else is asked for."""


class TextHead(nn.Module):
    """Maps trunk features to unit vectors: a linear map, plus a residual perceptron that starts at zero.

    The linear part starts as a random orthogonal projection, so that at the start texts are as near to each other as
    the pretrained trunk says, and training has only to learn what the trunk confuses, such as negation.

    Args:
        features: width of the trunk.
        embedding: size E of the shared space.
        hidden: width of the perceptron.
    """

    def __init__(self, features: int, embedding: int, hidden: int) -> None:
        super().__init__()
        self.normalize = nn.LayerNorm(features)
        self.linear = nn.Linear(features, embedding)
        self.perceptron = nn.Sequential(nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, embedding))
        nn.init.orthogonal_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        last = cast(nn.Linear, self.perceptron[2])
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, features: Tensor) -> Tensor:
        """``[n, features]`` to unit vectors ``[n, E]``."""
        features = self.normalize(features)
        return F.normalize(self.linear(features) + self.perceptron(features), dim=-1)


def check_texts(texts: Sequence[str], role: str) -> None:
    """Refuses an unknown role, and no text at all.

    Raises:
        ValueError: for either.
    """
    if role not in ROLES:
        raise ValueError(f"role {role!r} is unknown; known are {', '.join(ROLES)}")
    if len(texts) == 0:
        raise ValueError("at least one text is needed")


class TextTower(nn.Module):
    """Any transformers encoder behind ``forward(texts, role)``.

    A frozen trunk (``trainable_layers`` 0) is not part of the checkpoint: it is named by the digest of its files and of
    how it is read (``pooling``, ``max_tokens``), and a checkpoint trained on another trunk is refused. Its features are
    computed once per distinct text and kept.

    Args:
        encoder: local folder or hub name of a transformers encoder; remote code is never run.
        embedding: size E of the shared space.
        hidden: width of the heads' perceptron.
        pooling: ``mean`` over tokens, ``cls`` (first token) or ``last`` token.
        trainable_layers: how many of the trunk's last layers are trained; -1 trains the whole trunk.
        max_tokens: texts are cut to this many word pieces, or to as many as the encoder has positions for.
        batch_size: texts per pass through the trunk.
        cache_size: how many texts' trunk features are kept in memory.
        from_scratch: configuration keys that override the encoder's, for a new trunk without pretrained weights.
        snippet_noise: spread of the noise on the trunk's features of a snippet in training, in standard deviations of
            the features. A study has few sentences that name a slice; with their wording blurred the head learns what
            they mean.

    Raises:
        ValueError: for an unknown pooling, an encoder that is not there or lacks weights, or a new trunk that is
            frozen.
    """

    trunk_digest: Tensor
    snippet_head_trained: Tensor

    def __init__(
        self,
        encoder: str,
        embedding: int = 128,
        hidden: int = 256,
        pooling: str = POOLING,
        trainable_layers: int = 0,
        max_tokens: int = MAX_TOKENS,
        batch_size: int = 16,
        cache_size: int = 100_000,
        from_scratch: dict | None = None,
        snippet_noise: float = 0.5,
    ) -> None:
        super().__init__()
        if pooling not in ("mean", "cls", "last"):
            raise ValueError(f"pooling {pooling!r} is unknown; known are mean, cls and last")
        if from_scratch is not None and trainable_layers == 0:
            raise ValueError("a text encoder from scratch has to be trained; set trainable_layers to -1")
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(encoder, trust_remote_code=False)
            config = AutoConfig.from_pretrained(encoder, trust_remote_code=False)
        except OSError as error:
            raise ValueError(
                f"{encoder}: no transformers encoder with its tokenizer is there; give its folder"
            ) from error
        self.trunk = _load_trunk(encoder, config) if from_scratch is None else _new_trunk(config, from_scratch)
        self.pooling = pooling
        self.max_tokens = min(max_tokens, self._longest_text())
        self.batch_size = batch_size
        self.cache_size = cache_size
        self.snippet_noise = snippet_noise
        self._cache: OrderedDict[str, Tensor] = OrderedDict()
        self.frozen = trainable_layers == 0
        self._freeze(trainable_layers)
        width = int(self.trunk.config.hidden_size)
        self.head = TextHead(width, embedding, hidden)
        self.snippet_head = copy.deepcopy(self.head)
        self.register_buffer(
            "trunk_digest", _digest(encoder, self._reading()) if self.frozen else torch.zeros(32, dtype=torch.uint8)
        )
        # Without slice references the snippet head stays as it began; whoever asks it where to look has to know.
        self.register_buffer("snippet_head_trained", torch.zeros(1, dtype=torch.uint8))
        self.register_load_state_dict_post_hook(_forgive_what_is_not_saved)

    def _reading(self) -> str:
        """How the trunk is read, as far as that is not the default, of which older weights say nothing."""
        default = min(MAX_TOKENS, self._longest_text())
        return "" if (self.pooling, self.max_tokens) == (POOLING, default) else f"{self.pooling} {self.max_tokens}"

    def _longest_text(self) -> int:
        """Word pieces that the tokenizer and the encoder take."""
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

    def train(self, mode: bool = True) -> TextTower:
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
                "the checkpoint was trained on another text encoder, or on one read otherwise; "
                "give the folder of that encoder as text_encoder, and its pooling and max_tokens"
            )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def features(self, texts: Sequence[str]) -> Tensor:
        """Trunk features of texts, ``[n, width]``; each distinct text is encoded once."""
        distinct = list(dict.fromkeys(texts))
        device = self.head.linear.weight.device
        if not self.frozen:
            # The order of length, so that a pass pads its texts little.
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
        """Uses what another tower on the same frozen trunk keeps, and adds to it; other trunks, and those that train,
        are left alone.
        """
        if self.frozen and other.frozen and torch.equal(self.trunk_digest.cpu(), other.trunk_digest.cpu()):
            self._cache = other._cache

    @contextmanager
    def resting_trunk(self) -> Iterator[None]:
        """While the heads alone learn, a trunk that is trained later is read as a frozen one: each text once, without
        gradient.
        """
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
        batch = self.tokenizer(
            texts, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(device)
        hidden = self.trunk(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1)
        if self.pooling == "mean":
            return (hidden * mask).sum(1) / mask.sum(1)
        if self.pooling == "cls":
            return hidden[:, 0]
        last = mask.squeeze(-1).cumsum(1).argmax(1)
        return hidden[torch.arange(len(texts), device=device), last]

    def forward(self, texts: Sequence[str], role: str = "prompt") -> Tensor:
        """Unit embeddings of texts.

        Args:
            texts: n texts.
            role: one of ``ROLES``.

        Returns:
            ``[n, E]``.

        Raises:
            ValueError: for an unknown role or no text.
        """
        check_texts(texts, role)
        features = self.features(texts)
        if role != "snippet":
            return self.head(features)
        if not self.training:
            return self.snippet_head(features)
        spread = self.snippet_noise * features.std(dim=1, keepdim=True)
        embedded: Tensor = self.snippet_head(features + spread * torch.randn_like(features))
        if embedded.requires_grad:
            embedded.register_hook(self._note_training)
        return embedded

    def _note_training(self, gradient: Tensor) -> None:
        """Snippets are encoded whenever a batch has some; only a gradient that arrives means that their head learns."""
        if gradient.any():
            self.snippet_head_trained.fill_(1)


def _chunks(texts: list[str], size: int) -> Iterator[list[str]]:
    return (texts[start : start + size] for start in range(0, len(texts), size))


def _forgive_what_is_not_saved(module: nn.Module, incompatible) -> None:  # type: ignore[no-untyped-def]
    """A frozen trunk, and the note that the snippet head was trained in weights older than the note: it was not."""
    forgiven = ("trunk.", "snippet_head_trained") if module.frozen else ("snippet_head_trained",)
    incompatible.missing_keys[:] = [
        key for key in incompatible.missing_keys if not any(part in key for part in forgiven)
    ]


def _without_pooler(config: PretrainedConfig) -> dict[str, bool]:
    """Keyword that leaves out the pooler, which this tower does not use, where the architecture knows it."""
    # transformers declares an instance where its mapping holds the class.
    architecture = cast(type[PreTrainedModel], MODEL_MAPPING[type(config)])
    known = inspect.signature(architecture.__init__).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in known else {}


def _load_trunk(encoder: str, config: PretrainedConfig) -> PreTrainedModel:
    with _quiet_transformers():
        trunk, info = AutoModel.from_pretrained(
            encoder,
            config=config,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
            **_without_pooler(config),
        )
    missing = sorted(info["missing_keys"])
    if missing:
        raise ValueError(
            f"{encoder}: the weights lack {len(missing)} tensors of the encoder, such as {missing[0]}; give a complete folder"
        )
    return trunk


def _new_trunk(config: PretrainedConfig, changes: dict) -> PreTrainedModel:
    config.update(changes)
    # The configuration may name half precision, in which the shipped weights are stored; a new trunk is trained in
    # single precision.
    return AutoModel.from_config(config, trust_remote_code=False, dtype=torch.float32, **_without_pooler(config))


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Without the progress bar and the report of tensors that the encoder does not use; errors are still raised."""
    verbosity, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bar:
            transformers_logging.enable_progress_bar()


def _digest(encoder: str, reading: str) -> Tensor:
    """SHA-256 over the weights and vocabulary of a local encoder, or over its name when it comes from the hub, and over
    how it is read; ``[32]`` bytes.
    """
    digest = hashlib.sha256()
    folder = Path(encoder)
    if folder.is_dir():
        for file in sorted(folder.iterdir()):
            if file.suffix in (".safetensors", ".bin") or file.name in ("tokenizer.json", "vocab.txt"):
                digest.update(file.name.encode())
                digest.update(file.read_bytes())
    else:
        digest.update(encoder.encode())
    digest.update(reading.encode())
    return torch.tensor(list(digest.digest()), dtype=torch.uint8)
