"""A teacher of the token field: a slow copy of the image tower, whose tokens are targets of the training."""

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bundle.ctfindings.networks.image.image_encoder import ImageEncoder


class TokenTeacher(nn.Module):
    """Exponential moving average of an image tower and of the projection of its layer-normed tokens.

    The teacher is always in evaluation mode, and no gradient reaches it. ``update`` moves it; the first call copies
    the student, as a warm start or a checkpoint left it.

    Args:
        image: The student.
        momentum: Share of the teacher that a step keeps; 0.996 as in BYOL (https://arxiv.org/abs/2006.07733).
    """

    def __init__(self, image: ImageEncoder, momentum: float = 0.996) -> None:
        super().__init__()
        self.average = AveragedModel(_path(image), multi_avg_fn=get_ema_multi_avg_fn(momentum))
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        return super().train(False)

    def update(self, image: ImageEncoder) -> None:
        """Moves the weights by 1 - momentum of the way to those of the student, and copies its running statistics."""
        self.average.update_parameters(_path(image))

    @torch.no_grad()
    def forward(self, image: Tensor, third_stage: Tensor | None = None, fourth_stage: Tensor | None = None) -> Tensor:
        """Unit embeddings of the finest tokens, ``[B, N, E]``.

        Args:
            image: ``[B, 1, X, Y, Z]`` in [0, 1].
            third_stage, fourth_stage: Cached output of a frozen tower, which is read instead.
        """
        path: Any = self.average.module
        tower = path["tower"]
        levels, _ = tower(image) if third_stage is None else tower.tokens(third_stage, fourth_stage)
        return F.normalize(path["field"](levels[0]), dim=-1)


def _path(image: ImageEncoder) -> nn.ModuleDict:
    """The modules from the image to the token field."""
    return nn.ModuleDict({"tower": image.tower, "field": image.field})
