"""Checkpoints: reading and writing model files, with an error in one line if a file does not fit."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bundle.ctfindings.files.atomic_write import atomic_path

OPTIONAL_PARTS = ("domain",)
"""Parts that checkpoints of earlier versions, converted ones and training checkpoints lack."""

TRAINING_PARTS = ("correlation", "teacher")
"""Parts that only training reads. Files of ``save_bundle_weights`` lack them; they then keep their initial values."""

LARGE = 2**16
"""Values of a tensor from which it is stored in bfloat16 if that loses nothing."""


def load_checkpoint(modules: Mapping[str, nn.Module] | nn.Module, path: str | Path, assign: bool = False) -> None:
    """Loads the parts of a checkpoint that belong to the given modules; all their tensors must be in the file.

    A bundle checkpoint holds ``image.*``, ``text.*``, ``scorer.*``, ``bank.*`` and ``domain.*``; a training checkpoint
    holds the first three under the key ``model``.

    Args:
        modules: A module, or modules by the prefix of their tensors (``{"text": tower}``).
        path: File written by ``torch.save``.
        assign: Whether the modules use the memory-mapped tensors of the file instead of copies, for large weights. The
            modules are on the CPU afterwards.

    Raises:
        ValueError: The file is missing, is not a checkpoint of this bundle, or has another geometry or other
            settings (``TrainedSettings``).
    """
    path = Path(path)
    state = read_checkpoint(path)
    # A dictionary of modules loads like one module with these children.
    module = modules if isinstance(modules, nn.Module) else nn.ModuleDict(modules)
    names = list(dict.fromkeys(key.partition(".")[0] for key in module.state_dict()))
    part = {key: value for key, value in state.items() if key.partition(".")[0] in names}
    held = {key.partition(".")[0] for key in part}
    anew = {key: value for key, value in module.state_dict().items() if key.partition(".")[0] in TRAINING_PARTS}
    part = {key: value for key, value in anew.items() if key.partition(".")[0] not in held} | part
    if absent := [name for name in names if name not in held and name not in OPTIONAL_PARTS + TRAINING_PARTS]:
        if absent == ["bank"]:
            remedy = "export it with configs/evaluate.json and --export_path (docs/train_on_your_data.md)"
            raise ValueError(f"{path}: is a training checkpoint, without prompts and thresholds; {remedy}")
        raise ValueError(f"{path}: holds no tensors of {', '.join(absent)}; give a checkpoint of this bundle")
    try:
        module.load_state_dict(part, assign=assign)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{path}: does not fit this network ({reason}); use the configuration it was trained with"
        ) from error


def load_mapped(path: str | Path) -> Any:
    """What ``torch.save`` wrote, memory-mapped, without executing anything in the file."""
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Tensors of a checkpoint by name, read without executing anything in the file.

    ValueError if the file is missing or is not a dictionary of tensors.
    """
    if not path.is_file():
        remedy = "start in the root folder of the bundle, or give its path as ckpt_path"
        raise ValueError(f"{path}: no such checkpoint; {remedy}")
    try:
        state = load_mapped(path)
    except Exception as error:
        problem = "cannot be read as a checkpoint; the file is damaged, or was not written by torch.save"
        raise ValueError(f"{path}: {problem}: copy it again") from error
    state = state.get("model", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path}: holds no model tensors; give a checkpoint of this bundle")
    return {key.removeprefix("module."): value for key, value in state.items()}


def save_bundle_weights(
    path: str | Path,
    model: nn.Module,
    bank: nn.Module,
    domain: nn.Module | None = None,
    source: Mapping[str, str] | None = None,
) -> str:
    """Writes an image-text model, its prompt bank and its domain, whole or not at all; returns the file's SHA-256.

    ``TRAINING_PARTS`` are left out. ``source`` is the note that ``read_source`` reads, if there is one.
    """
    named = {key: value for key, value in model.state_dict().items() if key.partition(".")[0] not in TRAINING_PARTS}
    for prefix, part in (("bank", bank), ("domain", domain)):
        named |= {f"{prefix}.{key}": value for key, value in part.state_dict().items()} if part is not None else {}
    state = compact({key: value.cpu() for key, value in named.items()})
    # Into an open file: PyTorch writes the name of a path into the file, and that of the partial file is random.
    with atomic_path(Path(path)) as partial, partial.open("wb") as file:
        torch.save({"model": state, "source": dict(source)} if source else state, file)
    return sha256_of(path)


def adapted_source(path: str | Path, patients: Sequence[str]) -> dict[str, str]:
    """The note of weights that were adapted from a checkpoint to scans, given by the patient of each."""
    source = {"adapted_from": sha256_of(path), **(read_source(path) or {})}
    counts = ((len(patients), "scan"), (len(set(patients)), "patient"))
    scans = " of ".join(f"{count} {name}{'s' * (count != 1)}" for count, name in counts)
    return {**source, "adapted_to": ", then ".join(filter(None, [source.get("adapted_to"), scans]))}


def compact(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, large ones in bfloat16 where that changes no value: published weights that were stored so."""
    result = dict(state)
    for key, value in state.items():
        if value.dtype == torch.float32 and value.numel() >= LARGE:
            short = value.bfloat16()
            result[key] = short if torch.equal(short.float(), value) else value
    return result


def read_source(path: str | Path) -> dict[str, str] | None:
    """The origin of the weights that ``convert_checkpoint`` or an adaptation noted in a checkpoint; None without one.

    ``adapted_from`` is the SHA-256 of the first weights that were adapted, ``adapted_to`` says to what.
    """
    try:
        content = load_mapped(path)
    except Exception:  # The error of loading its tensors explains more.
        return None
    source = content.get("source") if isinstance(content, dict) else None
    return {str(key): str(value) for key, value in source.items()} if isinstance(source, dict) else None


def read_validations(path: str | Path) -> list[dict[str, float]]:
    """Metrics of each validation of a training, as ``RunCheckpoint`` keeps them; empty for other checkpoints."""
    content = load_mapped(path)
    return list(content.get("validations", ())) if isinstance(content, dict) else []


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
