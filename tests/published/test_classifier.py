"""Published models behind the interface of inference, at a size that takes milliseconds."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from torch import Tensor, nn
from transformers import BertTokenizer

from bundle.ctfindings.findings import FINDING_NAMES, LABEL_SETS
from bundle.ctfindings.inference.predictor import FindingsPredictor
from bundle.ctfindings.networks.classifier import load_classifier
from bundle.ctfindings.networks.image.pooling import token_membership
from bundle.ctfindings.networks.image.vit_tower import VisionTransformerTower
from bundle.ctfindings.networks.scoring import FindingScorer
from bundle.ctfindings.published.classifier import PublishedClassifier, warm_started_fvlm_tower
from bundle.ctfindings.published.fvlm.image_encoder import FvlmImageEncoder, FvlmScorer
from bundle.ctfindings.published.radfinder.image_encoder import RadFinderImageEncoder, ScanCombiner, WindowEncoder
from bundle.ctfindings.published.text_towers import PublishedTextTower, fvlm_text_tower, radfinder_text_tower

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


def small_radfinder(progress: bool = False) -> PublishedClassifier:
    torch.manual_seed(0)
    tower = WindowEncoder(window=(8, 8, 4), patch=(4, 4, 2), width=12, depth=2, heads=2, perceptron=16)
    encoder = RadFinderImageEncoder(
        tower, ScanCombiner(12, 1, 2, 16), embedding=8, hidden=16, bottleneck=8, progress=progress
    )
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


def test_prompts_are_filled_as_they_are_written() -> None:
    texts = small_fvlm().prompt_texts()
    assert len(texts) == len(FINDING_NAMES) * 2
    assert texts[2 * FINDING_NAMES.index("Lung nodule") :][:2] == ["Nodule.", "Not Nodule."]
    assert texts[2 * FINDING_NAMES.index("Cardiomegaly") :][:2] == ["Cardiomegaly.", "Not Cardiomegaly."]


def test_a_finding_that_is_not_scored_is_not_in_the_answers(mask: Tensor) -> None:
    classifier = small_fvlm()
    classifier.fill_prompts(hashed)
    answers = FindingsPredictor(classifier)(image_of((24, 20, 18)), mask)
    assert [answer.name for answer in answers.findings] == [name for name in FINDING_NAMES if name in ORGAN]
    by_name = {answer.name: answer for answer in answers.findings}
    assert by_name["Cardiomegaly"].anatomy_found and list(by_name["Cardiomegaly"].template_probabilities) == ["one"]
    assert not by_name["Hiatal hernia"].anatomy_found and by_name["Hiatal hernia"].probability == 0
    assert not answers.maps["Hiatal hernia"].any() and answers.maps["Cardiomegaly"].any()
    assert any(
        line.startswith("esophagus was not found in the scan: Hiatal hernia was given the probability 0")
        for line in answers.warnings
    )
    assert any(
        line.startswith("this model does not score Medical material, Arterial wall calcification")
        for line in answers.warnings
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
    answers = FindingsPredictor(classifier, text, ["a large heart"])(image_of((24, 20, 18)), mask)
    (query,) = answers.queries
    assert {near.name for near in query.nearest_findings} == set(ORGAN)
    assert answers.maps[query.key].shape == (3, 5, 9)


def test_radfinder_answers_on_the_whole_scan_and_its_maps_lie_on_window_columns() -> None:
    classifier = small_radfinder()
    classifier.fill_prompts(hashed)
    answers = FindingsPredictor(classifier)(image_of((16, 8, 12)))
    assert len(answers.findings) == 18 and {answer.anatomy for answer in answers.findings} == {"thorax"}
    (warning,) = answers.warnings
    assert "the threshold 0.5 was not chosen on any data" in warning
    assert answers.maps["Emphysema"].shape == (2, 1, 6)
    np.testing.assert_allclose(answers.token_affine @ [1, 0, 2, 1], [11.5, 3.5, 4.5, 1])


def test_windows_in_one_pass_or_one_by_one_are_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    classifier = small_radfinder(progress=True)
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
    with pytest.raises(ValueError, match="10 x 8 x 4 voxels is not whole windows"):
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
    with pytest.raises(ValueError, match="holds no embeddings of the prompts; convert it again with --text-encoder"):
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


@pytest.fixture(scope="module")
def cxr_bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder as CXR-BERT's: a vocabulary, and a configuration that names classes of remote code."""
    folder = tmp_path_factory.mktemp("cxr_bert")
    characters = list(string.ascii_lowercase + string.punctuation)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{character}" for character in characters)]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    remote = {"tokenizer_class": "CXRBertTokenizer", "auto_map": {"AutoTokenizer": ["remote.CXRBertTokenizer", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(remote))
    (folder / "remote.py").write_text("raise RuntimeError('remote code was run')")
    return str(folder)


