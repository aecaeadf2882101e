"""The inference workflow as a MONAI bundle."""

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

from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.inference.findings_record import FindingsRecord

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
def image() -> MetaTensor:
    affine = torch.diag(torch.tensor([4.0, 4.0, 3.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor([-100.0, -50.0, 20.0])
    return MetaTensor(torch.rand(1, 1, 32, 32, 48, generator=torch.Generator().manual_seed(0)), affine=affine)


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
    required = "schema version monai_version pytorch_version numpy_version required_packages_version task description"
    required += " authors copyright network_data_format changelog"
    assert not [key for key in required.split() if key not in metadata]
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
    keys = ("spacing", "hu_window", "divisible", "embedding", "image_tower", "score_tokens", "token_sharpness")
    for key in (*keys, "text_encoder", "text_trainable_layers", "text_from_scratch"):
        assert inference[key] == train[key], key
    for part in ("image", "scorer"):
        assert inference["network_def"][part] == train["network_def"][part], part
    text = {key: value for key, value in inference["text_tower"].items() if key != "_mode_"}
    assert text == train["network_def"]["text"]


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
