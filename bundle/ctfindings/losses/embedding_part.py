"""The part of an embedding that a loss reads, where a model splits its embedding (``networks.product_embedding``)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def check_dimensions(dimensions: Sequence[int] | None) -> tuple[int, int] | None:
    """First dimension of the part and the one behind its last, or None for the whole.

    Raises:
        ValueError: They are not two rising numbers.
    """
    if dimensions is None:
        return None
    if len(dimensions) != 2 or not 0 <= dimensions[0] < dimensions[1]:
        raise ValueError(f"dimensions: expected the first and the end of a part, got {list(dimensions)}")
    return dimensions[0], dimensions[1]


def embedding_part(rows: Tensor, dimensions: tuple[int, int] | None) -> Tensor:
    """Unit vectors of a part of vectors (..., E); the vectors themselves for the whole."""
    return rows if dimensions is None else F.normalize(rows[..., dimensions[0] : dimensions[1]], dim=-1)
