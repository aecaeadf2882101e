"""Readers of the reference packs beside the checkout: parameters by formula, recorded arrays, and the comparison with
them.

The packs hold names, shapes, a formula that fills every parameter, and arrays that the published code computed from
such parameters.
"""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

PACKS = Path(__file__).resolve().parents[3] / "shared" / "reference"
LIMIT = 1e-5
"""Largest deviation that passes, as a share of the largest value of the recorded array."""


def pack_folder(name: str) -> Path:
    """Folder of a pack; the test is skipped where it is absent."""
    if not (PACKS / name).is_dir():
        pytest.skip(f"no reference pack beside the checkout (../shared/reference/{name})")
    return PACKS / name


def noise(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform noise of mean 0 and variance 1 that depends on the name alone, float64."""
    generator = np.random.RandomState(zlib.crc32(name.encode("utf-8")))
    return (2.0 * generator.random_sample(shape) - 1.0) * np.sqrt(3.0)


def published_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a published checkpoint, as the pack lists them."""
    folder = pack_folder(name)
    rows = [line.split("\t") for line in (folder / f"{name}_state_dict.tsv").read_text(encoding="utf-8").splitlines()]
    return {
        row[0]: tuple(int(size) for size in row[1].strip("()").split(",") if size.strip())
        for row in rows
        if row[1].startswith("(")
    }


def filled(name: str, shape: tuple[int, ...]) -> Tensor:
    """The value that the formulas of both packs give to a tensor of a published checkpoint."""
    name = name.removeprefix("model.")
    constants = {"temp": 0.07, "criterion.t": 2.3026, "criterion.b": -10.0}
    if name in constants:
        return torch.full(shape, constants[name])
    if name.endswith("position_ids"):
        return torch.arange(shape[-1]).reshape(shape)
    if name.endswith("rope.periods"):
        base = 1000.0 if name.startswith("backbone_image") else 100.0
        return torch.from_numpy((base ** (np.arange(shape[0]) / 15.0)).astype(np.float32))
    name = name.replace("cls.predictions.decoder.weight", "embeddings.word_embeddings.weight").replace(
        "predictions.decoder.bias", "predictions.bias"
    )
    values = noise(name, shape)
    if name.endswith(".gamma"):
        values = 0.5 + 0.1 * values
    elif name.endswith("original0") or (len(shape) == 1 and name.endswith(".weight")):
        values = 1 + 0.1 * values
    elif len(shape) == 1:
        values = 0.05 * values
    elif name != "query_tokens" and not name.endswith("cls_token"):
        values = 0.03 * values
    return torch.from_numpy(values.astype(np.float32))


def assert_recorded(actual: Any, recorded: Any, limit: float = LIMIT, name: str = "") -> None:
    """Fails when a value deviates from the recorded one by more than the limit, as a share of the largest recorded
    value.
    """
    expected = torch.as_tensor(np.asarray(recorded)).double()
    found = torch.as_tensor(actual).detach().double()
    assert found.shape == expected.shape, f"{name} shape {tuple(found.shape)} and not {tuple(expected.shape)}"
    largest = float(expected.abs().max())
    deviation = float((found - expected).abs().max()) / largest
    assert deviation <= limit, f"{name} deviates by {deviation:.2e} of the largest recorded value {largest:.4g}"


def assert_filled_as_recorded(folder: Path, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Fails when the formula above does not give the bytes that the pack was computed with."""
    rows = [line.split("\t") for line in (folder / f"{name}_fill_crc32.tsv").read_text(encoding="utf-8").splitlines()]
    recorded = {row[0]: row[-1] for row in rows}
    for tensor_name, tensor in tensors.items():
        crc = zlib.crc32(tensor.numpy().tobytes())
        assert recorded[tensor_name] in (str(crc), f"{crc:08x}", f"0x{crc:08x}"), tensor_name
