"""The warm start of tokens: it teaches them what their statistics tell, on the tokens of all ranks, once, and leaves
other networks alone.

Run as a program, this file is one of the two processes of its own test.
"""

import functools
import logging
import os
import sys
import zlib
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from ignite.engine import Engine, Events
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from bundle.ctfindings.anatomy import ANATOMIES
from bundle.ctfindings.findings import FINDING_ANATOMY, FINDING_NAMES
from bundle.ctfindings.networks.image.image_encoder import ImageEncoder
from bundle.ctfindings.networks.image.image_tower import ConvolutionalTower
from bundle.ctfindings.networks.image.pooling import finding_tokens
from bundle.ctfindings.networks.image.vit_tower import VisionTransformerTower
from bundle.ctfindings.networks.scoring import FindingScorer
from bundle.ctfindings.networks.text.text_tower import TextTower
from bundle.ctfindings.networks.vision_language import VisionLanguageModel
from bundle.ctfindings.training import token_warm_start
from bundle.ctfindings.training.token_warm_start import TokenSample, TokenWarmStart, warm_started_parameters
from tests.commands import run_in_ranks

NODULE, EFFUSION = FINDING_NAMES.index("Lung nodule"), FINDING_NAMES.index("Pleural effusion")
SIDE, EDGE = 16, 4
SETTINGS: dict[str, Any] = {"steps": 80, "scans": 2000, "device": "cpu", "seed": 0, "show": False}
SMALL = {"LEARNING_RATE": 0.02, "POSITIVES": 16, "NEGATIVES": 256}


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small steps at a high rate."""
    for name, value in SMALL.items():
        monkeypatch.setattr(token_warm_start, name, value)


class Texts(nn.Module):
    """A text tower whose trunk is a bag of words."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(256, 8)
        self.frozen_trunk = nullcontext

    def forward(self, texts: list[str], role: str) -> Tensor:
        return F.normalize(
            self.head(torch.stack([sum(map(word_vector, text.lower().split()), torch.zeros(256)) for text in texts])),
            dim=-1,
        )


@functools.cache
def word_vector(word: str) -> Tensor:
    return torch.randn(256, generator=torch.Generator().manual_seed(zlib.crc32(word.encode())))


def make_model(statistics: bool = True) -> VisionLanguageModel:
    torch.manual_seed(0)
    tower: nn.Module = ConvolutionalTower(patch=2, channels=(8, 8, 8, 16), blocks=(1, 1, 1, 1), width=12, heads=2)
    if not statistics:
        tower = VisionTransformerTower(
            patch=(4, 4, 4), size=(SIDE, SIDE, SIDE), width=12, depth=4, heads=2, perceptron=16, levels=(0, 2)
        )
    return VisionLanguageModel(ImageEncoder(tower, embedding=8, heads=2), cast(TextTower, Texts()), FindingScorer())


