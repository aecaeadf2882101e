"""Fine-tuning: what is exported knows the domain of the scans that it was trained on."""

import json
import logging
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from bundle.ctfindings.inference.findings_record import FindingsRecord
from bundle.ctfindings.inference.service import FindingsService
from bundle.ctfindings.networks.checkpoint import read_source, save_bundle_weights
from bundle.ctfindings.networks.classifier import PromptBank
from bundle.ctfindings.networks.domain import load_domain
from bundle.ctfindings.phantom.dataset import make_dataset

GEOMETRY: dict[str, Any] = {
    "spacing": [8, 8, 6],
    "embedding": 32,
    "image_tower#channels": [16, 8, 16, 16],
    "image_tower#width": 16,
    "image_tower#blocks": [1, 1, 1, 1],
}
TRAINING = {"roi_size": [48, 48, 48], "shift_voxels": [2, 2, 2], "batch_size": 2, "epochs": 1}


@pytest.fixture(scope="module")
def datalist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten scans that a group has: eight for training."""
    return make_dataset(tmp_path_factory.mktemp("own"), training=8, validation=2, test=1, seed=4, workers=1)


@pytest.fixture(scope="module")
def base(bundle_root: Path, datalist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that training starts from, with thresholds by which each finding is present."""
    path = tmp_path_factory.mktemp("base") / "model.pt"
    torch.manual_seed(0)
    network = fine_tuning(bundle_root, datalist, path, path.parent).parser.get_parsed_content("network_def")
    bank = PromptBank(network.image.embedding)
    bank.threshold.fill_(0.0)
    save_bundle_weights(path, network, bank)
    return path


def fine_tuning(bundle_root: Path, datalist: Path, base: Path, output: Path, **keys: Any) -> ConfigWorkflow:
    paths = {"bundle_root": bundle_root, "datalist": datalist, "init_ckpt": base, "output_dir": output}
    files = [str(bundle_root / "configs" / name) for name in ("train.json", "finetune.json")]
    keys = {**{key: str(path) for key, path in paths.items()}, "cache_dir": None, **GEOMETRY, **TRAINING, **keys}
    return ConfigWorkflow(config_file=files, workflow_type="train", logging_file=False, **keys)


def tuned(bundle_root: Path, datalist: Path, base: Path, output: Path, **keys: Any) -> Path:
    workflow = fine_tuning(bundle_root, datalist, base, output, **keys)
    workflow.initialize()
    workflow.run()
    return output / "model.pt"


@pytest.fixture(scope="module")
def model(bundle_root: Path, datalist: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tuned(bundle_root, datalist, base, tmp_path_factory.mktemp("tuned"))


def answered(bundle_root: Path, model: Path, scan: Path) -> FindingsRecord:
    parser = ConfigParser()
    parser.read_config(str(bundle_root / "configs" / "inference.json"))
    parser.update({"bundle_root": str(bundle_root), "ckpt_path": str(model), "device": "cpu", **GEOMETRY})
    service: FindingsService = parser.get_parsed_content("service")
    return service.answer_file(scan).record


def test_findings_are_given_for_a_scan_of_the_group_and_withheld_for_one_unlike_theirs(
    bundle_root: Path, datalist: Path, model: Path, tmp_path: Path
) -> None:
    (new,) = json.loads(datalist.read_text(encoding="utf-8"))["test"]
    like = datalist.parent / new["image"]
    own = answered(bundle_root, model, like)
    assert own.domain is not None and own.domain.inside and own.notice is None
    assert all(finding.present for finding in own.findings)

    scan, unlike = nib.load(like), tmp_path / "unlike.nii.gz"
    brighter = np.asarray(scan.dataobj, dtype=np.float32) + 300
    nib.save(nib.Nifti1Image(brighter.astype(np.int16), scan.affine), unlike)
    other = answered(bundle_root, model, unlike)
    assert other.domain is not None and not other.domain.inside
    assert str(other.notice).startswith("Outside the domain")
    assert [finding.name for finding in other.findings if finding.present is not None] == []


def test_the_domain_is_that_of_the_given_number_of_training_scans(
    bundle_root: Path, datalist: Path, base: Path, model: Path, tmp_path: Path
) -> None:
    assert int(load_domain(model).scans) == 8
    assert not load_domain(base).fitted
    fewer = tuned(bundle_root, datalist, base, tmp_path, domain_scans=6, outside_share=0.5)
    assert int(load_domain(fewer).scans) == 6
    notes = [read_source(path) for path in (model, fewer)]
    assert notes[0] == notes[1] and str((notes[0] or {})["adapted_to"]).startswith("8 scans of ")
    assert float(load_domain(fewer).threshold) < float(load_domain(model).threshold)


def test_of_four_scans_the_domain_is_unknown_and_the_log_and_the_answer_say_so(
    bundle_root: Path, datalist: Path, base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        few = tuned(bundle_root, datalist, base, tmp_path, domain_scans=4)
    assert "domain: unknown; 4 training scans are too few for a domain; at least 5 are needed" in caplog.text
    assert "give findings for scans unlike the training scans too" in caplog.text
    assert not load_domain(few).fitted
    (new,) = json.loads(datalist.read_text(encoding="utf-8"))["test"]
    record = answered(bundle_root, few, datalist.parent / new["image"])
    assert record.domain is None
    assert any(line.startswith("Domain: not available") for line in record.warnings)
