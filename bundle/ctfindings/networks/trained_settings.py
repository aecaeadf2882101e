"""Settings that weights depend on although no tensor shows them; a checkpoint keeps them."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class TrainedSettings(nn.Module):
    """Keys of the configuration in which weights are of use, such as the spacing; part of the checkpoint, as JSON.

    Weights load into another spacing without an error, and answer wrongly. So they are refused where a key has another
    value than in training. Keys that only the checkpoint or only the configuration has are kept and not compared.

    Args:
        settings: Values by key, as JSON can hold them.

    Raises:
        ValueError: A value cannot be written as JSON.
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
        trained = {} if kept is None else json.loads(bytes(kept.tolist()))
        other = [key for key, value in trained.items() if self.settings.get(key, value) != value]
        if other:
            pairs = (f"{key} {json.dumps(trained[key])}, not {json.dumps(self.settings[key])}" for key in other)
            raise ValueError(f"it was trained with {'; '.join(pairs)}")
        self.kept = _written({**trained, **self.settings}).to(self.kept.device)
        state_dict[f"{prefix}kept"] = self.kept
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _written(settings: Mapping[str, Any]) -> Tensor:
    return torch.tensor(list(json.dumps(settings, sort_keys=True).encode()), dtype=torch.uint8)
