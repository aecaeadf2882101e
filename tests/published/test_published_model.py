"""Evaluation of a published model by its protocol, on scans that take milliseconds."""

import csv
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import Transform

from bundle.ctfindings.evaluation.classification_section import Classification
from bundle.ctfindings.evaluation.evaluate import Evaluation
from bundle.ctfindings.evaluation.protocol_section import PublishedProtocol
from bundle.ctfindings.findings import FINDING_NAMES, FINDINGS, LABEL_SETS
from bundle.ctfindings.networks.image.vit_tower import VisionTransformerTower
from bundle.ctfindings.networks.scoring import FindingScorer
from bundle.ctfindings.published.classifier import PublishedClassifier
from bundle.ctfindings.published.fvlm.image_encoder import FvlmImageEncoder, FvlmScorer
from bundle.ctfindings.published.fvlm.preprocessing import fvlm_pipeline
from bundle.ctfindings.published.published_model import PublishedModel
from bundle.ctfindings.published.radfinder.image_encoder import RadFinderImageEncoder, ScanCombiner, WindowEncoder
from bundle.ctfindings.published.radfinder.preprocessing import radfinder_pipeline


def fvlm_like() -> PublishedClassifier:
    torch.manual_seed(0)
    tower = VisionTransformerTower(
        patch=(8, 8, 4), size=(16, 16, 16), width=12, depth=2, heads=2, perceptron=16, levels=(0,), dropout=0
    )
    encoder = FvlmImageEncoder(tower, embedding=8, heads=2, window=(16, 16, 16))
    anatomy = {finding.name: finding.anatomy for finding in FINDINGS if finding.name in LABEL_SETS["ctrate16_fvlm"]}
    return PublishedClassifier(encoder, FvlmScorer(), {"own": ("{a}.", "Not {a}.")}, anatomy)


def radfinder_like() -> PublishedClassifier:
    torch.manual_seed(0)
    tower = WindowEncoder(window=(8, 8, 8), patch=(4, 4, 4), width=12, depth=1, heads=2, perceptron=16)
    encoder = RadFinderImageEncoder(tower, ScanCombiner(12, 1, 2, 16), embedding=8, hidden=16, bottleneck=8)
    scorer = FindingScorer(row_scale=1.0, tokens=False)
    templates = {"T3": ("There is {a}.", "There is no {a}."), "T7": ("{a} is present.", "{a} is not present.")}
    return PublishedClassifier(encoder, scorer, templates, dict.fromkeys(FINDING_NAMES, "thorax"))


