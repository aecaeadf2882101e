"""Gathers rows of all ranks for contrastive losses; the gradient returns to the rank that owns the row."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of ranks; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_rows(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Joins tensors (B, ...) of any dtype over all ranks along B, in rank order; the identity for one process.

    Ranks may have different batch sizes. The loss must be a function of the joined rows alone, so that every rank
    computes the same value. The gradient of a rank's own rows is multiplied by the number of ranks:
    ``DistributedDataParallel`` averages over ranks, and the average is then the gradient of one process on the joined
    batch. The gradient of what is not gathered, such as a temperature, is the same on every rank. The backward pass
    communicates nothing. ValueError if the tensors differ in B.
    """
    rows = [tensor.shape[0] for tensor in tensors]
    if len(set(rows)) > 1:
        raise ValueError(f"expected tensors of one batch size to gather, got {rows} rows")
    if world_size() == 1:
        return tensors
    sizes = [torch.zeros(1, dtype=torch.int64, device=tensors[0].device) for _ in range(world_size())]
    dist.all_gather(sizes, torch.tensor([rows[0]], device=tensors[0].device))
    counts = [int(size) for size in sizes]
    return tuple(_GatherRows.apply(tensor, counts) for tensor in tensors)


def true_on_every_rank(flags: list[bool], device: torch.device) -> list[bool]:
    """Which flags, equally many on every rank, hold on all; ``device`` is that of the process group's backend."""
    if world_size() == 1 or not flags:
        return flags
    agreed = torch.tensor(flags, dtype=torch.uint8, device=device)
    dist.all_reduce(agreed, op=dist.ReduceOp.MIN)
    return [bool(flag) for flag in agreed]


class _GatherRows(torch.autograd.Function):
    """All-gather along dimension 0 with the gradient rule of `gather_rows`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int]) -> Tensor:
        # The collective needs equal shapes: shorter batches are padded, and the padding is cut off again.
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: rows.shape[0]] = rows
        gathered = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(gathered, padded)
        start = sum(counts[: dist.get_rank()])
        ctx.ranks, ctx.own = len(counts), slice(start, start + rows.shape[0])
        return torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0][ctx.own] * ctx.ranks, None
