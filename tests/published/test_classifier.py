"""Published models behind the interface of inference, at a size that takes milliseconds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from torch import Tensor, nn

from bundle.ctfindings.findings import FINDING_NAMES, LABEL_SETS
from bundle.ctfindings.inference.answers import ScoredAnswer, score_findings, score_queries
from bundle.ctfindings.inference.encoding import token_affine
from bundle.ctfindings.networks.classifier import load_classifier
from bundle.ctfindings.networks.image.pooling import token_membership
from bundle.ctfindings.networks.image.vit_tower import VisionTransformerTower
from bundle.ctfindings.networks.scoring import FindingScorer
from bundle.ctfindings.published.classifier import PublishedClassifier
from bundle.ctfindings.published.fvlm.image_encoder import FvlmImageEncoder, FvlmScorer
from bundle.ctfindings.published.radfinder.image_encoder import RadFinderImageEncoder, ScanCombiner, WindowEncoder

TEMPLATES = {"one": ("{a}.", "Not {a}.")}
ORGAN = {
    "Cardiomegaly": "heart",
    "Lung nodule": "lung",
    "Hiatal hernia": "esophagus",
    "Emphysema": "lung",
    "Atelectasis": "lung",
}


def small_fvlm() -> PublishedClassifier:
    torch.manual_seed(0)
    tower = VisionTransformerTower(
        patch=(8, 4, 2), size=(16, 16, 16), width=12, depth=3, heads=2, perceptron=16, levels=(0, 1), dropout=0
    )
    encoder = FvlmImageEncoder(tower, embedding=8, heads=2, window=(16, 16, 16))
    nn.init.normal_(encoder.query)
    return PublishedClassifier(encoder, FvlmScorer(), TEMPLATES, ORGAN, {"Lung nodule": "Nodule"}).eval()


def small_radfinder() -> PublishedClassifier:
    torch.manual_seed(0)
    tower = WindowEncoder(window=(8, 8, 4), patch=(4, 4, 2), width=12, depth=2, heads=2, perceptron=16)
    encoder = RadFinderImageEncoder(tower, ScanCombiner(12, 1, 2, 16), embedding=8, hidden=16, bottleneck=8)
    scorer = FindingScorer(row_scale=1.0, tokens=False)
    return PublishedClassifier(encoder, scorer, TEMPLATES, dict.fromkeys(FINDING_NAMES, "thorax")).eval()


def hashed(texts: list[str], role: str) -> Tensor:
    """Stands in for a text tower: unit vectors that depend on the text alone."""
    rows = [torch.randn(8, generator=torch.Generator().manual_seed(sum(map(ord, text)))) for text in texts]
    return F.normalize(torch.stack(rows), dim=-1)


@pytest.fixture
def mask() -> Tensor:
    mask = torch.zeros(1, 1, 24, 20, 18, dtype=torch.uint8)
    mask[:, :, 2:20, 2:18, 2:16] = 1
    mask[:, :, 8:14, 8:12, 6:10] = 2
    return mask


def image_of(shape: tuple[int, ...]) -> MetaTensor:
    return MetaTensor(
        torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(1)), affine=torch.eye(4, dtype=torch.float64)
    )


def answers_by_key(scored: list[ScoredAnswer]) -> dict[str, ScoredAnswer]:
    return {each.answer.key: each for each in scored}


def test_prompts_are_filled_as_they_are_written() -> None:
    texts = small_fvlm().prompt_texts()
    assert len(texts) == len(FINDING_NAMES) * 2
    assert texts[2 * FINDING_NAMES.index("Lung nodule") :][:2] == ["Nodule.", "Not Nodule."]
    assert texts[2 * FINDING_NAMES.index("Cardiomegaly") :][:2] == ["Cardiomegaly.", "Not Cardiomegaly."]


def test_a_finding_that_is_not_scored_is_not_in_the_answers(mask: Tensor) -> None:
    classifier = small_fvlm()
    classifier.fill_prompts(hashed)
    encoded = classifier.image.encode_scan(image_of((24, 20, 18)).as_tensor(), mask)
    scored = answers_by_key(score_findings(classifier, encoded))
    assert list(scored) == [name for name in FINDING_NAMES if name in ORGAN]
    by_name: dict[str, Any] = {name: each.answer for name, each in scored.items()}
    warnings = classifier.warnings(encoded.anatomy_valid[0].tolist())
    assert by_name["Cardiomegaly"].anatomy_found and list(by_name["Cardiomegaly"].template_probabilities) == ["one"]
    assert not by_name["Hiatal hernia"].anatomy_found and by_name["Hiatal hernia"].probability == 0
    assert not scored["Hiatal hernia"].token_map.any() and scored["Cardiomegaly"].token_map.any()
    assert any(
        line.startswith("Esophagus was not found in the scan: Hiatal hernia was given the probability 0")
        for line in warnings
    )
    assert any(
        line.startswith("This model does not score Medical material, Arterial wall calcification") for line in warnings
    )


def test_a_probability_is_the_softmax_of_both_similarities_over_the_temperature(mask: Tensor) -> None:
    classifier = small_fvlm()
    classifier.fill_prompts(hashed)
    with torch.no_grad():
        encoded = classifier.image.encode_scan(image_of((24, 20, 18)).as_tensor(), mask)
        heart = encoded.anatomy[0, 1]
        pair = hashed(["Cardiomegaly.", "Not Cardiomegaly."], "prompt")
        expected = torch.softmax(pair @ heart / 0.07, dim=0)[0]
        found = classifier.score(encoded).probabilities[0, FINDING_NAMES.index("Cardiomegaly")]
    assert float(found) == pytest.approx(float(expected), abs=1e-6)


def test_the_windows_of_a_large_scan_see_their_organ_alone(mask: Tensor) -> None:
    encoder = small_fvlm().image
    image = image_of((24, 20, 18)).as_tensor()
    with torch.no_grad():
        encoded = encoder.encode_scan(image, mask)
        # The heart's window begins at the middle of its box less half of 16, within the volume: x 10 - 8, y 9 - 8, z 7
        # - 8 -> 0.
        window = (..., slice(2, 18), slice(1, 17), slice(0, 16))
        alone = torch.where(mask[window] == 2, 2, 0)
        expected = encoder(image[window], token_membership(alone.to(torch.uint8), (8, 4, 2)))
    torch.testing.assert_close(encoded.anatomy[0, 1], expected.anatomy[0, 1])
    assert encoded.grid == [3, 5, 9] and encoded.anatomy_valid[0].tolist() == [True, True, False, False, False, False]


def test_free_text_is_answered_on_an_organ_the_model_has(mask: Tensor) -> None:
    classifier = small_fvlm()
    classifier.fill_prompts(hashed)
    text: Any = SmallText()
    encoded = classifier.image.encode_scan(image_of((24, 20, 18)).as_tensor(), mask)
    (scored,) = score_queries(classifier, text, encoded, ["a large heart"])
    query: Any = scored.answer
    assert {near.name for near in query.nearest_findings} == set(ORGAN)
    assert scored.token_map.shape == (3, 5, 9)


def test_radfinder_answers_on_the_whole_scan_and_its_maps_lie_on_window_columns() -> None:
    classifier = small_radfinder()
    classifier.fill_prompts(hashed)
    encoded = classifier.image.encode_scan(image_of((16, 8, 12)).as_tensor())
    scored = answers_by_key(score_findings(classifier, encoded))
    assert len(scored) == 18 and {each.answer.anatomy for each in scored.values()} == {"thorax"}
    (warning,) = classifier.warnings(encoded.anatomy_valid[0].tolist())
    assert "the threshold 0.5 was not chosen on any data" in warning
    assert scored["Emphysema"].token_map.shape == (2, 1, 6)
    tokens = token_affine(np.eye(4), classifier.image.tower.stride)  # type: ignore[arg-type]
    np.testing.assert_allclose(tokens @ [1, 0, 2, 1], [11.5, 3.5, 4.5, 1])


def test_windows_in_one_pass_or_one_by_one_are_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    classifier = small_radfinder()
    image = image_of((16, 16, 8)).as_tensor()
    with torch.no_grad():
        single = classifier.image.encode_scan(image)
        classifier.image.windows_at_once = 3
        several = classifier.image.encode_scan(image)
    for one, other in zip(single, several, strict=True):
        if isinstance(one, Tensor):
            torch.testing.assert_close(one, other)
    assert "windows" in capsys.readouterr().err


def test_a_scan_that_is_not_whole_windows_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a scan of whole windows .*, found 10 x 8 x 4 voxels"):
        small_radfinder().image.encode_scan(torch.zeros(1, 1, 10, 8, 4))


def write_checkpoint(path: Path, classifier: PublishedClassifier, text: nn.Module | None = None) -> Path:
    state = {
        f"{name}.{key}": value for name, part in classifier.named_children() for key, value in part.state_dict().items()
    }
    state |= {} if text is None else {f"text.{key}": value for key, value in text.state_dict().items()}
    torch.save({"model": state, "source": {"licence": "none"}}, path)
    return path


def test_a_checkpoint_without_prompts_gets_them_from_the_text_tower(tmp_path: Path) -> None:
    text = SmallText()
    path = write_checkpoint(tmp_path / "model.pt", small_fvlm(), text)
    loaded = small_fvlm()
    load_classifier(loaded, path, text_tower=SmallText)  # type: ignore[arg-type]
    expected = text(loaded.prompt_texts(), "prompt").view(loaded.bank.prompts.shape)
    torch.testing.assert_close(loaded.bank.prompts, expected)
    with pytest.raises(ValueError, match="holds no prompt embeddings; convert it again with --text-encoder"):
        load_classifier(small_fvlm(), path)


class SmallText(nn.Module):
    """A text tower with one parameter."""

    snippet_head_trained = False

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, texts: list[str], role: str) -> Tensor:
        return hashed(texts, role) * self.scale


def test_a_checkpoint_with_prompts_needs_no_text(tmp_path: Path) -> None:
    classifier = small_fvlm()
    classifier.fill_prompts(hashed)
    loaded = small_fvlm()
    load_classifier(loaded, write_checkpoint(tmp_path / "model.pt", classifier))
    assert torch.equal(loaded.bank.prompts, classifier.bank.prompts)
    assert torch.equal(loaded.image.tower.embed.weight, classifier.image.tower.embed.weight)


@pytest.mark.parametrize(
    ("name", "findings"), [("fvlm", LABEL_SETS["ctrate16_fvlm"]), ("radfinder", LABEL_SETS["ctrate18"])]
)
def test_the_configuration_scores_the_findings_of_its_protocol(
    bundle_root: Path, name: str, findings: tuple[str, ...]
) -> None:
    overlay = ConfigParser.load_config_file(str(bundle_root / "configs" / "networks" / f"{name}.json"))
    assert set(overlay["finding_anatomy"]) == set(findings)
    parser = ConfigParser(ConfigParser.load_config_file(str(bundle_root / "configs" / "inference.json")) | overlay)
    parser["bundle_root"] = str(bundle_root)
    with torch.device("meta"):
        classifier = parser.get_parsed_content("network_def")
    assert isinstance(classifier, PublishedClassifier) and classifier.bank.prompts.shape[2] == len(overlay["templates"])
    assert parser.get_parsed_content("ckpt_path").endswith(f"models/{name}.pt")
