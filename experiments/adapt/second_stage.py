"""The second stage of Astra's encoder beside the third and fourth: a grid of 8 x 8 x 4 voxels, for what is small."""

from collections.abc import Hashable, Mapping
from typing import Any

from torch import Tensor

from bundle.ctfindings.published.astra import frozen_tokens
from bundle.ctfindings.published.astra.frozen_tokens import FrozenTokensd


class ThreeStagesd(FrozenTokensd):
    """``FrozenTokensd`` that also adds ``second_stage``, [C2, x, y, z] in half.

    Token i of the second stage lies at voxel 8 i of the image without its border.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        kept: list[Tensor] = []
        layer = frozen_tokens._tower(self.ckpt_path).network.layer2
        hook = layer.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
        try:
            study = super().__call__(data)
        finally:
            hook.remove()
        return {**study, "second_stage": kept[0][0].permute(0, 2, 3, 1).half().contiguous()}
