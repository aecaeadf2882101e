"""Gradient caching against the plain step on the whole batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.engines import SupervisedTrainer
from torch import Tensor, nn
from torch.nn import functional as F

from bundle.ctfindings.data.batches import prepare_batch
from bundle.ctfindings.findings import FINDINGS, training_wordings
from bundle.ctfindings.losses.anatomy_head import AnatomyHeadLoss
from bundle.ctfindings.losses.composite import CompositeLoss
from bundle.ctfindings.losses.grounding import GroundingLoss
from bundle.ctfindings.losses.local_anatomy import LocalAnatomyLoss
from bundle.ctfindings.losses.pathology_alignment import PathologyAlignmentLoss
from bundle.ctfindings.losses.siglip import SigLIPLoss
from bundle.ctfindings.losses.snippet_localization import SnippetLocalizationLoss
from bundle.ctfindings.networks import vision_language
from bundle.ctfindings.networks.image.standardization import RunningStandardization
from bundle.ctfindings.training.gradient_cache import GradientCache, MicroBatches, join_parts, split_gradients
from tests.training.test_token_warm_start import make_batch, make_model

SCANS, ANATOMIES, WIDTH, BINS = 12, 2, 5, 6


class Towers(nn.Module):
    """Two toy towers with what a real step has: scalars, rows by scan, rows by snippet, dropout, absent outputs."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image = nn.Sequential(nn.Linear(WIDTH, 7), nn.Tanh(), nn.Dropout(dropout), nn.Linear(7, 4))
        self.text = nn.Linear(WIDTH, 4)
        self.log_temperature = nn.Parameter(torch.tensor(-1.0))

    def forward(
        self, image: Tensor, report: Tensor, has_report: Tensor, bins: Tensor, snippets: list[list[int]]
    ) -> dict[str, Any]:
        rows = F.normalize(self.image(image), dim=-1)
        outputs: dict[str, Any] = {
            "anatomy": rows,
            "anatomy_valid": torch.ones(rows.shape[:2], dtype=torch.bool),
            "temperature": self.log_temperature.exp(),
            "membership": None,
            # The anatomies as queries.
            "pathology": rows,
            "pathology_valid": torch.ones(rows.shape[:2], dtype=torch.bool),
            "pathology_anatomy": torch.full(rows.shape[:2], -1),
        }
        if has_report.any():
            written = F.normalize(self.text(report), dim=-1) * has_report[:, None, None]
            outputs |= {"caption": written, "caption_valid": has_report[:, None].expand(-1, ANATOMIES)}
            outputs |= {
                "scan": rows[:, 0],
                "scan_valid": has_report | True,
                "report": written[:, 0],
                "report_valid": has_report,
            }
            # A report has one or two observations.
            count = has_report * (1 + (report[:, 0, 0] > 0).long())
            outputs |= {
                "sentence": written[torch.arange(ANATOMIES) < count[:, None]],
                "sentence_count": count,
                "sentence_id": (report[:, :, 0] * 1e6).long()[torch.arange(ANATOMIES) < count[:, None]],
                "sentence_normal": torch.zeros(int(count.sum()), dtype=torch.bool),
                "sentence_anatomy": torch.full((int(count.sum()),), -1),
                "sentence_findings": torch.zeros(int(count.sum()), 2, dtype=torch.bool),
            }
        places = [(scan, place) for scan, given in enumerate(snippets) for place in given]
        if places:
            scans = torch.tensor([scan for scan, _ in places])
            outputs["depth"] = F.normalize(self.image(bins), dim=-1)[scans]
            outputs["depth_mm"] = (12.0 * torch.arange(BINS)).expand(len(places), -1)
            outputs["snippet"] = F.normalize(self.text(report[scans, 0]), dim=-1)
            outputs["target_mm"] = torch.tensor([12.0 * place for _, place in places])
        return outputs