def test_the_text_of_fvlm_is_the_first_token_without_token_types(cxr_bert: str) -> None:
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "vocab_size": 200,
    }
    tower = fvlm_text_tower(cxr_bert, embedding=8, **sizes).eval()
    for parameter in tower.parameters():
        nn.init.normal_(parameter, std=0.3)
    tower.trunk.embeddings.token_type_embeddings.weight.data.zero_()
    texts = ["Not Emphysema.", "a", "Nodule."]
    with torch.no_grad():
        together = tower(texts, "prompt")
        apart = torch.cat([tower([text], "prompt") for text in texts])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    with pytest.raises(ValueError, match="role 'poem' is unknown"):
        tower(texts, "poem")


@pytest.mark.parametrize("make", [fvlm_text_tower, radfinder_text_tower])
def test_a_folder_without_a_tokenizer_is_refused(make: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no tokenizer is there; give the folder with"):
        make(str(tmp_path / "nowhere"))


def test_a_name_without_a_vocabulary_is_not_taken_for_another_encoder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # As on the command line, where the name of a folder that is not there could be one of the hub.
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match=r"^cxr_bert: no tokenizer is there; give the folder with vocab\.txt of CXR-BERT"
    ):
        fvlm_text_tower("cxr_bert")


@pytest.mark.parametrize("rows", [100, 100_000])
@pytest.mark.parametrize("make", [fvlm_text_tower, radfinder_text_tower])
def test_the_tokenizer_of_another_encoder_is_refused(make: Any, rows: int, cxr_bert: str, bundle_root: Path) -> None:
    folder = cxr_bert if make is fvlm_text_tower else str(bundle_root / "models" / "text_encoder")
    pieces = len(BertTokenizer.from_pretrained(folder))
    rows = rows if pieces < 1000 or rows > pieces else pieces - 1
    with pytest.raises(
        ValueError, match=f"its tokenizer has {pieces} pieces and the encoder {rows}; give the folder with"
    ):
        make(folder, vocab_size=rows)


def test_the_last_real_token_is_read_on_either_side() -> None:
    tower = PublishedTextTower(None, nn.Identity(), nn.Identity(), pooling="last")  # type: ignore[arg-type]
    hidden = torch.arange(8.0).view(2, 4, 1)
    assert tower.pool(hidden, torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])).flatten().tolist() == [1, 7]
    assert tower.pool(hidden, torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])).flatten().tolist() == [3, 7]


def test_a_warm_start_gives_the_tower_for_our_axes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no image tower of fVLM"):
        torch.save({"model": {"image.x": torch.zeros(1)}}, tmp_path / "other.pt")
        warm_started_fvlm_tower(tmp_path / "other.pt")
    with torch.device("meta"):
        whole = VisionTransformerTower().state_dict()
    shapes = {key: torch.zeros(1).expand(value.shape) for key, value in whole.items()}
    position = torch.rand(shapes["position"].shape)
    torch.save(
        {"model": {f"image.tower.{key}": value for key, value in {**shapes, "position": position}.items()}},
        tmp_path / "fvlm.pt",
    )
    started = warm_started_fvlm_tower(tmp_path / "fvlm.pt")
    assert torch.equal(started.position, position.flip(2, 3))


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
