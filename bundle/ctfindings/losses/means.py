"""Means with the counts they are taken over, from which the means of joined parts of a batch follow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def with_counts(means: Sequence[Tensor], counts: Sequence[Tensor]) -> Tensor:
    """``[T, 2]`` of T scalar means and their counts, in single precision at least: half precision has no odd number
    above 256.
    """
    columns = torch.stack(list(means)), torch.stack(list(counts))
    kind = torch.promote_types(columns[0].dtype, torch.float32)
    return torch.stack([column.to(kind) for column in columns], dim=1)


def mean_of_parts(means: Tensor) -> Tensor:
    """The T means of a batch from those of its parts ``[P, T, 2]``, each weighed by its count; zero where nothing was
    counted.
    """
    mean, count = means.unbind(-1)
    return (mean * count).sum(0) / count.sum(0).clamp(min=1)
