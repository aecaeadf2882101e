"""Answers of the network for one encoded scan: findings, free-text queries and their token maps."""

import pytest
import torch
from torch import Tensor

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.findings import FINDING_NAMES, fill_template
from bundle.ctfindings.inference.answers import (
    denial,
    differences,
    score_findings,
    score_queries,
    template_spread,
)
from bundle.ctfindings.inference.findings_record import QueryAnswer
from bundle.ctfindings.inference.service import FindingsService
from bundle.ctfindings.networks.classifier import ZeroShotClassifier, anatomy_warnings
from bundle.ctfindings.networks.image.image_encoder import ImageEmbedding


@pytest.fixture(scope="module")
def classifier(service: FindingsService) -> ZeroShotClassifier:
    return service.network


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.rand(1, 1, 32, 32, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def encoded(classifier: ZeroShotClassifier, image: Tensor) -> ImageEmbedding:
    with torch.inference_mode():
        return classifier.image.encode_scan(image)


def encoded_with(classifier: ZeroShotClassifier, image: Tensor, anatomy: Tensor) -> ImageEmbedding:
    with torch.inference_mode():
        return classifier.image.encode_scan(image, anatomy)


def test_template_probabilities_and_calibration_come_from_the_bank(
    classifier: ZeroShotClassifier, encoded: ImageEmbedding
) -> None:
    scores = classifier.score(encoded)
    finding = score_findings(classifier, encoded)[3].answer
    assert finding.probability == pytest.approx(float(torch.sigmoid(scores.logits[0, 3])), abs=1e-6)
    assert finding.template_probabilities["T7"] == pytest.approx(
        float(torch.sigmoid(scores.template_logits[0, 6, 3])), abs=1e-6
    )


def test_a_template_asked_as_a_query_gets_the_logit_of_that_template(
    service: FindingsService, encoded: ImageEmbedding
) -> None:
    # T1 is "{a}." against "No {a}.", which is what a query of that text is set against.
    column = FINDING_NAMES.index("Hiatal hernia")
    assert service._text is not None
    (scored,) = score_queries(service.network, service._text, encoded, [fill_template("{a}.", "Hiatal hernia")])
    assert scored.answer.nearest_findings[0].name == "Hiatal hernia"
    expected = torch.sigmoid(service.network.score(encoded).template_logits[0, 0, column])
    assert scored.score == pytest.approx(float(expected), abs=1e-5)


def test_the_percentile_is_the_share_of_unrelated_texts_with_a_lower_score_in_the_same_anatomy(
    service: FindingsService, encoded: ImageEmbedding
) -> None:
    text, query = service._text, "fluid around the lung"
    assert text is not None
    others = ["a red bicycle", "boiled potatoes", "the train is late", "a wooden chair"]
    unrelated = differences(text, others)
    (scored,) = score_queries(service.network, text, encoded, [query], unrelated)
    parts = (encoded.anatomy, encoded.anatomy_valid, encoded.field, encoded.membership)
    row = torch.tensor([ANATOMY_NAMES.index(scored.answer.anatomy)])
    alone = [float(torch.sigmoid(service.network.scorer(*parts, each[None, None], row)[0])) for each in unrelated]
    assert isinstance(scored.answer, QueryAnswer)
    assert scored.answer.percentile == sum(score < scored.score for score in alone) / 4
    # A text that is no different from its denial has the score 0.5.
    (scored,) = score_queries(service.network, text, encoded, [query], torch.zeros(3, unrelated.shape[1]))
    assert isinstance(scored.answer, QueryAnswer)
    assert scored.answer.percentile == (1.0 if scored.score > 0.5 else 0.0)


def test_the_thorax_answers_for_an_anatomy_that_was_not_found(classifier: ZeroShotClassifier, image: Tensor) -> None:
    anatomy = torch.full((1, 1, 32, 32, 48), 6, dtype=torch.uint8)
    anatomy[..., :4, :4, :4] = 2
    rows = {
        scored.answer.key: ANATOMY_NAMES[scored.row]
        for scored in score_findings(classifier, encoded_with(classifier, image, anatomy))
    }
    assert (rows["Cardiomegaly"], rows["Hiatal hernia"], rows["Medical material"]) == ("heart", "thorax", "thorax")


def test_a_missing_anatomy_is_named_with_the_findings_it_affects(classifier: ZeroShotClassifier, image: Tensor) -> None:
    encoded = encoded_with(classifier, image, torch.full((1, 1, 32, 32, 48), 6, dtype=torch.uint8))
    by_name = {scored.answer.key: scored.answer for scored in score_findings(classifier, encoded)}
    assert not by_name["Cardiomegaly"].anatomy_found and by_name["Medical material"].anatomy_found
    affected = "Cardiomegaly, Pericardial effusion, Coronary artery wall calcification"
    expected = f"Heart was not found in the scan: {affected} were not assessed"
    assert any(line.startswith(expected) for line in classifier.warnings(encoded.anatomy_valid[0].tolist()))
    assert anatomy_warnings([True] * len(ANATOMY_NAMES)) == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [("Fluid around the lung", "No fluid around the lung"), ("COPD", "No COPD"), ("nodule.", "No nodule.")],
)
def test_denial_of_a_query(query: str, expected: str) -> None:
    assert denial(query) == expected


def test_spread_is_mean_deviation_and_range() -> None:
    assert template_spread({"T1": 0.2, "T2": 0.4}) == pytest.approx({"mean": 0.3, "sd": 0.1, "min": 0.2, "max": 0.4})
