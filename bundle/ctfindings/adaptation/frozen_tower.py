"""A frozen tower: its weights, and its tokens as part of a preprocessed scan, which a cache keeps."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.transforms import MapTransform
from torch import Tensor, nn

from bundle.ctfindings.networks.checkpoint import load_checkpoint, read_checkpoint, sha256_of
from bundle.ctfindings.networks.vision_language import VisionLanguageModel

TOWER = "image.tower."
NEW = f"{TOWER}reduce."
"""The linear map of a tower that the adaptation fits."""


def load_frozen(network: VisionLanguageModel, text_weights: str | Path, frozen_weights: str | Path) -> bool:
    """Loads the text tower, the image tower and, if the checkpoint has one, the head that adaptation starts from.

    Returns:
        Whether the head is new, because the checkpoint holds a tower only.

    Raises:
        ValueError: A checkpoint is missing or does not fit.
    """
    load_checkpoint({"text": network.text}, text_weights)
    state = read_checkpoint(Path(frozen_weights))
    own = {key: value for key, value in state.items() if key.startswith(("image.", "scorer."))}
    new = not any(key.startswith("image.field.") for key in own)
    wanted = [key for key in network.state_dict() if key.startswith(TOWER if new else ("image.", "scorer."))]
    if missing := [key for key in wanted if key not in own and not key.startswith(NEW)]:
        raise ValueError(
            f"{frozen_weights}: holds no {missing[0]}; give the weights of this image tower as frozen_weights"
        )
    try:
        network.load_state_dict(own, strict=False)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{frozen_weights}: does not fit this image tower ({reason})") from error
    return new


class FrozenLevelsd(MapTransform):
    """Adds the levels of tokens of a frozen tower, ``level_0``, ... ``[d, gx, gy, gz]``, in half precision.

    Args:
        tower: Image tower; gets the weights of the checkpoint.
        ckpt_path: Checkpoint with the tower; its digest is part of the key of the cache.

    Raises:
        ValueError: The checkpoint is missing or does not fit.
    """

    encodes = True
    """Random transforms of the image after this step would not reach the tokens; ``cached_dataset`` refuses them."""

    not_in_cache_key = ("tower",)

    def __init__(self, tower: nn.Module, ckpt_path: str | Path) -> None:
        super().__init__("image")
        state = read_checkpoint(Path(ckpt_path))
        own = {key.removeprefix(TOWER): value for key, value in state.items() if key.startswith(TOWER)}
        try:
            tower.load_state_dict(own)
        except RuntimeError as error:
            raise ValueError(
                f"{ckpt_path}: holds no weights of this image tower; give those of its configuration"
            ) from error
        self.digest, self.geometry = sha256_of(ckpt_path), str(tower)
        self.tower = tower.eval()

    @torch.no_grad()
    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        image = data["image"].as_tensor()[None].float()
        levels, grids = self.tower(image)
        found: dict[Hashable, Any] = {
            f"level_{index}": level[0].T.unflatten(1, grid).half().contiguous()
            for index, (level, grid) in enumerate(zip(levels, grids, strict=True))
        }
        return {**data, **found}


def frozen_levels(tower: nn.Module, study: Mapping[str, Any]) -> tuple[list[Tensor], list[list[int]]]:
    """Levels ``[1, N, d]`` and grids of a scan, from what its cache keeps; the last linear map is that of the tower."""
    if "third_stage" in study:
        third, fourth = (study[f"{which}_stage"][None].float() for which in ("third", "fourth"))
        levels, grids = tower.tokens(third, fourth)  # type: ignore[operator]
        return levels, grids
    names = sorted(name for name in study if name.startswith("level_"))
    return (
        [study[name][None].float().flatten(2).transpose(1, 2) for name in names],
        [list(study[name].shape[1:]) for name in names],
    )
