"""Evaluation on tiny scans with a tiny network: what may be fitted where, and what is written."""

import copy
import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from bundle.ctfindings.anatomy import ANATOMY_NAMES, THORAX
from bundle.ctfindings.data.datalist import load_datalist
from bundle.ctfindings.data.loaders import cached_dataset, study_loader
from bundle.ctfindings.data.transforms import image_pipeline
from bundle.ctfindings.evaluation import evaluated_model
from bundle.ctfindings.evaluation.classification_section import Classification
from bundle.ctfindings.evaluation.diagnostics import Diagnostics
from bundle.ctfindings.evaluation.evaluate import Evaluation, write_predictions
from bundle.ctfindings.evaluation.evaluated_model import LOCALIZED, EvaluatedModel, collect_scores, whole_scan_steps
from bundle.ctfindings.evaluation.report_sections import ReportRetrieval, SnippetLocalization
from bundle.ctfindings.findings import FINDING_ANATOMY, FINDING_NAMES, TEMPLATES, finding_index
from bundle.ctfindings.inference.findings_record import DISCLAIMER
from bundle.ctfindings.inference.regions import Regions, find_regions
from bundle.ctfindings.metrics.prompt_perturbations import PERTURBATIONS
from bundle.ctfindings.networks.checkpoint import load_checkpoint
from bundle.ctfindings.networks.classifier import ZeroShotClassifier
from bundle.ctfindings.networks.image.image_encoder import ImageEncoder
from bundle.ctfindings.networks.image.image_tower import ConvolutionalTower
from bundle.ctfindings.networks.scoring import FindingScorer
from bundle.ctfindings.networks.text.text_tower import TextTower
from bundle.ctfindings.networks.vision_language import VisionLanguageModel
from bundle.ctfindings.scan.coordinates import world_to_voxel

C, T = len(FINDING_NAMES), len(TEMPLATES)
SPACING = (8.0, 8.0, 8.0)
SPLITS = {"validation": 6, "test": 6}
EFFUSION = finding_index("Pleural effusion")


class Setup(NamedTuple):
    folder: Path
    encoder: Path
    checkpoint: Path
    content: dict[str, Any]


def build_model(encoder: Path) -> VisionLanguageModel:
    tower = ConvolutionalTower(channels=(8, 8, 8, 16), width=16, heads=2, blocks=(1, 1, 1, 1))
    image = ImageEncoder(tower, embedding=16, heads=2)
    return VisionLanguageModel(image, TextTower(str(encoder), embedding=16, hidden=16), FindingScorer())


def write_encoder(folder: Path) -> Path:
    words = (
        "[PAD] [UNK] . no not there is are seen present findings compatible with observed "
        + " ".join(FINDING_NAMES).lower()
    )
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words.split()))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.5,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def write_scan(path: Path, rng: np.random.Generator) -> None:
    """A body of random texture in air, 24 x 20 x 16 voxels of 10 x 10 x 12 mm, stored as LPS."""
    hu = np.full((24, 20, 16), -1000, dtype=np.int16)
    hu[3:21, 3:17] = rng.integers(-900, 900, (18, 14, 16))
    nib.save(nib.Nifti1Image(hu, np.array([[-10.0, 0, 0, 120], [0, -10, 0, 90], [0, 0, 12, -300], [0, 0, 0, 1]])), path)


def captions_of(number: int) -> dict[str, dict[str, Any]]:
    """Two sentences on the lung and one on the heart; every other study is normal, the last of six has no report."""
    if number == 5:
        return {}
    name = FINDING_NAMES[number].lower()
    if number % 2:
        return {
            "lung": {"text": "No emphysema. No atelectasis.", "normal": True},
            "heart": {"text": "No cardiomegaly.", "normal": True},
        }
    return {
        "lung": {"text": f"There is {name}. No pleural effusion.", "normal": False},
        "heart": {"text": "Cardiomegaly is seen.", "normal": False},
    }


