"""Loads a transformers encoder as the trunk of a text tower."""

import hashlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, AutoTokenizer, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging


def load_encoder(encoder: str, from_scratch: dict[str, Any] | None) -> tuple[Any, PreTrainedModel]:
    """The tokenizer and the trunk of an encoder; remote code is never run.

    Args:
        encoder: Local folder or hub name.
        from_scratch: Configuration keys of a new trunk without pretrained weights; None loads the weights.

    Raises:
        ValueError: The encoder is missing or lacks weights.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(encoder, trust_remote_code=False)
        config = AutoConfig.from_pretrained(encoder, trust_remote_code=False)
    except OSError as error:
        raise ValueError(f"{encoder}: no transformers encoder with its tokenizer found; give its folder") from error
    if from_scratch is not None:
        config.update(from_scratch)
        # The configuration may name half precision, in which the shipped weights are stored.
        new = AutoModel.from_config(config, trust_remote_code=False, dtype=torch.float32, **_without_pooler(config))
        return tokenizer, new
    options: dict[str, Any] = {"trust_remote_code": False, "dtype": torch.float32, "output_loading_info": True}
    with _quiet_transformers():
        trunk, info = AutoModel.from_pretrained(encoder, config=config, **options, **_without_pooler(config))
    if missing := sorted(info["missing_keys"]):
        raise ValueError(
            f"{encoder}: the weights lack {len(missing)} tensors of the encoder, such as {missing[0]}; "
            "give a complete folder"
        )
    return tokenizer, trunk


def encoder_digest(encoder: str) -> Tensor:
    """SHA-256 of the weights and vocabulary of a local encoder, or of the name of one from the hub; ``[32]`` bytes."""
    digest = hashlib.sha256()
    folder = Path(encoder)
    if folder.is_dir():
        for file in sorted(folder.iterdir()):
            if file.suffix in (".safetensors", ".bin") or file.name in ("tokenizer.json", "vocab.txt"):
                digest.update(file.name.encode())
                digest.update(file.read_bytes())
    else:
        digest.update(encoder.encode())
    return torch.tensor(list(digest.digest()), dtype=torch.uint8)


def _without_pooler(config: PretrainedConfig) -> dict[str, bool]:
    """The keyword that leaves out the unused pooler, for architectures that know it."""
    # transformers declares an instance where its mapping holds the class.
    architecture = cast(type[PreTrainedModel], MODEL_MAPPING[type(config)])
    known = inspect.signature(architecture.__init__).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in known else {}


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Hides the progress bar and the report of unused tensors."""
    verbosity, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bar:
            transformers_logging.enable_progress_bar()