def studies() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    return {
        "image": torch.randn(SCANS, ANATOMIES, WIDTH, generator=generator),
        "report": torch.randn(SCANS, ANATOMIES, WIDTH, generator=generator),
        # The second micro-batch of three has no report at all, the first and last have no snippet.
        "has_report": torch.tensor([True, True, False, False, False, False, True, True, True, True, False, True]),
        "bins": torch.randn(SCANS, BINS, WIDTH, generator=generator),
        "snippets": [[], [], [], [1], [2, 5], [], [], [0], [], [], [], []],
        "labels": torch.ones(SCANS, 18, dtype=torch.int64),
        "caption_id": torch.arange(SCANS * ANATOMIES).reshape(SCANS, ANATOMIES) // 3,
        "caption_normal": torch.rand(SCANS, ANATOMIES, generator=generator) < 0.3,
        "caption_sentences": torch.randint(0, 9, (SCANS, ANATOMIES, 2), generator=generator),
        "report_id": torch.arange(SCANS) // 2,
    }


def prepare(batch: dict[str, Any], *_: Any, **__: Any) -> tuple[Tensor, dict[str, Tensor], tuple, dict[str, Any]]:
    inputs = {name: batch[name] for name in ("report", "has_report", "bins", "snippets")}
    return (
        batch["image"],
        {name: batch[name] for name in ("labels", "caption_id", "caption_sentences", "caption_normal", "report_id")},
        (),
        inputs,
    )


def objective() -> CompositeLoss:
    losses = {
        "local": LocalAnatomyLoss(),
        "siglip": SigLIPLoss(scale=2.0, bias=-1.0),
        "localization": SnippetLocalizationLoss(),
        "observations": PathologyAlignmentLoss(),
    }
    return CompositeLoss(losses, {"local": 1.0, "siglip": 0.5, "localization": 2.0, "observations": 0.5})


def cut(batch: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
    return {name: value[start:stop] for name, value in batch.items()}


def gradients(network: nn.Module, loss: nn.Module) -> dict[str, Tensor]:
    named = [*network.named_parameters(), *loss.named_parameters()]
    return {name.removeprefix("module."): value.grad.clone() for name, value in named if value.grad is not None}


def plain_step(batch: dict[str, Any]) -> dict[str, Tensor]:
    network, loss = Towers(), objective()
    image, targets, _, inputs = prepare(batch)
    loss(network(image, **inputs), targets).backward()
    return gradients(network, loss)


def parts_step(parts: list[dict[str, Any]], network: nn.Module, loss: nn.Module) -> dict[str, Tensor]:
    """One step on parts of four scans, each of which passes the network by itself, without a cache."""
    outputs, targets = [], []
    for part in parts:
        image, known, _, inputs = prepare(part)
        outputs.append(network(image, **inputs))
        targets.append(known)
    loss(join_parts(outputs, [4] * len(parts)), join_parts(targets, [4] * len(parts))).backward()
    return gradients(network, loss)


class KeepGradients(torch.optim.SGD):
    """Leaves the parameters as they are, so that their gradients can be read after a step."""

    def step(self, closure: Any = None) -> None:
        return None


def cached_step(
    batches: list[dict[str, Any]],
    network: nn.Module,
    loss: nn.Module,
    waiting: Path,
    prepare_batch: Any = prepare,
    **settings: Any,
) -> dict[str, Tensor]:
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=MicroBatches(batches, len(batches)),
        network=network,
        optimizer=KeepGradients([*network.parameters(), *loss.parameters()], lr=0.0),
        loss_function=loss,
        prepare_batch=prepare_batch,
        iteration_update=GradientCache(waiting),
        decollate=False,
        **settings,
    )
    trainer.run()
    assert torch.isfinite(trainer.state.output["loss"])
    return gradients(network, loss)


@pytest.mark.parametrize("size", [1, 3, 4, 12])
def test_gradients_are_those_of_the_whole_batch(tmp_path: Path, size: int) -> None:
    expected = plain_step(studies())
    parts = [cut(studies(), start, start + size) for start in range(0, SCANS, size)]
    found = cached_step(parts, Towers(), objective(), tmp_path)
    assert set(found) == set(expected) and expected["text.weight"].abs().max() > 1e-2
    assert {"log_temperature", "losses.siglip.bias", "losses.observations.log_temperature"} <= set(found)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5)


