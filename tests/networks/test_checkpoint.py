"""Checkpoints: a round trip, and one line that names the file for every file that does not fit."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from bundle.ctfindings.networks.checkpoint import load_checkpoint, read_checkpoint, save_bundle_weights
from bundle.ctfindings.networks.classifier import PromptBank, ZeroShotClassifier
from bundle.ctfindings.networks.correlation_explorer import CorrelationExplorer
from bundle.ctfindings.networks.image.image_encoder import ImageEncoder
from bundle.ctfindings.networks.image.image_tower import ConvolutionalTower
from bundle.ctfindings.networks.image.token_teacher import TokenTeacher
from bundle.ctfindings.networks.scoring import FindingScorer
from bundle.ctfindings.networks.text.text_tower import TextTower
from bundle.ctfindings.networks.vision_language import VisionLanguageModel

Build = Callable[[], VisionLanguageModel]
EMBEDDING = 8


@pytest.fixture
def weights(make_model: Build, tmp_path: Path) -> Path:
    """A bundle checkpoint whose every tensor of floats is a random one."""
    model, bank = make_model(), PromptBank(EMBEDDING)
    torch.manual_seed(1)
    for tensor in [*model.parameters(), *bank.buffers()]:
        torch.nn.init.uniform_(tensor)
    path = tmp_path / "models" / "model.pt"
    save_bundle_weights(path, model, bank)
    return path


def _refusal(load: Callable[[], None], path: Path) -> str:
    with pytest.raises(ValueError) as caught:
        load()
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


def test_classifier_and_text_tower_take_their_parts_of_a_bundle_checkpoint(
    weights: Path, make_image: Callable[[], ImageEncoder], encoder: str
) -> None:
    classifier = ZeroShotClassifier(make_image(), FindingScorer())
    text = TextTower(encoder, EMBEDDING, hidden=16)
    load_checkpoint(classifier, weights)
    load_checkpoint({"text": text}, weights)
    stored = torch.load(weights, weights_only=True)
    for name, tensor in [
        *classifier.state_dict().items(),
        *((f"text.{key}", value) for key, value in text.state_dict().items()),
    ]:
        # These weights were written without a domain.
        assert torch.equal(tensor, stored[name]) if not name.startswith("domain.") else tensor.numel() == 0, name


def test_whole_model_is_restored_with_its_temperatures(weights: Path, make_model: Build) -> None:
    model = make_model()
    load_checkpoint(model, weights)
    stored = torch.load(weights, weights_only=True)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, stored[name]), name
    assert model.log_temperature == stored["log_temperature"]


def test_what_only_training_reads_is_not_exported_and_starts_anew(make_model: Build, tmp_path: Path) -> None:
    def taught() -> VisionLanguageModel:
        bare = make_model()
        explorer = CorrelationExplorer(bare.image.tower, EMBEDDING, (4, 4, 3), (-1000, 1000), target="teacher")
        return VisionLanguageModel(bare.image, bare.text, bare.scorer, explorer, teacher=TokenTeacher(bare.image))

    model, path = taught(), tmp_path / "model.pt"
    with torch.no_grad():
        model.image.field[1].weight.fill_(2.0)
        model.correlation.hidden.fill_(2.0)
    save_bundle_weights(path, model, PromptBank(EMBEDDING))
    assert {key.partition(".")[0] for key in read_checkpoint(path)}.isdisjoint({"correlation", "teacher"})
    loaded = taught()
    load_checkpoint(loaded, path)
    assert (loaded.image.field[1].weight == 2).all() and not loaded.correlation.hidden.any()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_training_checkpoint_of_ignite_holds_the_model_below_a_key(
    make_model: Build, tmp_path: Path, prefix: str
) -> None:
    source, target = make_model(), make_model()
    torch.nn.init.uniform_(source.image.anatomy_head.weight)
    path = tmp_path / "training.pt"
    torch.save(
        {"model": {prefix + key: value for key, value in source.state_dict().items()}, "trainer": {"epoch_length": 3}},
        path,
    )
    load_checkpoint(target, path)
    assert torch.equal(target.image.anatomy_head.weight, source.image.anatomy_head.weight)


def test_written_file_has_the_digest_that_is_returned_and_leaves_no_other(make_model: Build, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    digest = save_bundle_weights(path, make_model(), PromptBank(EMBEDDING))
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert list(tmp_path.iterdir()) == [path]
    keys = set(torch.load(path, weights_only=True))
    assert "bank.prompts" in keys and "text.trunk_digest" in keys and not [key for key in keys if ".trunk." in key]


def test_the_same_weights_are_the_same_file(make_model: Build, tmp_path: Path) -> None:
    model, bank = make_model(), PromptBank(EMBEDDING)
    digests = {save_bundle_weights(tmp_path / name, model, bank) for name in ("one.pt", "two.pt")}
    assert len(digests) == 1


def test_two_processes_may_write_the_same_file(
    make_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, model, bank = tmp_path / "model.pt", make_model(), PromptBank(EMBEDDING)
    save, others = torch.save, iter([lambda: save_bundle_weights(path, model, bank)])

    def save_while_another_does(state: object, file: BinaryIO) -> None:
        save(state, file)
        next(others, lambda: None)()

    monkeypatch.setattr(torch, "save", save_while_another_does)
    assert save_bundle_weights(path, model, bank) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_failed_leaves_nothing(make_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(state: object, file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_bundle_weights(tmp_path / "model.pt", make_model(), PromptBank(EMBEDDING))
    assert list(tmp_path.iterdir()) == []


def test_missing_file_is_named(make_model: Build, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    assert "no such checkpoint" in _refusal(lambda: load_checkpoint(make_model(), path), path)


def test_truncated_file_is_refused(weights: Path, make_model: Build) -> None:
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    assert "damaged" in _refusal(lambda: load_checkpoint(make_model(), weights), weights)


def test_checkpoint_of_another_geometry_is_refused(weights: Path) -> None:
    tower = ConvolutionalTower(patch=2, channels=(8, 8, 8, 16), blocks=(1, 2, 1, 1), width=12, heads=2)
    other = ZeroShotClassifier(ImageEncoder(tower, EMBEDDING, heads=2), FindingScorer())
    message = _refusal(lambda: load_checkpoint(other, weights), weights)
    assert "use the configuration it was trained with" in message and "image.tower.fine.1" in message


def test_checkpoint_of_another_text_encoder_is_refused(weights: Path, other_encoder: str) -> None:
    text = TextTower(other_encoder, EMBEDDING, hidden=16)
    assert "another text encoder" in _refusal(lambda: load_checkpoint({"text": text}, weights), weights)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"epoch": 3, "note": "hello"}, "holds no model tensors"),
        ([1, 2, 3], "holds no model tensors"),
        ({}, "holds no model tensors"),
        (
            {"encoder.weight": torch.zeros(2)},
            "holds no tensors of log_temperature, log_temperature_global, image, text, scorer",
        ),
    ],
)
def test_foreign_file_is_refused(make_model: Build, tmp_path: Path, content: object, reason: str) -> None:
    path = tmp_path / "foreign.pt"
    torch.save(content, path)
    assert reason in _refusal(lambda: load_checkpoint(make_model(), path), path)


def test_checkpoint_without_a_text_tower_is_refused_where_one_is_needed(weights: Path, encoder: str) -> None:
    state = torch.load(weights, weights_only=True)
    torch.save({key: value for key, value in state.items() if not key.startswith("text.")}, weights)
    text = TextTower(encoder, EMBEDDING, hidden=16)
    assert "holds no tensors of text;" in _refusal(lambda: load_checkpoint({"text": text}, weights), weights)


def test_a_training_checkpoint_is_not_used_for_inference(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    torch.save({"model": {"image.weight": torch.zeros(2, 2), "image.bias": torch.zeros(2)}}, path)
    parts = {"image": torch.nn.Linear(2, 2), "bank": torch.nn.Linear(2, 2)}
    assert "is a training checkpoint" in _refusal(lambda: load_checkpoint(parts, path), path)
    parts["scorer"] = torch.nn.Linear(2, 2)
    assert "holds no tensors of bank, scorer" in _refusal(lambda: load_checkpoint(parts, path), path)


def test_file_that_is_no_archive_of_torch_is_refused(make_model: Build, tmp_path: Path) -> None:
    path = tmp_path / "notes.pt"
    path.write_text("these are not weights")
    assert "cannot be read as a checkpoint" in _refusal(lambda: load_checkpoint(make_model(), path), path)


def test_large_weights_that_bfloat16_holds_take_half_the_space_and_load_unchanged(tmp_path: Path) -> None:
    model, bank = torch.nn.Linear(256, 256), torch.nn.Linear(256, 256, bias=False)
    with torch.no_grad():
        model.weight.copy_(model.weight.bfloat16())
    save_bundle_weights(tmp_path / "model.pt", model, bank)
    stored = read_checkpoint(tmp_path / "model.pt")
    assert stored["weight"].dtype == torch.bfloat16 and stored["bank.weight"].dtype == torch.float32
    loaded = torch.nn.Linear(256, 256)
    loaded.load_state_dict({name: stored[name] for name in ("weight", "bias")})
    assert loaded.weight.dtype == torch.float32 and torch.equal(loaded.weight, model.weight)
