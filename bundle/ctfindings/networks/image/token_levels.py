"""Scans as the token levels of a frozen tower, as part of a preprocessed scan that a cache keeps."""

import hashlib
import inspect
from collections.abc import Hashable, Mapping
from typing import Any

from monai.networks.utils import eval_mode
from monai.transforms import MapTransform
from torch import Tensor, nn

from bundle.ctfindings.networks.image.segmentation_decoder import token_volumes


def weights_digest(*parts: nn.Module | Tensor) -> str:
    """SHA-256 of the architecture, the code and the weights of modules, and of tensors.

    A cache key takes it for the modules themselves, because attributes that libraries add to them differ between runs.
    The code is that of the classes of this package, and not of the functions they call.
    """
    found = hashlib.sha256()
    for part in parts:
        tensors = {"": part} if isinstance(part, Tensor) else part.state_dict()
        found.update(b"" if isinstance(part, Tensor) else str(part).encode())
        classes = set() if isinstance(part, Tensor) else {type(module) for module in part.modules()}
        for source in sorted(inspect.getsource(each) for each in classes if each.__module__.startswith("bundle.")):
            found.update(source.encode())
        for name, value in tensors.items():
            found.update(name.encode())
            found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


class EncodeLevelsd(MapTransform):
    """Adds the token levels of a preprocessed scan: ``level_0``, the finest, and so on, [d, gx, gy, gz] float16.

    The frozen tower is on its device.
    """

    encodes = True
    """Random transforms of the image after this step would not reach the tokens; ``cached_dataset`` refuses them."""

    not_in_cache_key = ("tower",)

    def __init__(self, tower: nn.Module) -> None:
        super().__init__("image")
        self.tower, self.weights = tower, weights_digest(tower)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        image = data["image"].as_tensor()[None].to(next(self.tower.parameters()).device).float()
        # A trainer of what reads the levels may have set the tower to training, in which its statistics move.
        with eval_mode(self.tower):
            volumes = token_volumes(*self.tower(image))
        return {**data, **{f"level_{place}": value[0].half().cpu() for place, value in enumerate(volumes)}}


def levels_of(batch: Mapping[str, Any]) -> list[Tensor]:
    """The levels that ``EncodeLevelsd`` added to a study or a batch, finest first; none without it."""
    found: list[Tensor] = []
    while f"level_{len(found)}" in batch:
        found.append(batch[f"level_{len(found)}"])
    return found