def first_wordings(text: Any, batch: int) -> Tensor:
    """Prompts as the network draws them, but always the first wording, so that every order of scans has the same."""
    pairs = [training_wordings(finding)[0] for finding in FINDINGS]
    embedded: Tensor = text([pair[0] for pair in pairs] + [pair[1] for pair in pairs], "prompt")
    return embedded.view(2, 1, len(FINDINGS), -1).expand(-1, batch, -1, -1)


def test_scans_without_masks_count_in_grounding_as_in_the_whole_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network itself, on two scans with masks and two without; in a whole batch the others have empty masks."""
    monkeypatch.setattr(vision_language, "drawn_prompts", first_wordings)
    masked, bare = make_batch(0, scans=2), make_batch(1, scans=2)
    bare["labels"] = 1 - bare["labels"].clamp(min=0)
    empty = {key: torch.zeros_like(bare.pop(key)) for key in ("finding_masks", "anatomy", "anatomy_known")}
    whole = {key: torch.cat([value, {**bare, **empty}[key]]) for key, value in masked.items()}

    def network() -> nn.Module:
        model = make_model().train()
        for module in model.modules():
            if isinstance(module, RunningStandardization):
                module.frozen = True
        return model

    found, expected = (
        cached_step(
            parts, network(), CompositeLoss({"grounding": GroundingLoss()}, {"grounding": 1.0}), tmp_path, prepare_batch
        )
        for parts in ([masked, bare], [whole])
    )
    assert set(found) == set(expected) and expected["image.field.1.weight"].abs().max() > 1e-3
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)


def test_what_waits_for_the_loss_of_the_whole_batch_does_not_grow_with_the_tokens(tmp_path: Path) -> None:
    """The rows of the scans are joined; what speaks of tokens was reduced to means in each part."""
    joined: list[dict[str, Any]] = []

    class Watching(CompositeLoss):
        def forward(self, outputs: Any, targets: Any) -> Tensor:
            joined.append(dict(outputs))
            total: Tensor = super().forward(outputs, targets)
            return total

    loss = Watching({"grounding": GroundingLoss(), "head": AnatomyHeadLoss()}, {"grounding": 1.0, "head": 0.5})
    batch = make_batch(0, scans=2)
    tokens = make_model().train()(*prepare_batch(batch)[:1], **prepare_batch(batch)[3])["token_logits_drawn"].shape[1]
    cached_step([batch, make_batch(1, scans=2)], make_model(), loss, tmp_path, prepare_batch)
    assert {"means_of_grounding", "means_of_head"} <= set(joined[0])
    assert all(tokens not in value.shape for value in joined[0].values() if isinstance(value, Tensor))


def test_the_micro_batches_alone_would_give_another_gradient() -> None:
    """The test above can fail: the mean over the micro-batches is not the gradient of the whole batch."""
    parts = [plain_step(cut(studies(), start, start + 4)) for start in range(0, SCANS, 4)]
    mean = torch.stack([part["image.0.weight"] for part in parts]).mean(0)
    assert (mean - plain_step(studies())["image.0.weight"]).abs().max() > 1e-2


def test_the_second_pass_draws_what_the_first_drew(tmp_path: Path) -> None:
    parts = [cut(studies(), start, start + 4) for start in range(0, SCANS, 4)]
    torch.manual_seed(5)
    network, loss = Towers(dropout=0.5), objective()
    torch.manual_seed(6)
    found = cached_step(parts, network, loss, tmp_path)
    drawn_after = torch.rand(1)
    torch.manual_seed(5)
    reference, again = Towers(dropout=0.5), objective()
    torch.manual_seed(6)
    for name, value in parts_step(parts, reference, again).items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5)
    assert torch.equal(drawn_after, torch.rand(1)), "a step uses up the draws of one pass"


class StandardizedTowers(Towers):
    """With running statistics, as the anatomy rows have them, that move whenever scans pass in training."""

    def __init__(self) -> None:
        super().__init__()
        self.standardize = RunningStandardization(ANATOMIES, WIDTH)

    def forward(self, image: Tensor, *args: Any, **inputs: Any) -> dict[str, Any]:
        return super().forward(self.standardize(image, torch.ones(image.shape[:2], dtype=torch.bool)), *args, **inputs)


def test_running_statistics_move_once_a_step_and_are_those_of_the_first_pass_in_the_second(tmp_path: Path) -> None:
    parts = [cut(studies(), start, start + 4) for start in range(0, SCANS, 4)]
    network, loss = StandardizedTowers(), objective()
    found = cached_step(parts, network, loss, tmp_path)
    reference, again = StandardizedTowers().train(), objective()
    for name, value in parts_step(parts, reference, again).items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5)
    torch.testing.assert_close(network.standardize.state_dict(), reference.standardize.state_dict())
    assert network.standardize.batches.tolist() == [[3], [3]]


@pytest.mark.filterwarnings("ignore:.*GradScaler.*", "ignore:.*cuda.*")
def test_mixed_precision_gives_the_gradients_of_a_mixed_precision_step(tmp_path: Path) -> None:
    network, loss = Towers(), objective()
    image, targets, _, inputs = prepare(studies())
    with torch.autocast("cpu"):
        outputs = network(image, **inputs)
        assert outputs["report"].dtype == torch.bfloat16, "the towers do run in half precision"
        total = loss(outputs, targets)
    total.backward()
    expected = gradients(network, loss)
    parts = [cut(studies(), start, start + 4) for start in range(0, SCANS, 4)]
    found = cached_step(parts, Towers(), objective(), tmp_path, amp=True)
    full = plain_step(studies())
    for name, value in expected.items():
        # bfloat16 keeps 8 bits: sums in another order differ by a few last places of the largest term.
        torch.testing.assert_close(found[name], value, rtol=0.05, atol=0.02 * float(full[name].abs().max()) + 1e-4)


def test_nothing_is_left_waiting(tmp_path: Path) -> None:
    cached_step([cut(studies(), 0, 6), cut(studies(), 6, 12)], Towers(), objective(), tmp_path / "waiting")
    assert list((tmp_path / "waiting").iterdir()) == []


def test_absent_entries_are_rows_of_zeros_and_absent_snippets_no_rows() -> None:
    parts: list[dict[str, Tensor | None]] = [
        {"report": torch.ones(2, 3), "temperature": torch.tensor(0.5), "membership": None, "snippet": None},
        {
            "temperature": torch.tensor(0.5),
            "membership": None,
            "snippet": torch.ones(1, 3),
            "prompt_drawn": torch.ones(2, 3, 4),
        },
    ]
    joined = join_parts(parts, [2, 3])
    assert joined["report"].sum(1).tolist() == [3, 3, 0, 0, 0]  # type: ignore[union-attr]
    assert joined["snippet"].shape == (1, 3) and joined["prompt_drawn"].shape == (2, 5, 4)  # type: ignore[union-attr]
    assert joined["temperature"] == 0.5 and joined["membership"] is None
    shares = split_gradients({name: value for name, value in joined.items() if value is not None}, parts, [2, 3])
    assert [sorted(share) for share in shares] == [["report", "temperature"], ["prompt_drawn", "snippet"]]
    assert shares[0]["report"].shape == (2, 3) and shares[1]["prompt_drawn"].shape == (2, 3, 4)


def test_groups_hold_every_micro_batch_once_and_drop_an_incomplete_rest() -> None:
    groups = MicroBatches(range(7), 3)  # type: ignore[arg-type]
    assert len(groups) == 2
    assert [list(group) for group in groups] == [[0, 1, 2], [3, 4, 5]]
    assert [next(group) for group in groups] == [0, 3], "a group that was not read to its end does not shift the next"


@pytest.mark.parametrize(("size", "message"), [(0, "at least 1"), (8, "has 7 micro-batches and a step needs 8")])
def test_a_group_that_cannot_be_filled_is_refused(size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MicroBatches(range(7), size)  # type: ignore[arg-type]
