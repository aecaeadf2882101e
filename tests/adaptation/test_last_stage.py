"""The last blocks of a residual tower, trained on what the cache keeps of the stage before them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bundle.ctfindings.adaptation import Adaptation, EncodedStudies, HeadTraining
from bundle.ctfindings.adaptation.head_training import Head, Prompts, score
from bundle.ctfindings.adaptation.held_scans import hold_scans
from bundle.ctfindings.adaptation.last_stage import LastStage
from bundle.ctfindings.findings import finding_index
from bundle.ctfindings.inference.encoding import TimedPreprocessing, encode_study
from bundle.ctfindings.networks.checkpoint import read_checkpoint
from bundle.ctfindings.networks.classifier import ZeroShotClassifier, load_classifier
from bundle.ctfindings.networks.image.image_encoder import ImageEncoder
from bundle.ctfindings.networks.image.resnet_tower import ResNetTower
from bundle.ctfindings.networks.scoring import FindingScorer
from bundle.ctfindings.networks.vision_language import VisionLanguageModel
from bundle.ctfindings.published.astra import frozen_tokens
from bundle.ctfindings.published.astra.frozen_tokens import FrozenTokensd
from bundle.ctfindings.published.astra.preprocessing import astra_pipeline
from bundle.ctfindings.training.finetuning import start_from
from tests.networks.conftest import encoder, make_image, make_model  # noqa: F401

Make = Callable[[], VisionLanguageModel]
BLOCKS = "network.layer4.1."


def residual_image() -> ImageEncoder:
    """The same encoder at every call, with two blocks in the last stage."""
    torch.manual_seed(5)
    tower = ResNetTower(12, blocks=(1, 1, 1, 2), channels=(8, 8, 16, 16))
    return ImageEncoder(tower, 8, heads=2, body_threshold=0.3).eval()


def pipeline() -> list[Any]:
    return astra_pipeline(size=(64, 64, 40))


@pytest.fixture
def residual_model(make_model: Make) -> VisionLanguageModel:  # noqa: F811
    model = make_model()
    model.image = residual_image()
    return model


@pytest.fixture
def weights(residual_model: VisionLanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of the text tower and of the image tower alone, so that the head is new."""
    tower = residual_image().tower
    kept = {key: value for key, value in residual_model.state_dict().items() if not key.startswith("image.")}
    tokens = {f"image.tower.{key}": value for key, value in tower.state_dict().items()}
    torch.save(kept | tokens, tmp_path / "frozen.pt")
    monkeypatch.setattr(frozen_tokens, "_tower", lambda path: tower)
    return tmp_path / "frozen.pt"


def test_the_last_blocks_are_trained_and_the_checkpoint_answers_as_the_head(
    residual_model: VisionLanguageModel,
    weights: Path,
    datalist: Path,
    wordings_are_templates: None,
    tmp_path: Path,
) -> None:
    before = {key: value.clone() for key, value in residual_model.image.tower.state_dict().items()}
    encoded = EncodedStudies(datalist, ["training"], pipeline(), FrozenTokensd(weights), tmp_path / "cache", "test")
    training = HeadTraining(
        "tuned_stage", [0.01], steps=30, validate_every=10, folds=4, learning_rates=[0.01], tuned_rate=0.5
    )
    adaptation = Adaptation(encoded, residual_model, weights, weights, training, tmp_path / "out")
    studies = [study for study in encoded.studies() if study["id"] != "bad"]

    # Before training, the blocks give the tokens that the cache has.
    start = adaptation.start(studies)
    frozen = hold_scans(residual_model.image, encoded.dataset(studies))
    chosen = np.arange(len(studies))
    expected = score(Head(residual_model.image, residual_model.scorer), frozen, chosen, start.prompts, 5)
    found = score(start.head, start.scans, chosen, start.prompts, 5)
    np.testing.assert_allclose(found, expected, atol=0.05)
    assert expected.std() > 0.1

    adaptation.run()
    state = read_checkpoint(tmp_path / "out" / "model.pt")
    tower = {key.removeprefix("image.tower."): value for key, value in state.items() if key.startswith("image.tower.")}
    assert tower
    changed = {key for key, value in tower.items() if not torch.equal(value, before[key])}
    assert {key for key in changed if not key.startswith("reduce.")} == {
        key for key in tower if key.startswith(BLOCKS) and key.endswith(("weight", "bias"))
    }

    # Inference on a file, through the whole tower, gives the logits of the head on what the cache keeps.
    image = residual_model.image
    held = hold_scans(image, encoded.dataset(studies), LastStage(image, 1))
    logits = score(
        Head(image, residual_model.scorer, LastStage(image, 1)), held, chosen, Prompts(residual_model.text), 5
    )
    classifier = ZeroShotClassifier(residual_image(), FindingScorer()).eval()
    load_classifier(classifier, tmp_path / "out" / "model.pt")
    study = encode_study(classifier, TimedPreprocessing(pipeline())({"image": studies[1]["image"]}))
    nodule = finding_index("Lung nodule")
    scored = classifier.score(study.embedding).logits[0].detach().numpy()
    np.testing.assert_allclose(scored[nodule], logits[1, nodule], atol=0.1)
    assert study.domain is not None and study.domain.inside


def test_training_on_cached_tokens_starts_from_no_other_encoder(
    residual_model: VisionLanguageModel, tmp_path: Path
) -> None:
    residual_model.image.tower.loaded = True
    state = {key: value.clone() for key, value in residual_model.state_dict().items()}
    torch.save(state, tmp_path / "same.pt")
    start_from(residual_model, tmp_path / "same.pt")
    state["image.tower.network.layer4.0.conv1.weight"] += 1
    torch.save(state, tmp_path / "tuned.pt")
    with pytest.raises(ValueError, match=r"tuned\.pt: its frozen encoder is not .*layer4\.0\.conv1\.weight differs"):
        start_from(residual_model, tmp_path / "tuned.pt")


def test_more_blocks_than_the_stage_has_and_other_towers_are_refused(make_model: Make) -> None:  # noqa: F811
    with pytest.raises(ValueError, match="tuned_blocks: expected 1 to 2, got 3"):
        LastStage(residual_image(), 3)
    with pytest.raises(ValueError, match=r"tuned_stage needs .*networks/astra\.json"):
        LastStage(make_model().image, 1)
