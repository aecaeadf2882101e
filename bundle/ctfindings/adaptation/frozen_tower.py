"""A frozen tower: its weights, and its tokens as part of a preprocessed scan, which a cache keeps."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bundle.ctfindings.adaptation.last_stage import LastStage
from bundle.ctfindings.networks.checkpoint import load_checkpoint, read_checkpoint
from bundle.ctfindings.networks.image.token_levels import EncodeLevelsd, levels_of
from bundle.ctfindings.networks.trained_settings import KEPT_SETTINGS
from bundle.ctfindings.networks.vision_language import VisionLanguageModel

TOWER = "image.tower."
NEW = f"{TOWER}reduce."
"""The linear map of a tower that the adaptation fits."""


def load_frozen(network: VisionLanguageModel, text_weights: str | Path, frozen_weights: str | Path) -> bool:
    """Loads the text tower, the image tower and, if the checkpoint has one, the head that adaptation starts from.

    Settings of the scorer that the checkpoint keeps are not compared: how findings are scored is trained anew.

    Returns:
        Whether the head is new, because the checkpoint holds a tower only.

    Raises:
        ValueError: A checkpoint is missing or does not fit.
    """
    load_checkpoint({"text": network.text}, text_weights)
    state = read_checkpoint(Path(frozen_weights))
    own = {
        key: value
        for key, value in state.items()
        if key.startswith(("image.", "scorer.")) and not key.startswith("scorer.settings.")
    }
    new = not any(key.startswith("image.field.") for key in own)
    wanted = [key for key in network.state_dict() if key.startswith(TOWER if new else ("image.", "scorer."))]
    wanted = [key for key in wanted if not key.endswith(KEPT_SETTINGS)]
    if missing := [key for key in wanted if key not in own and not key.startswith(NEW)]:
        raise ValueError(
            f"{frozen_weights}: holds no {missing[0]}; give the weights of this image tower as frozen_weights"
        )
    try:
        network.load_state_dict(own, strict=False)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{frozen_weights}: does not fit this image tower ({reason}); give the configuration of these weights"
        ) from error
    return new


class FrozenLevelsd(EncodeLevelsd):
    """``EncodeLevelsd`` of a tower with the weights of a checkpoint.

    Args:
        tower: Image tower; gets the weights.
        ckpt_path: Checkpoint with the tower.

    Raises:
        ValueError: The checkpoint is missing or does not fit.
    """

    def __init__(self, tower: nn.Module, ckpt_path: str | Path) -> None:
        state = read_checkpoint(Path(ckpt_path))
        own = {key.removeprefix(TOWER): value for key, value in state.items() if key.startswith(TOWER)}
        try:
            tower.load_state_dict(own)
        except RuntimeError as error:
            raise ValueError(
                f"{ckpt_path}: holds no weights of this image tower; give those of its configuration"
            ) from error
        super().__init__(tower.eval())


def frozen_levels(
    tower: nn.Module, study: Mapping[str, Any], stage: LastStage | None = None
) -> tuple[list[Tensor], list[list[int]]]:
    """Levels ``[1, N, d]`` and grids of a scan, from what its cache keeps; the last linear map is that of the tower.

    Args:
        tower: Image tower.
        study: Study from the cache.
        stage: Blocks that were trained after the cache was made; they are run again.
    """
    if "third_stage" in study:
        third = study["third_stage"][None].float()
        fourth = study["fourth_stage"][None].float() if stage is None else stage.fourth(third)
        levels, grids = tower.tokens(third, fourth)  # type: ignore[operator]
        return levels, grids
    volumes = levels_of(study)
    levels = [volume[None].float().flatten(2).transpose(1, 2) for volume in volumes]
    return levels, [list(volume.shape[1:]) for volume in volumes]
