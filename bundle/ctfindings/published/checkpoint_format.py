"""The tensors of a published checkpoint, and their conversion: each one is mapped, dropped by a rule, or an error."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

Transform = tuple[tuple[int, ...], Callable[[Tensor], Tensor]]
"""The shape of a tensor in the published file, and the function that brings it into our layout."""

SHOWN = 3
"""Number of tensors that an error names before it counts the rest."""


@dataclass(frozen=True)
class MappedTensor:
    """A tensor that the published file must contain.

    Attributes:
        name: Name in the published file.
        shape: Shape in the published file.
        target: Name in the bundle checkpoint.
        transform: Brings the tensor into our layout; None copies it.
        alternative: A second shape that is accepted, with its own transform.
    """

    name: str
    shape: tuple[int, ...]
    target: str
    transform: Callable[[Tensor], Tensor] | None = None
    alternative: Transform | None = None


@dataclass(frozen=True)
class PublishedCheckpoint:
    """Origin, licence and tensors of a published checkpoint.

    Attributes:
        name: Name of the model.
        source: Where its authors publish it.
        paper: URL of the paper.
        licence: Licence of the weights, in plain words.
        mapping: Tensors that are converted.
        dropped: Reason for each pattern of tensor names that are left out; patterns match the whole name.
        added: Tensors of the bundle checkpoint that the published file does not contain.
        prefix: Prefix that all names of the file may have.
    """

    name: str
    source: str
    paper: str
    licence: str
    mapping: Sequence[MappedTensor]
    dropped: Mapping[str, str]
    added: Mapping[str, Tensor]
    prefix: str = ""


@dataclass(frozen=True)
class Converted:
    """A published checkpoint as a bundle checkpoint.

    Attributes:
        state: Tensors by name, as ``load_checkpoint`` reads them.
        source: Origin: model, source, paper, licence, and file and sha256 when read from a file.
        dropped: Names of the dropped tensors, with the reason.
    """

    state: dict[str, Tensor]
    source: dict[str, str]
    dropped: dict[str, str]


def map_tensors(
    parts: Mapping[str, nn.Module],
    names: Mapping[str, str],
    added: Mapping[str, Tensor],
    transforms: Mapping[str, Transform] | None = None,
    alternatives: Mapping[str, Transform] | None = None,
) -> list[MappedTensor]:
    """Maps every tensor of a network to its name in the published file.

    Args:
        parts: Parts of the network by their name in the bundle checkpoint; the meta device is enough.
        names: Regular expressions of our names and what replaces them, applied one after the other.
        added: Tensors that the file does not contain.
        transforms: Tensors that the file stores in another layout, by our name.
        alternatives: Second layouts that are accepted, by our name.
    """
    mapping = []
    for target, tensor in nn.ModuleDict(dict(parts)).state_dict().items():
        if target in added:
            continue
        name = target
        for pattern, replacement in names.items():
            name = re.sub(pattern, replacement, name)
        shape, transform = (transforms or {}).get(target, (tuple(tensor.shape), None))
        mapping.append(MappedTensor(name, shape, target, transform, (alternatives or {}).get(target)))
    return mapping


def convert_tensors(checkpoint: PublishedCheckpoint, tensors: Mapping[str, Tensor], path: str | Path) -> Converted:
    """Converts the tensors of a published file; ``path`` is named in errors.

    Raises:
        ValueError: A tensor is missing, unexpected, of another shape, or not finite.
    """
    if checkpoint.prefix and all(name.startswith(checkpoint.prefix) for name in tensors):
        tensors = {name.removeprefix(checkpoint.prefix): tensor for name, tensor in tensors.items()}
    dropped = _check(checkpoint, tensors, path)
    state = dict(checkpoint.added)
    for entry in checkpoint.mapping:
        tensor, transform = tensors[entry.name], entry.transform
        if entry.alternative and tuple(tensor.shape) == entry.alternative[0]:
            transform = entry.alternative[1]
        state[entry.target] = (transform(tensor).contiguous() if transform else tensor).float()
    source = {key: getattr(checkpoint, key) for key in ("source", "paper", "licence")}
    return Converted(state, {"model": checkpoint.name, **source}, dropped)


def _check(checkpoint: PublishedCheckpoint, tensors: Mapping[str, Tensor], path: str | Path) -> dict[str, str]:
    """Names and reasons of the dropped tensors of a file that fits; raises otherwise."""
    expected = {entry.name: entry for entry in checkpoint.mapping}
    missing = [f"{name} {entry.shape}" for name, entry in expected.items() if name not in tensors]
    dropped, unexpected, reshaped = {}, [], []
    for name, tensor in tensors.items():
        shape = tuple(tensor.shape)
        if name in expected:
            entry = expected[name]
            allowed = [entry.shape, *([entry.alternative[0]] if entry.alternative else [])]
            if shape not in allowed:
                reshaped.append(f"{name} has shape {shape}, expected {' or '.join(map(str, allowed))}")
        elif reason := next((why for rule, why in checkpoint.dropped.items() if re.fullmatch(rule, name)), None):
            dropped[name] = reason
        else:
            unexpected.append(f"{name} {shape}")
    problems = [
        *([f"missing {_listed(missing)}"] if missing else []),
        *([f"unexpected {_listed(unexpected)}"] if unexpected else []),
        *([_listed(reshaped)] if reshaped else []),
    ]
    if not problems:
        # A sum needs no memory, and is finite where all values are.
        damaged = [
            name
            for name in expected
            if not tensors[name].is_floating_point() or not bool(tensors[name].sum(dtype=torch.float64).isfinite())
        ]
        problems = [f"values that are not finite real numbers in {_listed(damaged)}"] if damaged else []
    if problems:
        raise ValueError(
            f"{path}: not a checkpoint of {checkpoint.name}: {'; '.join(problems)}; "
            f"download it again from {checkpoint.source}"
        )
    return dropped


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
