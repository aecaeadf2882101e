"""The rows of all ranks. Run as a program, this file is one of the two processes of its own test."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from bundle.ctfindings.losses.composite import CompositeLoss
from bundle.ctfindings.losses.cross_anatomy import CrossAnatomyLoss
from bundle.ctfindings.losses.gathering import gather_rows
from bundle.ctfindings.losses.local_anatomy import LocalAnatomyLoss
from bundle.ctfindings.losses.pairs import gather_pairs
from bundle.ctfindings.losses.pathology_alignment import PathologyAlignmentLoss
from bundle.ctfindings.losses.prototypes import AnatomyPrototypeLoss
from bundle.ctfindings.losses.text_separation import TextSeparationLoss
from tests.commands import run_in_ranks

SCANS, ANATOMIES, WIDTH = 7, 3, 4
SHARES = {"even": slice(0, 6), "uneven": slice(0, 7)}
SPLIT = {"even": 3, "uneven": 5}


class Towers(nn.Module):
    """Two towers and both temperatures, small."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image = nn.Linear(WIDTH, 6, dtype=torch.float64)
        self.text = nn.Linear(WIDTH, 6, dtype=torch.float64)
        self.temperature = nn.Parameter(torch.tensor(0.1, dtype=torch.float64))
        self.temperature_global = nn.Parameter(torch.tensor(0.2, dtype=torch.float64))

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        rows = F.normalize(self.image(batch["scan"]), dim=-1)
        caption = F.normalize(self.text(batch["report"]), dim=-1) if "report" in batch else None
        said = batch["caption_valid"]
        return {
            "anatomy": rows,
            "caption": caption,
            # The anatomies as queries, and the captions as observations.
            "pathology": rows,
            "pathology_valid": batch["anatomy_valid"],
            "pathology_anatomy": torch.full(said.shape, -1),
            "sentence": None if caption is None else caption[said],
            "sentence_count": said.sum(1),
            "sentence_id": batch["caption_id"][said],
            "sentence_normal": batch["caption_normal"][said],
            "sentence_anatomy": said.nonzero()[:, 1],
            "sentence_findings": torch.zeros(int(said.sum()), 2, dtype=torch.bool),
            "temperature": self.temperature.clone(),
            "temperature_global": self.temperature_global.clone(),
        }


def study_batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    shape = (SCANS, ANATOMIES)
    return {
        "scan": torch.randn(*shape, WIDTH, generator=generator, dtype=torch.float64),
        "report": torch.randn(*shape, WIDTH, generator=generator, dtype=torch.float64),
        "anatomy_valid": torch.rand(shape, generator=generator) < 0.8,
        "caption_valid": torch.rand(shape, generator=generator) < 0.8,
        "caption_id": torch.randint(2**62, 2**62 + 9, shape, generator=generator),
        "caption_normal": torch.rand(shape, generator=generator) < 0.4,
        "caption_sentences": torch.randint(0, 9, (*shape, 2), generator=generator),
    }


def objectives() -> dict[str, nn.Module]:
    return {
        "local": LocalAnatomyLoss(),
        "cross": CrossAnatomyLoss(),
        "separation": TextSeparationLoss(),
        "learnable prototypes": AnatomyPrototypeLoss(ANATOMIES, 6, "learnable").double(),
        "observations": PathologyAlignmentLoss().double(),
        "moving prototypes": AnatomyPrototypeLoss(ANATOMIES, 6, "ema").double(),
    }


def step(network: nn.Module, loss: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Loss, gradients of network and loss, and what the loss remembers after one training step, by name."""
    network.zero_grad()
    total = loss(network(batch), batch)
    total.backward()
    parameters = [*network.named_parameters(), *loss.named_parameters()]
    gradients = {name.removeprefix("module."): value.grad for name, value in parameters if value.grad is not None}
    return {
        "loss": total.detach(),
        **{name: value.clone() for name, value in [*gradients.items(), *loss.named_buffers()]},
    }


def rank_main(rank: int, folder: Path) -> None:
    """One of the two processes: its share of the batch, under DistributedDataParallel; rank 0 writes what it found."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    # The networks are gone when the group ends: one that outlives it frees the group while it holds the interpreter's
    # lock, which a thread of the group may be waiting for.
    found = steps_of_rank(rank)
    if rank == 0:
        torch.save(found, folder / "found.pt")
    dist.destroy_process_group()


def steps_of_rank(rank: int) -> dict[str, dict[str, Tensor]]:
    """What one of the two processes finds, by the name of the step."""
    network = nn.parallel.DistributedDataParallel(Towers())
    batch, found = study_batch(), {}
    for shares, rows in SHARES.items():
        mine = slice(SPLIT[shares]) if rank == 0 else slice(SPLIT[shares], rows.stop)
        own = {name: value[mine] for name, value in batch.items()}
        for name, loss in objectives().items():
            found[f"{name} {shares}"] = step(network, CompositeLoss({name: loss}, {name: 1.0}), own)
    without_report = {name: value for name, value in own.items() if rank == 0 or name != "report"}
    composite = CompositeLoss(objectives(), dict.fromkeys(objectives(), 1.0))
    # The text tower does not run at all on rank 1, which only this setting of DistributedDataParallel allows.
    mixed = nn.parallel.DistributedDataParallel(Towers(), find_unused_parameters=True)
    found["one rank without captions"] = step(mixed, composite, without_report)
    found["ranks"] = {"joined": gather_rows(torch.full((rank + 1, 2), rank), torch.full((rank + 1,), rank == 1))[0]}
    return found


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("two_processes")
    run_in_ranks([__file__, folder], 2)
    return torch.load(folder / "found.pt")


@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize("name", objectives())
def test_two_processes_get_the_gradient_of_one_process_on_the_joined_batch(two_processes, name, shares):
    joined = {key: value[SHARES[shares]] for key, value in study_batch().items()}
    expected = step(Towers(), CompositeLoss({name: objectives()[name]}, {name: 1.0}), joined)
    found = two_processes[f"{name} {shares}"]
    assert expected["text.weight"].abs().max() > 1e-3
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-6)


def test_a_rank_without_captions_neither_blocks_the_other_nor_contributes(two_processes):
    found = two_processes["one rank without captions"]
    assert found["loss"] == 0
    assert not any(value.any() for name, value in found.items() if not name.startswith("losses.") and name != "step")


def test_ranks_of_different_batch_size_are_joined_in_rank_order(two_processes):
    assert two_processes["ranks"]["joined"].tolist() == [[0, 0], [1, 1], [1, 1]]


def test_one_process_gets_its_own_tensors_back():
    rows, ids = torch.randn(3, 2), torch.arange(3)
    joined = gather_rows(rows, ids)
    assert joined[0] is rows
    assert joined[1] is ids


def test_a_pair_is_valid_where_both_its_image_and_its_caption_are():
    rows, one, two = (
        torch.randn(2, 2, 3),
        torch.tensor([[True, True], [False, True]]),
        torch.tensor([[True, False], [True, True]]),
    )
    pairs = gather_pairs(rows, one, -rows, two, torch.arange(4).reshape(2, 2), one)
    assert pairs.valid.tolist() == [[True, False], [False, True]]
    assert pairs.anatomy is rows
    assert torch.equal(pairs.caption, -rows)


def test_tensors_of_different_batch_size_are_refused():
    with pytest.raises(ValueError, match=r"got \[3, 2\] rows"):
        gather_rows(torch.zeros(3), torch.zeros(2))


if __name__ == "__main__":
    rank_main(int(os.environ["RANK"]), Path(sys.argv[1]))
