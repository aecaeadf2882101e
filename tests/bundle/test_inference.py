"""The inference workflow as a MONAI bundle, and the answers it gives for one scan."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow, ckpt_export, verify_net_in_out
from monai.data import MetaTensor

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.findings import FINDING_NAMES, fill_template
from bundle.ctfindings.inference.bundle_workflow import scan_records
from bundle.ctfindings.inference.findings_record import FindingsRecord
from bundle.ctfindings.inference.predictor import Answers, FindingsPredictor, check_queries, denial, token_affine
from bundle.ctfindings.networks.checkpoint import load_checkpoint
from bundle.ctfindings.networks.classifier import anatomy_warnings

Workflow = Callable[..., ConfigWorkflow]


@pytest.fixture(scope="module")
def workflow(bundle_root: Path, untrained_weights: Path) -> Workflow:
    """Makes an initialized workflow with keys overridden."""

    def make(**keys: Any) -> ConfigWorkflow:
        made = ConfigWorkflow(
            config_file=str(bundle_root / "configs" / "inference.json"),
            workflow_type="inference",
            logging_file=False,
            bundle_root=str(bundle_root),
            ckpt_path=str(untrained_weights),
            **keys,
        )
        made.initialize()
        return made

    return make


@pytest.fixture(scope="module")
def predictor(workflow: Workflow, untrained_weights: Path) -> FindingsPredictor:
    made = workflow(queries=["x"])
    classifier, text = made.network_def.eval(), made.inferer.text
    load_checkpoint({**dict(classifier.named_children()), "text": text}, untrained_weights)
    return FindingsPredictor(classifier, text, ["fluid around the lung", "Hiatal hernia."])


@pytest.fixture(scope="module")
def image() -> MetaTensor:
    affine = torch.diag(torch.tensor([4.0, 4.0, 3.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor([-100.0, -50.0, 20.0])
    return MetaTensor(torch.rand(1, 1, 32, 32, 48, generator=torch.Generator().manual_seed(0)), affine=affine)


@pytest.fixture(scope="module")
def answers(predictor: FindingsPredictor, image: MetaTensor) -> Answers:
    return predictor(image)


def test_every_required_property_is_there(workflow: Workflow) -> None:
    assert workflow().check_properties() == []


def test_the_network_takes_and_gives_what_the_metadata_says(bundle_root: Path) -> None:
    configs = bundle_root / "configs"
    verify_net_in_out(
        "network_def",
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.json"),
        device="cpu",
    )


def test_the_exported_network_scores_like_the_network(
    workflow: Workflow, bundle_root: Path, untrained_weights: Path, tmp_path: Path, image: MetaTensor
) -> None:
    configs = bundle_root / "configs"
    ckpt_export(
        "network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(untrained_weights),
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.json"),
    )
    network = workflow().network_def.eval()
    network.load_state_dict(torch.load(untrained_weights, weights_only=True))
    with torch.no_grad():
        expected = network(image.as_tensor())
        exported = torch.jit.load(tmp_path / "model.ts").eval()(image.as_tensor())
    torch.testing.assert_close(exported, expected, atol=1e-5, rtol=1e-4)


def test_metadata_has_what_the_zoo_asks_for(bundle_root: Path) -> None:
    metadata = json.loads((bundle_root / "configs" / "metadata.json").read_text(encoding="utf-8"))
    required = "schema version monai_version pytorch_version numpy_version required_packages_version task description authors copyright"
    assert not [key for key in [*required.split(), "network_data_format", "changelog"] if key not in metadata]
    assert isinstance(metadata["authors"], str)
    tensors = metadata["network_data_format"]
    for tensor in (tensors["inputs"]["image"], tensors["outputs"]["pred"]):
        assert not {"type", "format", "num_channels", "spatial_shape", "dtype", "value_range"} - set(tensor)
    assert tuple(tensors["outputs"]["pred"]["channel_def"].values()) == FINDING_NAMES


def test_the_network_is_that_of_training(bundle_root: Path) -> None:
    inference, train = (
        json.loads((bundle_root / "configs" / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("inference", "train")
    )
    for key in ("spacing", "hu_window", "divisible", "embedding", "image_tower", "text_encoder"):
        assert inference[key] == train[key], key


def test_a_scan_becomes_a_record_on_its_own_grid(
    workflow: Workflow, phantom_scan: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan, anatomy = phantom_scan
    workflow(
        image=str(scan),
        anatomy=str(anatomy),
        queries=["fluid around the lung"],
        evidence="all",
        output_dir=str(tmp_path),
    ).run()
    folder = tmp_path / "scan"
    record = FindingsRecord.from_json((folder / "findings.json").read_text(encoding="utf-8"))
    assert [answer.name for answer in record.findings] == list(FINDING_NAMES)
    assert [answer.text for answer in record.queries] == ["fluid around the lung"]
    assert list(record.seconds) == ["load", "preprocess", "encode", "score", "evidence", "write", "total"]
    written, original = nib.load(folder / "evidence.nii.gz"), nib.load(scan)
    assert written.shape == (*original.shape, len(FINDING_NAMES) + 1)
    np.testing.assert_allclose(written.affine, original.affine, atol=1e-4)
    printed = capsys.readouterr().out
    assert "Pleural effusion" in printed and str(folder / "report.html") in printed


def test_template_probabilities_and_calibration_come_from_the_bank(
    predictor: FindingsPredictor, image: MetaTensor
) -> None:
    encoded = predictor.encode(image)
    scores = predictor.classifier.score(encoded)
    found, _ = predictor.score_findings(encoded)
    assert found[3].probability == pytest.approx(float(torch.sigmoid(scores.logits[0, 3])), abs=1e-6)
    assert found[3].template_probabilities["T7"] == pytest.approx(
        float(torch.sigmoid(scores.template_logits[0, 6, 3])), abs=1e-6
    )


def test_a_template_asked_as_a_query_gets_the_logit_of_that_template(
    predictor: FindingsPredictor, image: MetaTensor
) -> None:
    # T1 is "{a}." against "No {a}.", which is what a query of that text is set against.
    encoded = predictor.encode(image)
    column = FINDING_NAMES.index("Hiatal hernia")
    (answer,), _ = predictor.ask(encoded, [fill_template("{a}.", "Hiatal hernia")])
    assert answer.nearest_findings[0].name == "Hiatal hernia"
    expected = torch.sigmoid(predictor.classifier.score(encoded).template_logits[0, 0, column])
    assert answer.score == pytest.approx(float(expected), abs=1e-5)


def test_the_scan_is_encoded_once_whatever_is_asked(
    predictor: FindingsPredictor, image: MetaTensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    forward = predictor.classifier.image.tower.forward
    monkeypatch.setattr(predictor.classifier.image.tower, "forward", lambda x: calls.append(1) or forward(x))
    predictor(image)
    assert len(calls) == 1


def test_evidence_is_zero_outside_the_anatomy(predictor: FindingsPredictor, image: MetaTensor) -> None:
    anatomy = torch.full((1, 1, 32, 32, 48), 6, dtype=torch.uint8)
    anatomy[..., :4, :4, :4] = 2
    answers = predictor(image, anatomy)
    inside = torch.zeros(8, 8, 12, dtype=torch.bool)
    inside[:2, :2, :2] = True  # the token of the heart and its neighbours
    assert torch.equal(answers.maps["Cardiomegaly"] > 0, inside)
    assert (answers.maps["Medical material"] > 0).all()


def test_a_missing_anatomy_is_named_with_the_findings_it_affects(
    predictor: FindingsPredictor, image: MetaTensor
) -> None:
    answers = predictor(image, torch.full((1, 1, 32, 32, 48), 6, dtype=torch.uint8))
    by_name = {answer.name: answer for answer in answers.findings}
    assert not by_name["Cardiomegaly"].anatomy_found and by_name["Medical material"].anatomy_found
    expected = "heart was not found in the scan: Cardiomegaly, Pericardial effusion, Coronary artery wall calcification were scored"
    assert any(line.startswith(expected) for line in answers.warnings)
    assert anatomy_warnings([True] * len(ANATOMY_NAMES)) == []


def test_tokens_lie_at_the_centre_of_their_voxels() -> None:
    affine = np.diag([4.0, 4.0, 3.0, 1.0])
    affine[:3, 3] = [-100, -50, 20]
    # The first token covers voxels 0..3, whose centre is at voxel 1.5.
    np.testing.assert_allclose(token_affine(affine, (4, 4, 4)) @ [0, 0, 0, 1], [-94, -44, 24.5, 1])
    np.testing.assert_allclose(token_affine(affine, (4, 4, 4)) @ [1, 0, 2, 1], [-78, -44, 48.5, 1])


def test_the_midline_is_the_centre_of_the_body_crop(answers: Answers) -> None:
    assert answers.midline_mm == pytest.approx(-100 + 4 * 15.5)


@pytest.mark.parametrize("query", ["", "  ", "...", "\N{LUNGS} 12", "x" * 301, 7, None])
def test_a_query_that_cannot_be_asked_is_refused(query: Any) -> None:
    with pytest.raises(ValueError, match="queries"):
        check_queries([query])


@pytest.mark.parametrize("written", ["['fluid", "['the patient's heart']", " [fluid, air"])
def test_a_list_of_queries_that_cannot_be_read_is_refused_and_not_asked_as_a_text(written: str) -> None:
    with pytest.raises(ValueError, match="cannot be read as a list"):
        check_queries(written)


def test_queries_are_asked_once() -> None:
    assert check_queries(["fluid", " fluid ", "air"]) == ["fluid", "air"]
    assert check_queries("fluid around the lung") == ["fluid around the lung"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [("Fluid around the lung", "No fluid around the lung"), ("COPD", "No COPD"), ("nodule.", "No nodule.")],
)
def test_denial_of_a_query(query: str, expected: str) -> None:
    assert denial(query) == expected


def test_scans_and_masks_pair() -> None:
    assert scan_records("a.nii") == [{"image": "a.nii"}]
    assert scan_records(["a.nii", "b.nii"], [None, "m.nii"]) == [
        {"image": "a.nii"},
        {"image": "b.nii", "anatomy": "m.nii"},
    ]
    assert scan_records("a.nii", stored={"intercept": -8192}) == [{"image": "a.nii", "stored": {"intercept": -8192}}]
    assert scan_records(None) == []
    with pytest.raises(ValueError, match="1 masks were given for 2 scans"):
        scan_records(["a.nii", "b.nii"], "m.nii")
    with pytest.raises(ValueError, match="stored is -8192; give a mapping"):
        scan_records("a.nii", stored=-8192)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="same output folder"):
        scan_records(["x/a.nii", "y/a.nii.gz"])