@pytest.fixture(scope="module")
def datalist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scans a split, each finding in two of them; the last scan of a split has no esophagus."""
    folder = tmp_path_factory.mktemp("scans")
    rng = np.random.default_rng(0)
    content: dict[str, Any] = {"name": "small", "description": "noise", "training": []}
    for split in ("validation", "test"):
        content[split] = []
        for index in range(4):
            name = f"{split}_{index}"
            hu = rng.integers(-900, 300, (40, 40, 40)).astype(np.int16)
            hu[:4] = -1000
            mask = np.zeros(hu.shape, np.uint8)
            mask[5:35, 5:35, 5:35], mask[15:25, 15:25, 15:25], mask[28:32, 28:32, 8:30] = 1, 2, 4
            if index < 3:
                mask[18:22, 26:28, 8:30] = 3
            nib.save(nib.Nifti1Image(hu, np.diag([4.0, 4.0, 4.0, 1.0])), folder / f"{name}.nii.gz")
            nib.save(nib.Nifti1Image(mask, np.diag([4.0, 4.0, 4.0, 1.0])), folder / f"{name}_mask.nii.gz")
            labels = [(index + column) % 2 for column in range(len(FINDING_NAMES))]
            paths = {"image": f"{name}.nii.gz", "anatomy": f"{name}_mask.nii.gz"}
            content[split].append({"id": name, "patient": name, **paths, "labels": labels})
    (folder / "datalist.json").write_text(json.dumps(content))
    return folder / "datalist.json"


def evaluate(
    network: PublishedClassifier, steps: list[Transform], datalist: Path, protocol: str, folder: Path
) -> dict[str, Any]:
    torch.manual_seed(1)
    network.bank.prompts.copy_(torch.nn.functional.normalize(torch.randn(network.bank.prompts.shape), dim=-1))
    state = {
        f"{name}.{key}": value for name, part in network.named_children() for key, value in part.state_dict().items()
    }
    torch.save({"model": state}, folder / "model.pt")

    def no_text() -> Any:
        raise AssertionError("the prompts are in the checkpoint")

    model = PublishedModel(network, folder / "model.pt", no_text, steps)
    return Evaluation(model, datalist, [PublishedProtocol(protocol)], folder / "eval", resamples=20).run()


def test_fvlm_by_its_protocol(datalist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = fvlm_pipeline(spacing=(4, 4, 4), margin=(2, 2, 2), least=(16, 16, 16))
    record = evaluate(fvlm_like(), steps, datalist, "fvlm", tmp_path)
    found = record["protocol"]
    assert found["protocol"] == "fvlm" and record["scans"] == found["scans"] == 4 and found["optimistic"]
    assert found["findings_in_mean"] == list(LABEL_SETS["ctrate16_fvlm"]) and "accuracy" in found["macro"]
    assert "1 scores are 0 because the anatomy is outside the field of view" in found["notes"]
    assert record["settings"]["calibration_split"] is None
    assert json.loads((tmp_path / "eval" / "metrics.json").read_text(encoding="utf-8")) == record
    with (tmp_path / "eval" / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [f"test_{index}" for index in range(4)]
    assert (
        "patient" not in rows[0]
        and "Cardiomegaly probability" in rows[0]
        and "Lymphadenopathy probability" not in rows[0]
    )
    assert "Protocol fvlm" in capsys.readouterr().out


def test_fvlm_by_a_protocol_of_18_findings_is_scored_on_its_own_16(datalist: Path, tmp_path: Path) -> None:
    steps = fvlm_pipeline(spacing=(4, 4, 4), margin=(2, 2, 2), least=(16, 16, 16))
    record = evaluate(fvlm_like(), steps, datalist, "ct-clip", tmp_path)["protocol"]
    assert record["findings_in_mean"] == list(LABEL_SETS["ctrate16_fvlm"]) and len(record["findings"]) == 16
    assert any("does not score Medical material, Lymphadenopathy" in note for note in record["notes"])


def test_the_calibrated_protocol_chooses_thresholds_on_other_scans(datalist: Path, tmp_path: Path) -> None:
    steps = radfinder_pipeline(spacing=(4, 4, 4), window=(8, 8, 8))
    record = evaluate(radfinder_like(), steps, datalist, "radfinder-calibrated", tmp_path)
    found = record["protocol"]
    assert len(found["findings_in_mean"]) == 18 and "balanced_accuracy" in found["macro"] and not found["optimistic"]
    assert record["settings"]["calibration_split"] == "validation"


def test_a_scan_without_a_mask_is_named(datalist: Path, tmp_path: Path) -> None:
    content = json.loads(datalist.read_text(encoding="utf-8"))
    del content["test"][1]["anatomy"]
    without = datalist.with_name("without_mask.json")
    without.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"test_1.nii.gz: anatomy: fVLM cannot find organs by itself"):
        evaluate(fvlm_like(), fvlm_pipeline(spacing=(4, 4, 4), least=(16, 16, 16)), without, "fvlm", tmp_path)


def test_scans_that_only_their_record_brings_to_hu_are_scored_as_those_in_hu(datalist: Path, tmp_path: Path) -> None:
    """CT-RATE's raw volumes: what the rescale of the record gives is what the files of the other datalist hold."""
    content = json.loads(datalist.read_text(encoding="utf-8"))
    for study in (study for split in ("validation", "test") for study in content[split]):
        scan = nib.load(datalist.parent / study["image"])
        study["image"] = f"raw_{study['image']}"
        nib.save(
            nib.Nifti1Image(np.asarray(scan.dataobj) + np.int16(1024), scan.affine), datalist.parent / study["image"]
        )
        study["stored"] = {"slope": 1.0, "intercept": -1024.0}
    raw = datalist.with_name("raw.json")
    raw.write_text(json.dumps(content))
    steps = radfinder_pipeline(spacing=(4, 4, 4), window=(8, 8, 8))
    found = []
    for listed, folder in ((datalist, tmp_path / "hu"), (raw, tmp_path / "raw")):
        folder.mkdir()
        evaluate(radfinder_like(), steps, listed, "radfinder", folder)
        found.append((folder / "eval" / "predictions.csv").read_text(encoding="utf-8"))
    assert found[0] == found[1]


def test_a_published_model_is_scored_by_its_protocol_alone(datalist: Path, tmp_path: Path) -> None:
    network = radfinder_like()
    torch.save({"model": {"bank.prompts": network.bank.prompts}}, tmp_path / "model.pt")
    model = PublishedModel(
        network, tmp_path / "model.pt", lambda: None, radfinder_pipeline(spacing=(4, 4, 4), window=(8, 8, 8))
    )  # type: ignore
    model.load = lambda: None  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="a published model can be evaluated by PublishedProtocol only"):
        Evaluation(model, datalist, [Classification()], tmp_path / "eval", resamples=20).run()


@pytest.mark.parametrize("model", ["fvlm", "radfinder"])
def test_the_configuration_evaluates_a_published_model_by_its_protocol(bundle_root: Path, model: str) -> None:
    parser = ConfigParser()
    names = ("train.json", "evaluate.json", f"networks/{model}.json")
    parser.read_config([str(bundle_root / "configs" / name) for name in names])
    sections = parser.get_parsed_content("sections")
    assert [(type(section), section.name) for section in sections] == [(PublishedProtocol, model)]
    assert parser["evaluated_model"]["preprocessing"] == "@image_pipeline"
    assert parser["evaluated_model"]["_target_"].endswith(".PublishedModel")