def loader_of(datalist: Path, split: str) -> Any:
    return study_loader(
        cached_dataset(load_datalist(datalist, split), whole_scan_steps(image_pipeline(SPACING))), batch_size=1
    )


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    """Twelve scans whose labels are the network's own scores above their median, so that every AUC is 1 by
    construction.
    """
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("evaluation")
    model = build_model(write_encoder(folder / "encoder")).eval()
    checkpoint = folder / "checkpoint.pt"
    torch.save({"model": model.state_dict()}, checkpoint)
    content: dict[str, Any] = {"name": "tiny", "training": []}
    for split, count in SPLITS.items():
        content[split] = [
            {"id": f"{split}{i}", "patient": f"p{split}{i}", "image": f"{split}{i}.nii.gz"} for i in range(count)
        ]
        for number, record in enumerate(content[split]):
            write_scan(folder / record["image"], rng)
            record["captions"] = captions_of(number)
    datalist = write_datalist(folder, content)
    for split in SPLITS:
        logits = collect_scores(loader_of(datalist, split), model).logits
        for record, labels in zip(
            content[split], (logits > np.median(logits, axis=0)).astype(int).tolist(), strict=True
        ):
            record["labels"] = labels
    return Setup(folder, folder / "encoder", checkpoint, content)


def write_datalist(folder: Path, content: dict[str, Any], name: str = "datalist.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(content))
    return path


def evaluate(setup: Setup, content: dict[str, Any], output: Path, **options: Any) -> dict[str, Any]:
    datalist = write_datalist(setup.folder, content, f"{output.name}.json")
    model = EvaluatedModel(build_model(setup.encoder), setup.checkpoint, image_pipeline(SPACING))
    sections = [Classification(**options), ReportRetrieval(), SnippetLocalization()]
    return Evaluation(model, datalist, sections, output, resamples=20).run()


@pytest.fixture(scope="module")
def evaluated(setup: Setup, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("results")
    evaluate(setup, setup.content, output, export_path=output / "model.pt")
    return output


def read_strictly(path: Path) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def test_metrics_are_strict_json_with_the_scores_the_labels_were_made_for(evaluated: Path) -> None:
    record = read_strictly(evaluated / "metrics.json")
    assert record["split"] == "test" and record["scans"] == SPLITS["test"]
    assert record["macro"]["auc"] == record["macro"]["auc_lowest"] == 1.0
    assert record["calibration"]["split"] == "validation" and record["calibration"]["macro_auc"] == 1.0
    assert record["settings"]["datalist"] == f"{evaluated.name}.json", "the folder is no part of the record"
    assert record["evidence"]["hit_rate"] is None, "without masks there is nothing to hit"
    assert record["anatomy_head"] == dict.fromkeys(ANATOMY_NAMES)
    assert (evaluated / "roc.png").stat().st_size > 0 and (evaluated / "auc.png").stat().st_size > 0


def test_calibration_and_thresholds_do_not_depend_on_the_test_labels(
    setup: Setup, evaluated: Path, tmp_path: Path
) -> None:
    content = copy.deepcopy(setup.content)
    for record in content["test"]:
        record["labels"] = [1 - label for label in record["labels"]]
    flipped = evaluate(setup, content, tmp_path / "flipped")
    first = read_strictly(evaluated / "metrics.json")
    assert flipped["macro"]["auc"] == 0.0, "the labels were read"
    assert flipped["calibration"] == first["calibration"], (
        "temperature and Platt scaling come from the calibration split"
    )
    kept = [Diagnostics.load(folder / "diagnostics.npz") for folder in (evaluated, tmp_path / "flipped")]
    for decisions in ("present_own", "present_reference"):
        np.testing.assert_array_equal(getattr(kept[0], decisions), getattr(kept[1], decisions))
    assert [row["threshold"] for row in flipped["findings"]] == [row["threshold"] for row in first["findings"]]


def test_calibration_does_depend_on_the_labels_of_the_calibration_split(
    setup: Setup, evaluated: Path, tmp_path: Path
) -> None:
    """The guard above could pass because nothing is fitted at all."""
    content = copy.deepcopy(setup.content)
    for record in content["validation"][:2]:
        record["labels"] = [1 - label for label in record["labels"]]
    changed = evaluate(setup, content, tmp_path / "changed")["calibration"]
    first = read_strictly(evaluated / "metrics.json")["calibration"]
    assert changed["temperature"] != first["temperature"]
    assert changed["scale"] != first["scale"]


def test_reports_are_measured_for_collapse_and_retrieval(evaluated: Path) -> None:
    record = read_strictly(evaluated / "metrics.json")
    captions = record["collapse"]["captions"]
    assert (captions["texts"], captions["by_anatomy"]["lung"], captions["by_anatomy"]["heart"]) == (10, 5, 5)
    # Three distinct lung texts of abnormal studies and one normal text; two heart texts.
    assert captions["distinct_texts"] == 6
    assert captions["cross_anatomy"]["pairs"] == 25
    assert captions["normal_abnormal"]["pairs"] == 2 * 2 * 3
    assert sum(captions["cross_anatomy"]["histogram"]["counts"]) == 25
    low, high = captions["cross_anatomy"]["mean_interval"]
    assert low <= captions["cross_anatomy"]["mean"] <= high
    assert record["retrieval"]["reports"] == 5
    assert record["collapse"]["prompts"]["polarity"]["pairs"] == C * T
    assert record["templates"]["ids"] == [template.id for template in TEMPLATES]
    assert record["wordings"]["ids"] == [perturbation.id for perturbation in PERTURBATIONS]
    # The tiny tokenizer lower-cases, so that case cannot matter.
    lower, upper = record["wordings"]["macro_auc"][:2]
    assert lower == upper


def test_studies_without_reports_are_scored_all_the_same(setup: Setup, tmp_path: Path) -> None:
    content = copy.deepcopy(setup.content)
    for record in content["test"]:
        del record["captions"]
    record = evaluate(setup, content, tmp_path / "bare")
    assert record["collapse"]["captions"] is None and record["retrieval"] is None and record["image_text"] is None
    assert (tmp_path / "bare" / "report.html").stat().st_size > 0


def test_the_page_is_self_contained_and_says_it_is_research(evaluated: Path) -> None:
    page = (evaluated / "report.html").read_text(encoding="utf-8")
    assert DISCLAIMER in page
    assert "<script" not in page and "http://" not in page and "https://" not in page
    assert page.count('src="data:image/png;base64,') == 6
    assert all(name in page for name in FINDING_NAMES)


def test_another_checkpoint_is_compared_on_the_same_resamples(setup: Setup, evaluated: Path, tmp_path: Path) -> None:
    """Once as a checkpoint and once as the folder of its evaluation; the same model differs from itself by nothing."""
    torch.manual_seed(3)
    other = tmp_path / "other.pt"
    torch.save({"model": build_model(setup.encoder).state_dict()}, other)
    first = evaluate(setup, setup.content, tmp_path / "first", compare=other)["comparison"]
    assert (first["first"], first["second"]) == ("checkpoint.pt", "other.pt")
    auc = {row["statistic"]: row for row in first["statistics"] if row["section"] == "templates"}
    assert auc["mean"]["difference"] == pytest.approx(auc["mean"]["first"] - auc["mean"]["second"])
    assert auc["mean"]["difference"] > 0.05, "the labels are the first model's own scores"
    assert {"captions", "retrieval", "wordings", "calibration_error"} <= {row["section"] for row in first["statistics"]}
    assert read_strictly(tmp_path / "first" / "metrics.json")["macro"]["auc"] == 1.0, (
        "the checkpoint itself is what is scored"
    )
    assert "other.pt" in (tmp_path / "first" / "report.html").read_text(encoding="utf-8")

    same = evaluate(setup, setup.content, tmp_path / "same", compare=evaluated)["comparison"]
    assert same["macro_auc"]["difference"] == pytest.approx(0, abs=1e-6)
    # Kept in single precision, hence not exactly zero.
    assert all(abs(row["difference"]) < 1e-4 for row in same["statistics"] if row["difference"] is not None)


def test_an_evaluation_of_other_scans_is_not_compared_with(setup: Setup, evaluated: Path, tmp_path: Path) -> None:
    content = copy.deepcopy(setup.content)
    content["test"] = content["test"][:5]
    with pytest.raises(ValueError, match="was scored on other studies"):
        evaluate(setup, content, tmp_path / "fewer", compare=evaluated)


def test_exported_weights_give_the_predictions_that_were_scored(setup: Setup, evaluated: Path) -> None:
    classifier = ZeroShotClassifier(build_model(setup.encoder).image, FindingScorer()).eval()
    load_checkpoint(classifier, evaluated / "model.pt")
    with open(evaluated / "predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [record["id"] for record in setup.content["test"]]
    assert "patient" not in rows[0]
    kept = Diagnostics.load(evaluated / "diagnostics.npz").patients
    assert len(set(kept)) == len(rows) and not set(kept) & {record["patient"] for record in setup.content["test"]}
    batch = next(iter(loader_of(setup.folder / f"{evaluated.name}.json", "test")))
    with torch.no_grad():
        probabilities = classifier(batch["image"].float())[0].numpy()
    np.testing.assert_allclose(
        probabilities, [float(rows[0][f"{name} probability"]) for name in FINDING_NAMES], atol=2e-5
    )
    thresholds = [row["threshold"] for row in read_strictly(evaluated / "metrics.json")["findings"]]
    np.testing.assert_allclose(classifier.bank.threshold.numpy(), thresholds, rtol=1e-6)


def test_a_study_in_both_splits_is_refused(setup: Setup, tmp_path: Path) -> None:
    content = copy.deepcopy(setup.content)
    content["test"][2] = content["validation"][1]
    with pytest.raises(ValueError, match="validation1"):
        evaluate(setup, content, tmp_path / "shared")
    content["test"][2] = content["test"][1]
    with pytest.raises(ValueError, match="study test1 occurs twice in split 'test'"):
        evaluate(setup, content, tmp_path / "shared")


def test_a_patient_in_both_splits_is_refused(setup: Setup, tmp_path: Path) -> None:
    content = copy.deepcopy(setup.content)
    content["test"][2]["patient"] = "pvalidation1"
    with pytest.raises(ValueError, match=r"share a patient \(studies validation1 and test2\)") as error:
        evaluate(setup, content, tmp_path / "shared")
    assert "pvalidation1" not in str(error.value), "a datalist may call a patient by name"
    assert not (tmp_path / "shared").exists()


def test_a_split_of_one_patient_is_refused_at_the_start(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = copy.deepcopy(setup.content)
    for record in content["test"]:
        record["patient"] = "one"
    monkeypatch.setattr("bundle.ctfindings.evaluation.evaluated_model.collect_scores", None)
    with pytest.raises(ValueError, match=r"one\.json: split 'test' has scans of one patient"):
        evaluate(setup, content, tmp_path / "one")
    assert not (tmp_path / "one").exists()


@pytest.mark.parametrize("change", ["missing", "unlabelled"])
def test_a_split_that_cannot_be_scored_is_named_in_one_line(setup: Setup, tmp_path: Path, change: str) -> None:
    content = copy.deepcopy(setup.content)
    if change == "missing":
        del content["test"]
    else:
        for record in content["test"]:
            del record["labels"]
    with pytest.raises(ValueError, match=r"change_\w+\.json: .*'test'") as error:
        evaluate(setup, content, tmp_path / f"change_{change}")
    assert "\n" not in str(error.value)


def test_predictions_are_one_table_that_keeps_small_probabilities(tmp_path: Path) -> None:
    file, probabilities = tmp_path / "predictions.csv", np.array([[2.5e-9, 0.25]])
    write_predictions(file, ["a"], probabilities, np.array([[0, -1]]), ["Emphysema", "Lung nodule"])
    assert file.read_text().splitlines() == [
        "id,Emphysema probability,Lung nodule probability,Emphysema label,Lung nodule label",
        "a,2.5e-09,0.25,0,-1",
    ]


def test_a_network_that_learned_nothing_is_scored_but_not_exported(setup: Setup, tmp_path: Path) -> None:
    content = copy.deepcopy(setup.content)
    for record in content["validation"]:
        record["labels"] = [1 - label for label in record["labels"]]
    with pytest.raises(ValueError, match=r"model\.pt: not exported; the model is not calibrated: logits do not rise"):
        evaluate(setup, content, tmp_path / "worse", export_path=tmp_path / "model.pt")
    assert not (tmp_path / "model.pt").exists()
    record = read_strictly(tmp_path / "worse" / "metrics.json")
    assert record["macro"]["auc"] == 1.0 and "not calibrated" in record["warnings"][-1]


def made_up_batch(mask: torch.Tensor | None) -> dict[str, Any]:
    torch.manual_seed(1)
    affine = torch.diag(torch.tensor([4.0, 4, 4, 1], dtype=torch.float64))[None]
    batch: dict[str, Any] = {
        "id": ["s"],
        "patient": ["p"],
        "labels": torch.zeros(1, C, dtype=torch.int64),
        "image": torch.rand(1, 1, 16, 16, 16),
        "image_affine": affine,
        "image_scan_affine": affine,
        "image_scan_shape": torch.tensor([[16, 16, 16]]),
        "regions": torch.ones(1, 1, 8, 8, 8, dtype=torch.uint8),
        "regions_affine": torch.diag(torch.tensor([8.0, 8, 8, 1], dtype=torch.float64))[None],
    }
    if mask is not None:
        batch |= {"anatomy": mask, "anatomy_known": torch.ones(1, len(ANATOMY_NAMES), dtype=torch.bool)}
    return batch


def test_masks_are_compared_with_but_never_used(setup: Setup) -> None:
    """The head says yes to all 64 tokens; the mask has the body in 32 of them: Dice 2 x 32 / (64 + 32), and 0 for the
    rest.
    """
    model = build_model(setup.encoder).eval()
    torch.nn.init.constant_(model.image.anatomy_head.bias, 100.0)
    mask = torch.zeros(1, 1, 16, 16, 16, dtype=torch.uint8)
    mask[..., :8] = 6
    without, with_mask = (collect_scores([made_up_batch(given)], model) for given in (None, mask))
    np.testing.assert_array_equal(with_mask.logits, without.logits)
    np.testing.assert_array_equal(with_mask.peaks_mm, without.peaks_mm)
    assert np.isnan(without.anatomy_dice).all()
    expected = {name: 2 * 32 / 96 if name == "thorax" else 0.0 for name in ANATOMY_NAMES}
    np.testing.assert_allclose(with_mask.anatomy_dice[0], list(expected.values()))


def test_peaks_are_world_coordinates_in_the_region_that_answers(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Regions] = []

    def kept(*given: Any) -> Regions:
        found.append(find_regions(*given))
        return found[-1]

    monkeypatch.setattr(evaluated_model, "find_regions", kept)
    model = build_model(setup.encoder).eval()
    scores = collect_scores(loader_of(write_datalist(setup.folder, setup.content), "test"), model)
    assert scores.peaks_mm.shape == (SPLITS["test"], C, 3)
    lower, upper = np.array([-110, -100, -300]), np.array([120, 90, -300 + 15 * 12])
    peaks = scores.peaks_mm[:, LOCALIZED]
    assert ((peaks >= lower - 1e-6) & (peaks <= upper + 1e-6)).all()
    random = scores.random_mm[:, LOCALIZED]
    assert ((random >= lower - 10) & (random <= upper + 10)).all() and random.std(axis=2).min() > 1
    for regions, valid, peaks_mm in zip(found, scores.anatomy_valid, scores.peaks_mm, strict=True):
        for own, peak_mm in zip(FINDING_ANATOMY, peaks_mm, strict=True):
            row = regions.answering(own if valid[own] else THORAX)
            x, y, z = np.rint(world_to_voxel(peak_mm, regions.affine)).astype(int)
            assert regions.near[row, x, y, z]
