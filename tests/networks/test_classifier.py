"""The exported classifier: the answers of the image-text model from a frozen, calibrated prompt bank."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bundle.ctfindings.findings import FINDING_ANATOMY
from bundle.ctfindings.networks.classifier import ZeroShotClassifier
from bundle.ctfindings.networks.image.observation_extractor import ObservationExtractor
from bundle.ctfindings.networks.observation_scoring import observation_logits
from bundle.ctfindings.networks.text.prompts import template_bank
from bundle.ctfindings.networks.vision_language import VisionLanguageModel


@pytest.fixture
def model(make_model: Callable[[], VisionLanguageModel]) -> VisionLanguageModel:
    model = make_model().eval()
    with torch.no_grad():
        model.scorer.log_row_scale.fill_(1.2)
        model.scorer.log_token_scale.fill_(0.7)
    return model


@pytest.fixture
def classifier(model: VisionLanguageModel) -> ZeroShotClassifier:
    classifier = ZeroShotClassifier(model.image, model.scorer).eval()
    with torch.no_grad():
        classifier.bank.prompts.copy_(template_bank(model.text))
        classifier.bank.calibration_scale.copy_(torch.linspace(0.5, 2.0, 18))
        classifier.bank.calibration_shift.copy_(torch.linspace(-3.0, 3.0, 18))
    return classifier


@pytest.fixture
def scans() -> Tensor:
    return torch.rand(2, 1, 16, 8, 16, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_logits_equal_those_of_the_image_text_model(
    model: VisionLanguageModel, classifier: ZeroShotClassifier, scans: Tensor
) -> None:
    scores = classifier.score(classifier.image(scans))
    torch.testing.assert_close(scores.logits, model(scans)["logits"], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_each_template_is_answered_as_if_it_were_asked_alone(
    model: VisionLanguageModel, classifier: ZeroShotClassifier, scans: Tensor
) -> None:
    encoded = classifier.image(scans)
    scores = classifier.score(encoded)
    assert scores.template_logits.shape == (2, 7, 18)
    bank = template_bank(model.text)
    for template in range(7):
        delta = (bank[:, 0, template] - bank[:, 1, template]).expand(2, -1, -1)
        alone, _ = model.scorer(
            encoded.anatomy,
            encoded.anatomy_valid,
            encoded.field,
            encoded.membership,
            delta,
            torch.tensor(FINDING_ANATOMY),
        )
        torch.testing.assert_close(scores.template_logits[:, template], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_evidence_is_that_of_the_mean_prompt_at_every_token(classifier: ZeroShotClassifier, scans: Tensor) -> None:
    encoded = classifier.image(scans)
    evidence = classifier.score(encoded).evidence
    assert evidence.shape == (2, 8 * 4 * 8, 18)
    prompts = torch.nn.functional.normalize(classifier.bank.prompts.mean(2), dim=-1)
    z = encoded.field @ (prompts[:, 0] - prompts[:, 1]).T * classifier.scorer.log_token_scale.exp()
    torch.testing.assert_close(evidence, 1 / (1 + torch.exp(-z)), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_probabilities_are_the_calibrated_logits(classifier: ZeroShotClassifier, scans: Tensor) -> None:
    logits = classifier.score(classifier.image(scans)).logits
    expected = 1 / (1 + torch.exp(-(logits * torch.linspace(0.5, 2.0, 18) + torch.linspace(-3.0, 3.0, 18))))
    probabilities = classifier(scans)
    assert probabilities.shape == (2, 18) and ((probabilities >= 0) & (probabilities <= 1)).all()
    torch.testing.assert_close(probabilities, expected, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_classifier_compiles_to_torchscript_for_scans_of_any_size(
    classifier: ZeroShotClassifier, scans: Tensor
) -> None:
    scripted = torch.jit.script(classifier)
    for scan in (scans, scans[:1, :, :8]):
        torch.testing.assert_close(scripted(scan), classifier(scan), atol=1e-6, rtol=1e-5)


def test_bank_and_scales_are_in_the_checkpoint_and_the_finding_table_is_not(classifier: ZeroShotClassifier) -> None:
    keys = set(classifier.state_dict())
    assert {
        "bank.prompts",
        "bank.calibration_scale",
        "bank.calibration_shift",
        "bank.threshold",
        "scorer.log_row_scale",
    } <= keys
    assert {key.split(".")[0] for key in keys} == {"image", "scorer", "bank", "domain"}


def observing(model: VisionLanguageModel) -> ZeroShotClassifier:
    """The classifier of the model with pathology queries."""
    torch.manual_seed(3)
    model.image.pathology = ObservationExtractor(model.image.tower, 8, (4, 4, 3), queries=5, heads=2)
    classifier = ZeroShotClassifier(model.image, model.scorer).eval()
    with torch.no_grad():
        classifier.bank.prompts.copy_(template_bank(model.text))
    return classifier


@torch.no_grad()
def test_pathology_queries_add_the_difference_to_statement_and_denial_of_one_answer(
    model: VisionLanguageModel, scans: Tensor
) -> None:
    classifier = observing(model)
    encoded = classifier.image(scans)
    without = classifier.score(encoded).logits
    classifier.bank.observation_weight.fill_(4.0)
    added = classifier.score(encoded).logits - without
    prompts = torch.nn.functional.normalize(classifier.bank.prompts.mean(2), dim=-1)
    for scan in range(2):
        for finding in (0, 7):
            rows, (positive, negative) = encoded.pathology[scan], prompts[finding]
            shares = torch.softmax(rows @ positive / 0.1, 0)
            answer = torch.nn.functional.normalize((shares[:, None] * rows).sum(0), dim=0)
            expected = 4 * (answer @ positive - answer @ negative)
            assert added[scan, finding].item() == pytest.approx(expected.item(), abs=1e-5)


@torch.no_grad()
def test_a_scan_without_a_valid_query_gets_nothing_added() -> None:
    rows = torch.nn.functional.normalize(torch.randn(2, 3, 8), dim=-1)
    valid = torch.tensor([[True, False, True], [False] * 3])
    positive, negative = torch.randn(4, 8), torch.randn(4, 8)
    found = observation_logits(rows, valid, positive, negative)
    torch.testing.assert_close(found[:1], observation_logits(rows[:1, [0, 2]], valid[:1, [0, 2]], positive, negative))
    assert not found[1].any()
    assert observation_logits(rows[:, :0], valid[:, :0], positive, negative).tolist() == [[0.0] * 4] * 2


@torch.no_grad()
def test_the_exported_classifier_observes_as_the_eager_one(model: VisionLanguageModel, scans: Tensor) -> None:
    classifier = observing(model)
    classifier.bank.observation_weight.fill_(4.0)
    scripted = torch.jit.script(classifier)
    torch.testing.assert_close(scripted(scans), classifier(scans), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(scripted.image(scans).pathology, classifier.image(scans).pathology, atol=1e-5, rtol=1e-4)


def test_only_models_with_queries_store_their_weight(
    model: VisionLanguageModel, classifier: ZeroShotClassifier
) -> None:
    assert "bank.observation_weight" not in classifier.state_dict()
    assert "bank.observation_weight" in observing(model).state_dict()
