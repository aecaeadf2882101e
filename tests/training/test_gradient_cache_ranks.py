"""Gradient caching of two processes against the plain step. Run as a program, this file is one of the processes."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from bundle.ctfindings.losses.composite import CompositeLoss
from bundle.ctfindings.losses.snippet_localization import SnippetLocalizationLoss
from bundle.ctfindings.training.gradient_cache import join_parts
from tests.commands import run_in_ranks
from tests.training.test_gradient_cache import (
    StandardizedTowers,
    Towers,
    cached_step,
    cut,
    gradients,
    objective,
    prepare,
    studies,
)


def rank_main(rank: int, folder: Path) -> None:
    """One of the two processes: its half of the batch in three micro-batches; rank 0 writes the gradients."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    mine = [cut(studies(), start, start + 2) for start in range(6 * rank, 6 * rank + 6, 2)]
    # The networks are gone when the group ends: one that outlives it frees the group while it holds the interpreter's
    # lock, which a thread of the group may be waiting for.
    found = [step_of_rank(towers, mine, rank, folder) for towers in (Towers(), StandardizedTowers())]
    if rank == 0:
        torch.save(found[0], folder / "found.pt")
        torch.save(found[1], folder / "standardized.pt")
    # Neither leaves before the other is done: a rank that is alone waits for ever.
    dist.barrier()
    dist.destroy_process_group()


def step_of_rank(towers: Towers, mine: list[Any], rank: int, folder: Path) -> dict[str, Tensor]:
    """The gradients of one process."""
    network = nn.parallel.DistributedDataParallel(towers, find_unused_parameters=True)
    if isinstance(towers, StandardizedTowers):
        # As after a step in which each rank counted its own scans: the wrapper has sent the buffers of rank 0 by now.
        towers.standardize.mean += rank
    return cached_step(mine, network, objective(), folder / f"waiting{rank}")


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where rank 0 left what two processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    run_in_ranks([__file__, folder], 2)
    return folder


def loss_of_ranks(halves: list[dict[str, Tensor | None]], targets: dict[str, Tensor], loss: CompositeLoss) -> Tensor:
    """The contrastive losses see the scans of both ranks; localization is the mean over ranks of each one's own
    snippets.
    """
    joined = {name: loss.losses[name] for name in ("local", "siglip", "observations")}
    whole = CompositeLoss(joined, {name: loss.weights[name] for name in joined})
    total: Tensor = whole(join_parts(halves, [6, 6]), targets)
    for half in halves:
        total = total + SnippetLocalizationLoss()(
            *(half[name] for name in ("depth", "depth_mm", "snippet", "target_mm"))
        )
    return total


def test_two_processes_get_the_gradient_of_one_plain_step_on_all_scans(of_two_processes: Path) -> None:
    network, loss = Towers(), objective()
    halves = []
    for start in (0, 6):
        image, _, _, inputs = prepare(cut(studies(), start, start + 6))
        halves.append(network(image, **inputs))
    loss_of_ranks(halves, prepare(studies())[1], loss).backward()
    found = torch.load(of_two_processes / "found.pt")
    for name, value in gradients(network, loss).items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5)


def test_both_passes_of_two_processes_start_from_the_running_statistics_of_the_first(of_two_processes: Path) -> None:
    network, loss = StandardizedTowers().train(), objective()
    begin = {name: value.clone() for name, value in network.standardize.state_dict().items()}
    halves = []
    for start in (0, 6):
        network.standardize.load_state_dict(begin)
        outputs = []
        for first in range(start, start + 6, 2):
            image, _, _, inputs = prepare(cut(studies(), first, first + 2))
            outputs.append(network(image, **inputs))
        halves.append(join_parts(outputs, [2, 2, 2]))
    loss_of_ranks(halves, prepare(studies())[1], loss).backward()
    found = torch.load(of_two_processes / "standardized.pt")
    for name, value in gradients(network, loss).items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5)


if __name__ == "__main__":
    rank_main(int(os.environ["RANK"]), Path(sys.argv[1]))
