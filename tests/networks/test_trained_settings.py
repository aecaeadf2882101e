"""Weights are refused where a setting is not that of their training, which no tensor would show."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from monai.networks import copy_model_state
from torch import Tensor

from bundle.ctfindings.networks.checkpoint import load_checkpoint
from bundle.ctfindings.networks.image.image_encoder import ImageEncoder
from bundle.ctfindings.networks.scoring import FindingScorer
from tests.networks.conftest import convolutional_tower

TRAINED = {"spacing": (6, 6, 5), "score_tokens": False, "body_hu": None}


def encoder(**settings: object) -> ImageEncoder:
    return ImageEncoder(convolutional_tower(), embedding=8, heads=2, settings=settings)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.save({f"image.{key}": value for key, value in encoder(**TRAINED).state_dict().items()}, tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_the_error_names_the_file_and_every_key_that_differs(weights: Path) -> None:
    with pytest.raises(ValueError) as caught:
        load_checkpoint({"image": encoder(**{**TRAINED, "spacing": [4, 4, 3], "score_tokens": True})}, weights)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(f"{weights}: ")
    assert "it was trained with score_tokens false, not true; spacing [6, 6, 5], not [4, 4, 3]" in message
    assert "body_hu" not in message


@pytest.mark.parametrize("assign", [False, True])
def test_equal_settings_load_and_others_are_passed_on(weights: Path, assign: bool) -> None:
    first = encoder(spacing=[6.0, 6.0, 5.0], localized="all")
    load_checkpoint({"image": first}, weights, assign=assign)
    second = encoder(body_hu=-500)
    with pytest.raises(ValueError, match="body_hu null, not -500"):
        second.load_state_dict(first.state_dict())
    with pytest.raises(ValueError, match='localized "all", not "organ"'):
        encoder(localized="organ").load_state_dict(first.state_dict())


def test_a_score_depends_on_its_settings_too() -> None:
    rows = FindingScorer(tokens=False)
    FindingScorer(tokens=False).load_state_dict(rows.state_dict())
    with pytest.raises(ValueError, match=r"score_tokens false, not true"):
        FindingScorer().load_state_dict(rows.state_dict())


def test_monai_copies_the_settings_with_the_weights() -> None:
    """``monai.bundle.ckpt_export`` loads so, and would pass over a tensor of another length."""
    with pytest.raises(ValueError, match=r"spacing \[6, 6, 5\], not \[1\.5, 1\.5, 3\]"):
        copy_model_state(encoder(spacing=[1.5, 1.5, 3]), encoder(spacing=[6, 6, 5]).state_dict())


@pytest.mark.parametrize("damage", [lambda kept: kept.zero_(), lambda kept: kept.fill_(ord("1"))])
def test_damaged_settings_are_refused(weights: Path, damage: Callable[[Tensor], Tensor]) -> None:
    state = torch.load(weights, weights_only=True)
    damage(state["image.settings.kept"])
    torch.save(state, weights)
    with pytest.raises(ValueError, match="settings are damaged"):
        load_checkpoint({"image": encoder()}, weights)
    torch.save({key: value.float() for key, value in state.items()}, weights)
    with pytest.raises(ValueError, match="settings are damaged"):
        load_checkpoint({"image": encoder()}, weights)


def test_weights_of_earlier_versions_load(weights: Path) -> None:
    state = {key: value for key, value in torch.load(weights, weights_only=True).items() if "settings" not in key}
    torch.save(state, weights)
    load_checkpoint({"image": encoder(spacing=[4, 4, 3])}, weights)


def test_an_encoder_with_settings_can_be_exported(weights: Path) -> None:
    whole = encoder(**TRAINED).eval()
    image = torch.rand(1, 1, 8, 8, 8)
    with torch.no_grad():
        assert torch.equal(torch.jit.script(whole)(image).field, whole(image).field)


def test_settings_that_json_cannot_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 512 bytes"):
        encoder(spacing=list(range(200)))
    with pytest.raises(ValueError, match="settings: expected values of JSON"):
        encoder(spacing=torch.ones(3))
