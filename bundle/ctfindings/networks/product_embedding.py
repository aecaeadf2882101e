"""The product embedding: one part of each vector for the anatomy, the other for the disease."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ProductEmbedding(nn.Module):
    """Splits vectors into an anatomy part a and a disease part d, both of unit length: ``[sqrt(w) a, sqrt(1 - w) d]``.

    The similarity of two vectors is then ``w <a, a'> + (1 - w) <d, d'>``: between texts of one anatomy it rests on d,
    so anatomies can be separated in a at no cost to what tells normal from abnormal. It is ours, not CA-GCL's, whose
    contrast across anatomies acts on the whole vector.

    Args:
        anatomy_dimensions: Dimensions of a, the first ones.
        anatomy_weight: w.

    Raises:
        ValueError: There is no dimension in a, or the weight is not in [0, 1).
    """

    def __init__(self, anatomy_dimensions: int, anatomy_weight: float) -> None:
        super().__init__()
        if anatomy_dimensions < 1:
            raise ValueError(f"anatomy_dimensions: expected at least 1, got {anatomy_dimensions}")
        if not 0 <= anatomy_weight < 1:
            raise ValueError(f"anatomy_weight: expected a number from 0 to below 1, got {anatomy_weight}")
        self.anatomy_dimensions, self.anatomy_weight = anatomy_dimensions, anatomy_weight
        self.parts: Tensor
        # Part of the checkpoint: with other parts, its vectors would mean something else.
        self.register_buffer("parts", torch.tensor([float(anatomy_dimensions), anatomy_weight]))

    def forward(self, rows: Tensor) -> Tensor:
        """Vectors ``[..., E]`` to unit vectors; a zero vector stays zero."""
        anatomy, disease = rows[..., : self.anatomy_dimensions], rows[..., self.anatomy_dimensions :]
        return torch.cat(
            [
                self.anatomy_weight**0.5 * F.normalize(anatomy, dim=-1),
                (1 - self.anatomy_weight) ** 0.5 * F.normalize(disease, dim=-1),
            ],
            dim=-1,
        )

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        given = state_dict.get(f"{prefix}parts")
        if given is not None and not torch.allclose(given.cpu().float(), self.parts.cpu()):
            dimensions, weight = given.tolist()
            raise ValueError(
                f"the checkpoint has anatomy_dimensions {dimensions:.0f} and anatomy_weight {weight:g}; "
                "give these keys the same values"
            )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
