"""Published checkpoints into bundle checkpoints: every tensor of the file is used, named as dropped, or refused by
name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bundle.ctfindings.networks.checkpoint import load_mapped, sha256_of

SHOWN = 3
"""How many tensors an error names before it counts the rest."""


@dataclass(frozen=True)
class Taken:
    """A tensor that a published file must hold.

    Attributes:
        name: in the published file.
        shape: in the published file.
        target: in the bundle checkpoint.
        turn: brings it into our layout; as it is by default.
    """

    name: str
    shape: tuple[int, ...]
    target: str
    turn: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Dropped:
    """Tensors that a published file may hold and that are left out.

    Attributes:
        pattern: regular expression of the whole name.
        reason: why, in a few words.
    """

    pattern: str
    reason: str


@dataclass(frozen=True)
class PublishedModel:
    """What is known of a published checkpoint.

    Attributes:
        name: of the model.
        source: where the group publishes it.
        paper: address of the paper.
        licence: of the weights, in plain words.
        taken: the tensors of the file that are used.
        dropped: the tensors that are not.
        added: tensors of the bundle checkpoint that no file holds.
        prefix: that all names of the file may carry.
        folds: tensors with a second shape that is accepted and folded into the first, by name.
    """

    name: str
    source: str
    paper: str
    licence: str
    taken: Sequence[Taken]
    dropped: Sequence[Dropped]
    added: Mapping[str, Tensor]
    prefix: str = ""
    folds: Mapping[str, tuple[tuple[int, ...], Callable[[Tensor], Tensor]]] | None = None


@dataclass(frozen=True)
class Converted:
    """A published checkpoint in the bundle's form.

    Attributes:
        state: tensors by name, as ``load_checkpoint`` reads them.
        source: where it came from: model, file, sha256, licence, paper.
        dropped: names that were left out, with the reason.
    """

    state: dict[str, Tensor]
    source: dict[str, str]
    dropped: dict[str, str]


def convert_checkpoint(model: PublishedModel, path: str | Path) -> Converted:
    """Reads a published checkpoint strictly.

    Args:
        model: which one it is.
        path: a file of ``torch.save``, a safetensors file, or a folder with one or with shards and their index.

    Raises:
        ValueError: when the file cannot be read, lacks a tensor, holds one that the model does not have, one of another
            shape, or values that are no finite real numbers.
    """
    files = _files(Path(path))
    converted = convert_tensors(model, _read(files, Path(path)), path)
    hashes = {"file": ", ".join(file.name for file in files), "sha256": ", ".join(sha256_of(file) for file in files)}
    return replace(converted, source={**converted.source, **hashes})


def convert_tensors(model: PublishedModel, tensors: Mapping[str, Tensor], where: str | Path) -> Converted:
    """As ``convert_checkpoint``, from tensors that were read already; ``where`` they came from stands in front of an
    error.
    """
    if model.prefix and all(name.startswith(model.prefix) for name in tensors):
        tensors = {name.removeprefix(model.prefix): tensor for name, tensor in tensors.items()}
    dropped = _check(model, tensors, where)
    state = {}
    for entry in model.taken:
        tensor = tensors[entry.name]
        if tuple(tensor.shape) != entry.shape:
            tensor = (model.folds or {})[entry.name][1](tensor)
        state[entry.target] = (tensor if entry.turn is None else entry.turn(tensor).contiguous()).float()
    state.update(model.added)
    source = {"model": model.name, "source": model.source, "paper": model.paper, "licence": model.licence}
    return Converted(state, source, dropped)


def _check(model: PublishedModel, tensors: Mapping[str, Tensor], path: str | Path) -> dict[str, str]:
    """Refuses a file that does not fit; otherwise the tensors that are left out, with the reason."""
    wanted = {entry.name: entry for entry in model.taken}
    folds = model.folds or {}
    missing = [f"{name} {entry.shape}" for name, entry in wanted.items() if name not in tensors]
    dropped, unknown, reshaped = {}, [], []
    for name, tensor in tensors.items():
        shape = tuple(tensor.shape)
        if name in wanted:
            allowed = [wanted[name].shape, *([folds[name][0]] if name in folds else [])]
            if shape not in allowed:
                reshaped.append(f"{name} has shape {shape} and not {' or '.join(map(str, allowed))}")
            continue
        reasons = [rule.reason for rule in model.dropped if re.fullmatch(rule.pattern, name)]
        if reasons:
            dropped[name] = reasons[0]
        else:
            unknown.append(f"{name} {shape}")
    problems = [
        *([f"lacks {_listed(missing)}"] if missing else []),
        *([f"holds {_listed(unknown)}, which {model.name} does not have"] if unknown else []),
        *([_listed(reshaped)] if reshaped else []),
    ]
    if not problems:
        # A sum takes no memory, and is finite where all values are.
        values = ((name, tensors[name]) for name in wanted)
        damaged = [
            name
            for name, own in values
            if not own.is_floating_point() or not bool(own.sum(dtype=torch.float64).isfinite())
        ]
        problems = [f"holds values that are no finite real numbers in {_listed(damaged)}"] if damaged else []
    if problems:
        raise ValueError(
            f"{path}: is not a checkpoint of {model.name}: {'; '.join(problems)}; download it again from {model.source}"
        )
    return dropped


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(path.glob("*.safetensors"))
        if not files:
            raise ValueError(
                f"{path}: holds no .safetensors file; give the folder of the download, or the checkpoint file itself"
            )
        index = path / "model.safetensors.index.json"
        if index.is_file():
            try:
                named = {path / name for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{index}: is not the index of a checkpoint in shards; download it again") from error
            absent = sorted(file.name for file in named if not file.is_file())
            if absent:
                raise ValueError(f"{path}: lacks {', '.join(absent)}, which its index names; download it again")
            files = sorted(named)
        return files
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; give the checkpoint that was downloaded")
    return [path]


def _read(files: Sequence[Path], path: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            part = _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickle(file)
        except UnpicklingError as error:
            raise ValueError(
                f"{file}: holds more than tensors and plain values, and is not read because that could run code"
            ) from error
        except (SafetensorError, RuntimeError, OSError, EOFError, KeyError, ValueError, AttributeError) as error:
            raise ValueError(f"{file}: cannot be read as a checkpoint; download it again") from error
        tensors.update(part)
    if not tensors or not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()):
        raise ValueError(f"{path}: holds no tensors under 'model'; give the checkpoint that was downloaded")
    return tensors


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    with safe_open(file, framework="pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


def _read_pickle(file: Path) -> dict[str, Any]:
    content = load_mapped(file)
    state = content.get("model", content)
    return state if isinstance(state, dict) else {}
