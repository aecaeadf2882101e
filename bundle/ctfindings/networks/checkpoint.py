"""Checkpoints: which parts of a model file a module takes, and a refusal in words when it does not fit."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def load_checkpoint(modules: Mapping[str, nn.Module] | nn.Module, path: str | Path, assign: bool = False) -> None:
    """Loads the parts of a checkpoint that belong to the given modules; every tensor of theirs must be there.

    A bundle checkpoint holds ``image.*``, ``text.*``, ``scorer.*`` and ``bank.*``; a training checkpoint of Ignite
    holds the same below the key ``model``.

    Args:
        modules: a module, or modules by the prefix of their tensors (``{"text": tower}``).
        path: a file written by ``torch.save``.
        assign: whether the modules take the tensors of the file, which the system then reads as they are needed,
            instead of a copy. For large weights; the modules are on the CPU afterwards.

    Raises:
        ValueError: when the file is missing, is not a checkpoint of this bundle, or has another geometry.
    """
    path = Path(path)
    state = read_checkpoint(path)
    # A dictionary of modules loads like one module with these children.
    module = modules if isinstance(modules, nn.Module) else nn.ModuleDict(modules)
    names = list(dict.fromkeys(key.partition(".")[0] for key in module.state_dict()))
    part = {key: value for key, value in state.items() if key.partition(".")[0] in names}
    held = {key.partition(".")[0] for key in part}
    absent = [name for name in names if name not in held]
    if absent:
        raise ValueError(f"{path}: holds no tensors of {', '.join(absent)}; is it a checkpoint of this bundle?")
    try:
        module.load_state_dict(part, assign=assign)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{path}: does not fit this network ({reason}); use the configuration it was trained with"
        ) from error


def load_mapped(path: str | Path) -> Any:
    """What ``torch.save`` wrote, without executing anything in the file; of a large one, only the parts that are asked
    for are read.
    """
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Tensors of a checkpoint by name, read without executing anything in the file.

    Raises:
        ValueError: when the file is missing or is no dictionary of tensors.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such checkpoint; train one, or give its path as ckpt_path")
    try:
        state = load_mapped(path)
    except Exception as error:
        raise ValueError(
            f"{path}: cannot be read as a checkpoint; the file is damaged or not written by torch.save"
        ) from error
    state = state.get("model", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path}: holds no model tensors; is it a checkpoint of this bundle?")
    return {key.removeprefix("module."): value for key, value in state.items()}


def save_bundle_weights(path: str | Path, model: nn.Module, bank: nn.Module) -> str:
    """Writes the weights that ship with the bundle, and gives their SHA-256.

    Args:
        path: the file to write, whole or not at all.
        model: the image-text model.
        bank: its prompt bank with calibration and thresholds.
    """
    path = Path(path)
    state = {key: value.cpu() for key, value in model.state_dict().items()}
    state.update({f"bank.{key}": value.cpu() for key, value in bank.state_dict().items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name that no other process draws: two that write the same file leave one whole.
    partial = path.with_name(f".{uuid.uuid4().hex[:16]}.partial.{path.name}")
    try:
        torch.save(state, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return sha256_of(path)


def read_source(path: str | Path) -> dict[str, str] | None:
    """What a checkpoint says of where its weights come from (``convert_checkpoint``); None of one that says nothing."""
    try:
        content = load_mapped(path)
    except Exception:  # Whoever loads its tensors says so in words.
        return None
    source = content.get("source") if isinstance(content, dict) else None
    return {str(key): str(value) for key, value in source.items()} if isinstance(source, dict) else None


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
