"""fVLM's published image tower as the start of a training run."""

from pathlib import Path

from torch import Tensor

from bundle.ctfindings.networks.checkpoint import read_checkpoint
from bundle.ctfindings.networks.image.vit_tower import VisionTransformerTower


def tower_to_ras(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights for scans in RAS+ from those for LPS+: kernel and positions are mirrored along X and Y.

    Attention ignores order, so a mirrored scan gives the same tokens at mirrored positions.
    """
    return {**state, "embed.weight": state["embed.weight"].flip(2, 3), "position": state["position"].flip(2, 3)}


def warm_started_fvlm_tower(ckpt_path: str | Path) -> VisionTransformerTower:
    """fVLM's image tower with the weights of a converted checkpoint; ``ValueError`` if it is missing or not fVLM's."""
    prefix = "image.tower."
    weights = read_checkpoint(Path(ckpt_path)).items()
    state = {key.removeprefix(prefix): value for key, value in weights if key.startswith(prefix)}
    if "position" not in state:
        raise ValueError(f"{ckpt_path}: no fVLM image tower found; convert one with scripts/convert_checkpoint.py")
    tower = VisionTransformerTower()
    tower.load_state_dict(tower_to_ras(state))
    return tower
