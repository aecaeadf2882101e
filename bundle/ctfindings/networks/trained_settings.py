"""Settings that weights depend on although no tensor shows them; a checkpoint keeps them."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

KEPT_SETTINGS = ".settings.kept"
"""End of the name of ``TrainedSettings`` in a checkpoint, where a module calls them ``settings``."""

SIZE = 512
"""Bytes of the JSON. One size for all, because MONAI's ``copy_model_state`` passes over tensors of another shape."""


class TrainedSettings(nn.Module):
    """Settings of a module in which its weights are of use, such as the spacing; part of the checkpoint, as JSON.

    Weights load into another spacing without an error, and answer wrongly. So they are refused where a setting has
    another value than in training. Settings that only the checkpoint or only the module has are kept and not compared.

    Args:
        settings: Values by key of the configuration, as JSON can hold them.

    Raises:
        ValueError: The settings cannot be written as JSON of at most ``SIZE`` bytes.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        try:
            self.settings: dict[str, Any] = json.loads(json.dumps(dict(settings)))
        except TypeError as error:
            raise ValueError(f"settings: expected values of JSON; {error}") from error
        self.kept: Tensor
        self.register_buffer("kept", _written(self.settings))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """ValueError for other values. Checkpoints of earlier versions kept none."""
        kept = state_dict.get(f"{prefix}kept")
        trained = {} if kept is None else _read(kept)
        other = [key for key, value in trained.items() if self.settings.get(key, value) != value]
        if other:
            pairs = (f"{key} {json.dumps(trained[key])}, not {json.dumps(self.settings[key])}" for key in other)
            raise ValueError(f"it was trained with {'; '.join(pairs)}")
        state_dict[f"{prefix}kept"] = _written({**trained, **self.settings}).to(self.kept.device)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _written(settings: Mapping[str, Any]) -> Tensor:
    text = json.dumps(settings, sort_keys=True).encode()
    if len(text) > SIZE:
        raise ValueError(f"settings: expected at most {SIZE} bytes of JSON, got {len(text)}")
    return torch.tensor(list(text.ljust(SIZE)), dtype=torch.uint8)


def _read(kept: Tensor) -> dict[str, Any]:
    try:
        found = json.loads(bytes(kept.to(torch.uint8).tolist()))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError("its settings are damaged")
    return found
