"""Conversion of a published checkpoint: each of its tensors is mapped, dropped by a rule, or an error."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bundle.ctfindings.networks.trained_settings import KEPT_SETTINGS

Layouts = Mapping[tuple[int, ...], Callable[[Tensor], Tensor]]
"""Shapes that a tensor may have in the published file, each with the function that brings it into our layout."""

SHOWN = 3  # Tensors that an error names before it counts the rest.


class MappedTensor(NamedTuple):
    """A tensor ``name`` that the published file must contain, and its name ``target`` in the bundle checkpoint."""

    name: str
    layouts: Layouts
    target: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The first shape that is accepted."""
        return next(iter(self.layouts))


@dataclass(frozen=True)
class PublishedCheckpoint:
    """Origin, licence and tensors of a published checkpoint.

    Attributes:
        source: Where its authors publish it.
        dropped: Reason for each pattern of tensor names that are left out; patterns match the whole name.
        added: Tensors of the bundle checkpoint that the published file does not contain.
        prefix: Prefix that all names of the file may have.
        without_prefix: Reason to drop the tensors without the prefix from a file that has it; without a reason a prefix
            counts only if all names have it.
    """

    name: str
    source: str
    paper: str
    licence: str
    mapping: Sequence[MappedTensor]
    dropped: Mapping[str, str]
    added: Mapping[str, Tensor]
    prefix: str = ""
    without_prefix: str = ""


@dataclass(frozen=True)
class Converted:
    """A published checkpoint as a bundle checkpoint.

    Attributes:
        state: Tensors by name, as ``load_checkpoint`` reads them.
        source: model, source, paper and licence; file and sha256 when read from a file.
        dropped: Reason for each dropped tensor, by name.
    """

    state: dict[str, Tensor]
    source: dict[str, str]
    dropped: dict[str, str]


def published_format(
    fields: Mapping[str, Any],
    parts: Mapping[str, nn.Module],
    added: Mapping[str, Tensor] | None = None,
    layouts: Mapping[str, Layouts] | None = None,
) -> PublishedCheckpoint:
    """The format of a checkpoint, with every tensor of a network mapped to its name in the published file.

    Args:
        fields: Fields of ``PublishedCheckpoint``, and ``names``: patterns of our names and what replaces them, applied
            in order.
        parts: Parts of the network by their name in the bundle checkpoint; the meta device is enough.
        added: Tensors that the file does not contain, such as those of the prompt bank.
        layouts: Layouts of the tensors that the file stores differently, by our name.
    """
    added, layouts = added or {}, layouts or {}
    named = {key: value for key, value in fields.items() if key != "names"}
    mapping = []
    for target, tensor in nn.ModuleDict(dict(parts)).state_dict().items():
        name = target
        for pattern, replacement in fields["names"].items():
            name = re.sub(pattern, replacement, name)
        if target not in added and not target.endswith(KEPT_SETTINGS):
            mapping.append(MappedTensor(name, layouts.get(target, {tuple(tensor.shape): Tensor.float}), target))
    return PublishedCheckpoint(**named, mapping=mapping, added=added)


def convert_tensors(checkpoint: PublishedCheckpoint, tensors: Mapping[str, Tensor], path: str | Path) -> Converted:
    """Converts the tensors of a published file; ``path`` is named in errors.

    ValueError if a tensor is missing, unexpected, of another shape, or not finite.
    """
    others: dict[str, str] = {}
    prefixed = [name for name in tensors if checkpoint.prefix and name.startswith(checkpoint.prefix)]
    if prefixed and (checkpoint.without_prefix or len(prefixed) == len(tensors)):
        others = {name: checkpoint.without_prefix for name in tensors if not name.startswith(checkpoint.prefix)}
        tensors = {name.removeprefix(checkpoint.prefix): tensors[name] for name in prefixed}
    dropped = others | _check(checkpoint, tensors, path)
    state = dict(checkpoint.added)
    for entry in checkpoint.mapping:
        tensor = tensors[entry.name]
        state[entry.target] = entry.layouts[tuple(tensor.shape)](tensor).float()
    source = {key: getattr(checkpoint, key) for key in ("source", "paper", "licence")}
    return Converted(state, {"model": checkpoint.name, **source}, dropped)


def _check(checkpoint: PublishedCheckpoint, tensors: Mapping[str, Tensor], path: str | Path) -> dict[str, str]:
    """Reasons for the dropped tensors of a file that fits; raises otherwise."""
    expected = {entry.name: entry for entry in checkpoint.mapping}
    missing = [f"{name} {entry.shape}" for name, entry in expected.items() if name not in tensors]
    dropped, unexpected, reshaped = {}, [], []
    for name, tensor in tensors.items():
        shape = tuple(tensor.shape)
        if name in expected:
            if shape not in (allowed := expected[name].layouts):
                reshaped.append(f"{name} has shape {shape}, expected {' or '.join(map(str, allowed))}")
        elif reason := next((why for rule, why in checkpoint.dropped.items() if re.fullmatch(rule, name)), None):
            dropped[name] = reason
        else:
            unexpected.append(f"{name} {shape}")
    groups = {"missing ": missing, "unexpected ": unexpected, "": reshaped}
    if not any(groups.values()):
        # A sum needs no memory, and is finite where all values are.
        groups["values that are not finite real numbers in "] = [
            name
            for name in expected
            if not (tensors[name].is_floating_point() or name.endswith("num_batches_tracked"))
            or not bool(tensors[name].sum(dtype=torch.float64).isfinite())
        ]
    problems = [start + _listed(names) for start, names in groups.items() if names]
    if problems:
        raise ValueError(
            f"{path}: not a checkpoint of {checkpoint.name}: {'; '.join(problems)}; "
            f"download it again from {checkpoint.source}"
        )
    return dropped


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