def make_batch(seed: int, scans: int = 3) -> dict[str, Any]:
    """Noise with a bright cube that the mask calls a nodule and a dark one that it calls an effusion, everywhere lung
    and pleura.
    """
    generator = torch.Generator().manual_seed(seed)
    image = 0.3 + 0.1 * torch.rand(scans, 1, SIDE, SIDE, SIDE, generator=generator)
    masks = torch.zeros(scans, 1, SIDE, SIDE, SIDE, dtype=torch.int32)
    for scan in range(scans):
        for finding, value in ((NODULE, 0.6), (EFFUSION, 0.1)):
            x, y, z = torch.randint(SIDE - EDGE, (3,), generator=generator).tolist()
            place = (scan, 0, slice(x, x + EDGE), slice(y, y + EDGE), slice(z, z + EDGE))
            image[place] = value
            masks[place] = 1 << finding
    labels = torch.full((scans, len(FINDING_NAMES)), -1)
    labels[:, [NODULE, EFFUSION]] = 1
    anatomy = torch.full((scans, 1, SIDE, SIDE, SIDE), ANATOMIES[FINDING_ANATOMY[NODULE]].mask_id)
    anatomy[:, :, SIDE // 2 :] = ANATOMIES[FINDING_ANATOMY[EFFUSION]].mask_id
    known = torch.ones(scans, len(ANATOMIES), dtype=torch.bool)
    return {"image": image, "finding_masks": masks, "labels": labels, "anatomy": anatomy, "anatomy_known": known}


def separation(model: VisionLanguageModel) -> float:
    """How well the model's token logits tell the tokens of nodules in scans that the warm start did not see."""
    batch = make_batch(seed=100)
    with torch.no_grad():
        logits = model.train()(batch["image"], batch["anatomy"], batch["anatomy_known"])["token_logits_drawn"]
    inside = finding_tokens(batch["finding_masks"], model.image.tower.stride)
    return float(roc_auc_score(inside[:, :, NODULE].flatten(), logits[:, :, NODULE].flatten()))


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def run(handler: TokenWarmStart, epochs: int = 1, start: int = 0) -> None:
    engine = Engine(lambda engine, batch: None)
    handler.attach(engine)
    engine.add_event_handler(Events.STARTED, lambda: setattr(engine.state, "epoch", start))
    engine.run([0], max_epochs=epochs)


def test_tokens_of_unseen_scans_tell_a_lesion_after_the_warm_start() -> None:
    model = make_model()
    before = separation(model)
    run(TokenWarmStart(model, [make_batch(seed) for seed in range(4)], **SETTINGS))
    assert separation(model) > max(0.95, before)


def test_the_standardisation_is_that_of_all_tokens_and_stays_open() -> None:
    model, batches = make_model(), [make_batch(0), make_batch(1)]
    TokenWarmStart(model, batches, **SETTINGS).collect()
    features = torch.cat([model.image.tower.token_features(batch["image"]).flatten(0, 1) for batch in batches])
    torch.testing.assert_close(model.image.tower.statistics.standardize.mean[0], features.mean(0), atol=1e-5, rtol=1e-4)
    TokenWarmStart(model, batches, **SETTINGS | {"steps": 1})(Engine(lambda engine, batch: None))
    assert not model.image.tower.statistics.standardize.frozen


def test_what_a_resumed_run_has_is_kept() -> None:
    model = make_model()
    before = state(model)
    run(TokenWarmStart(model, [make_batch(0)], **SETTINGS), epochs=2, start=1)
    torch.testing.assert_close(state(model), before)


def test_it_happens_once(monkeypatch: pytest.MonkeyPatch) -> None:
    collected: list[int] = []
    monkeypatch.setattr(TokenWarmStart, "collect", lambda self: collected.append(1))
    run(TokenWarmStart(make_model(), [make_batch(0)], **SETTINGS), epochs=3)
    assert len(collected) == 1


@pytest.mark.parametrize("case", ["no steps", "no statistics", "no masks", "no label"])
def test_networks_and_data_without_what_it_needs_are_left_as_they_are(
    case: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(statistics=case != "no statistics")
    batch = make_batch(0)
    if case == "no masks":
        del batch["finding_masks"]
    if case == "no label":
        batch["labels"][:] = -1
    monkeypatch.setattr(logging.getLogger("ctfindings"), "propagate", True)
    caplog.set_level(logging.INFO, "ctfindings.warm_start")
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    run(TokenWarmStart(model, [batch], **SETTINGS | ({"steps": 0} if case == "no steps" else {})))
    torch.testing.assert_close(dict(model.named_parameters()), before)
    assert ("no warm start" in caplog.text) == (case in ("no masks", "no label"))


def test_false_alarms_have_the_weight_that_is_given() -> None:
    assert TokenWarmStart(make_model(), [], **SETTINGS, false_alarm_weight=10.0).loss.false_alarm_weight == 10


def test_the_number_of_scans_is_bounded() -> None:
    model = make_model()
    TokenWarmStart(model, [make_batch(0), make_batch(1)], **SETTINGS | {"scans": 4}).collect()
    assert model.image.tower.statistics.standardize.batches == 4


def test_unknown_findings_and_other_anatomies_give_no_token_beside_a_lesion() -> None:
    model = make_model()
    sample = TokenWarmStart(model, [make_batch(0)], **SETTINGS).collect()
    assert sample is not None
    spoken_of = [NODULE, EFFUSION]
    assert sample.outside[:, spoken_of].any(0).all() and sample.inside[:, spoken_of].any(0).all()
    others = [index for index in range(len(FINDING_NAMES)) if index not in spoken_of]
    assert not sample.outside[:, others].any() and not sample.inside[:, others].any()
    assert not (sample.inside & sample.outside).any()


def test_a_finding_without_its_mask_gives_no_token_beside_it() -> None:
    batch = make_batch(0, scans=1)
    batch["finding_masks"][batch["finding_masks"] == 1 << EFFUSION] = 0
    sample = TokenWarmStart(make_model(), [batch], **SETTINGS).collect()
    assert sample is not None
    assert sample.outside[:, NODULE].any() and not sample.outside[:, EFFUSION].any()


def test_the_parameters_that_it_trains_are_those_it_names() -> None:
    model, masked = make_model(), [{"finding_masks": "a.nii.gz", "anatomy": "b.nii.gz"}]
    named = {id(parameter) for parameter in warm_started_parameters(model, masked)}
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    run(TokenWarmStart(model, [make_batch(0)], **SETTINGS))
    changed = {id(value) for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed and changed == named
    assert not warm_started_parameters(model, [{"finding_masks": "a.nii.gz"}])
    assert not warm_started_parameters(make_model(statistics=False), masked)


def test_scans_are_not_read_where_no_study_has_a_mask_of_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    def collect(*_: object) -> None:
        raise AssertionError("scans are read")

    monkeypatch.setattr(TokenWarmStart, "collect", collect)
    loader = SimpleNamespace(dataset=SimpleNamespace(data=[{"id": "a", "image": "a.nii.gz"}]))
    run(TokenWarmStart(make_model(), cast(Any, loader), **SETTINGS))


def test_a_step_draws_as_many_tokens_of_each_finding_and_each_counts_for_its_finding_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(token_warm_start, "POSITIVES", 5)
    monkeypatch.setattr(token_warm_start, "NEGATIVES", 50)
    inside = torch.zeros(40, 4, dtype=torch.bool)
    inside[:30, 0], inside[29, 2] = True, True
    sample = TokenSample(torch.arange(40.0).unsqueeze(1).half(), inside, ~inside)
    drawn = sample.draw(torch.Generator().manual_seed(0))
    assert drawn.inside.sum(0).tolist() == [5, 0, 5, 0]
    assert (drawn.features[drawn.inside[:, 2]] == 29).all() and (drawn.features[drawn.inside[:, 0]] < 30).all()
    assert not drawn.outside[:10].any() and not drawn.inside[10:].any()
    assert torch.equal(drawn.outside[10:], sample.outside[drawn.features[10:, 0].long()])


def test_two_processes_fit_the_same_on_the_tokens_of_both(tmp_path: Path) -> None:
    run_in_ranks([__file__, tmp_path], 2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    torch.testing.assert_close(first, second, atol=0, rtol=0)
    alone = [TokenWarmStart(make_model(), [make_batch(rank)], **SETTINGS).collect() for rank in range(2)]
    assert first["tokens"] == sum(len(sample.features) for sample in alone if sample is not None)


def _process(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo")
    model = make_model()
    warm = TokenWarmStart(model, [make_batch(rank)], **SETTINGS)
    warm.network.train()
    sample = warm.collect()
    assert sample is not None
    warm.fit(sample)
    torch.save({**model.state_dict(), "tokens": len(sample.features)}, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    vars(token_warm_start).update(SMALL)
    _process(int(os.environ["RANK"]), Path(sys.argv[1]))
