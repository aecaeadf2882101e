"""Means with their counts, which give the means of a joined batch."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.modules.loss import _Loss


class MeanLoss(_Loss):
    """A sum of ``means`` over the scans of a batch, which ``CompositeLoss`` also takes of parts of a batch."""

    means: Callable[..., Tensor]

    def forward(self, *rows: Tensor, **named: Tensor) -> Tensor:
        """The sum of the means; zero, without gradient, if nothing takes part. Arguments: those of ``means``."""
        return self.means(*rows, **named)[:, 0].sum()


def with_counts(means: Sequence[Tensor], counts: Sequence[Tensor]) -> Tensor:
    """T scalar means and their counts, ``[T, 2]``, in single precision or better: bfloat16 cannot count to 257."""
    columns = torch.stack(list(means)), torch.stack(list(counts))
    kind = torch.promote_types(columns[0].dtype, torch.float32)
    return torch.stack([column.to(kind) for column in columns], dim=1)


def mean_of_parts(means: Tensor) -> Tensor:
    """The T means of a batch from those of its P parts, ``[P, T, 2]``; zero where the count is zero."""
    mean, count = means.unbind(-1)
    return (mean * count).sum(0) / count.sum(0).clamp(min=1)
