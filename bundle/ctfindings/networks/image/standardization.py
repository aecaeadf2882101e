"""Standardisation of features by running statistics."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def frozen_statistics(network: nn.Module) -> Iterator[None]:
    """Freezes the running statistics of a network, for a pass that should not count."""
    changing = [item for item in standardizations(network) if not item.frozen]
    for item in changing:
        item.frozen = True
    try:
        yield
    finally:
        for item in changing:
            item.frozen = False


class RunningStandardization(nn.Module):
    """Scales the features of each row to mean 0 and standard deviation 1 over the training scans.

    Pooled features of an organ are nearly the same in all patients, and the small part that differs is learned slowly.
    The running statistics are also used in training, so that the features of a scan do not depend on the rest of its
    batch. No gradient passes through them. The gradient of a batch loses what its scans have in common, as in batch
    normalisation; otherwise the losses drive the mean of the features away without bound. Once ``frozen``, in the later
    part of a training, the statistics are a fixed scale and shift, as at inference.

    Args:
        rows: Number of rows K, such as anatomies.
        features: Number of features F of a row.
        momentum: Weight of a new batch; the first batches of a row are averaged.
        limit: Standardised features are clipped to this many standard deviations.
    """

    def __init__(self, rows: int, features: int, momentum: float = 0.05, limit: float = 5.0) -> None:
        super().__init__()
        self.momentum = momentum
        self.limit = limit
        self.frozen = False
        self.mean: Tensor
        self.variance: Tensor
        self.batches: Tensor
        self.register_buffer("mean", torch.zeros(rows, features))
        self.register_buffer("variance", torch.ones(rows, features))
        self.register_buffer("batches", torch.zeros(rows, 1))

    def forward(self, rows: Tensor, valid: Tensor) -> Tensor:
        """Standardises rows ``[B, K, F]``; those that are not valid, bool ``[B, K]``, do not change the statistics."""
        if self.training and not self.frozen:
            counted = valid.unsqueeze(-1).to(rows.dtype)
            self._update(rows.detach(), counted)
            # The value stays; the gradient loses its mean over the batch, unless the batch is one scan.
            common = (rows * counted).sum(0) / counted.sum(0).clamp(min=1) * (counted.sum(0) > 1)
            rows = rows - common + common.detach()
        return ((rows - self.mean) / (self.variance + 1e-5).sqrt()).clamp(-self.limit, self.limit)

    def slope(self, rows: Tensor) -> Tensor:
        """Derivative of the standardised features at rows ``[B, K, F]``; 0 where they are clipped."""
        scale = (self.variance + 1e-5).rsqrt()
        return scale * (((rows - self.mean) * scale).abs() < self.limit)

    def _update(self, rows: Tensor, valid: Tensor) -> None:
        count = valid.sum(0)
        seen = count > 0
        self.batches += seen
        momentum = (1 / self.batches.clamp(min=1)).clamp(min=self.momentum) * seen
        known = count.clamp(min=1)
        self.mean += ((rows * valid).sum(0) / known - self.mean) * momentum
        # About the running mean, so that a batch of one scan has a variance too.
        self.variance += (((rows - self.mean) ** 2 * valid).sum(0) / known - self.variance) * momentum

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        """The shipped weights have one count of batches for all rows."""
        batches = state_dict.get(f"{prefix}batches")
        if batches is not None and batches.dim() == 0:
            state_dict[f"{prefix}batches"] = batches.repeat(self.batches.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def standardizations(network: nn.Module) -> list[RunningStandardization]:
    """The standardisations in a network."""
    return [module for module in network.modules() if isinstance(module, RunningStandardization)]
