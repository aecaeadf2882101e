"""The parts of the inference workflow: what the written record says of a scan."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Lambda

from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.inference.bundle_workflow import FindingsWriter, TimedPreprocessing
from bundle.ctfindings.inference.predictor import Answers
from bundle.ctfindings.phantom.dataset import make_case
from bundle.ctfindings.scan.load_scan import load_scan


@pytest.fixture
def answers() -> Answers:
    return Answers([], [], {}, np.eye(4), 0.0, ["lung was not found in the scan"], {})


def batch_of(path: str, *warnings: str) -> dict[str, Any]:
    meta = {"filename_or_obj": path, "source_format": "nifti", "warnings": list(warnings)}
    return {"scan": MetaTensor(torch.zeros(1, 4, 4, 4), affine=torch.eye(4), meta=meta), "seconds": {}}


def test_the_record_names_no_folder_of_the_scan_which_may_be_that_of_a_patient(
    tmp_path: Path, answers: Answers
) -> None:
    path = "/archive/A NAME/scan.nii.gz"
    batch = batch_of(path, f"{path}: the slices are tilted by 2.0 degrees")
    (tmp_path / "model.pt").write_bytes(b"weights")
    record, _ = FindingsWriter(tmp_path, tmp_path / "model.pt", tmp_path)._record(batch, answers, "a tower")
    assert record.warnings == ["scan.nii.gz: the slices are tilted by 2.0 degrees", "lung was not found in the scan"]
    assert "A NAME" not in record.to_json()


def preprocessed(scan: np.ndarray, affine: np.ndarray, **options: float) -> list[str]:
    """Warnings of a scan after preprocessing that loads it and does nothing else."""
    meta = {"filename_or_obj": "scan.nii.gz", "warnings": []}
    image = MetaTensor(torch.from_numpy(scan)[None], affine=torch.from_numpy(affine), meta=meta)
    steps = [Lambda(lambda study: {**study, "image": image}), Lambda(lambda study: study)]
    return list(TimedPreprocessing(steps, **options)({})["scan"].meta["warnings"])


def test_a_scan_that_shows_no_whole_chest_gets_a_warning_and_a_chest_gets_none() -> None:
    _, hu, _, _, affine = make_case(seed=3, index=1, labels=[0] * len(FINDING_NAMES))
    chest = hu.astype(np.float32)
    assert preprocessed(chest, affine, min_lung_litres=1.5) == []
    lowest = chest[:, :, : chest.shape[2] // 5]
    (warning,) = preprocessed(lowest, affine, min_lung_litres=1.5)
    assert re.match(
        r"scan\.nii\.gz: shows 0\.\d litres of lung .* more than 1\.5; of what the scan does not show", warning
    )
    assert preprocessed(lowest, affine) == [], "it was not asked for"


@pytest.mark.parametrize(
    ("name", "chest"), [("cip_ct-64", True), ("nsclc_lung1-001_ct_1p5x1p5x3", True), ("ts_example_ct_3mm", False)]
)
def test_real_scans_of_the_chest_and_of_the_abdomen_are_told_apart(shared_data: Path, name: str, chest: bool) -> None:
    scan = load_scan(shared_data / "ct" / f"{name}.nii.gz")
    assert (preprocessed(scan[0].numpy(), scan.affine.numpy(), min_lung_litres=1.5) == []) == chest


def test_the_bundle_asks_whether_a_scan_shows_a_chest(bundle_root: Path) -> None:
    config = json.loads((bundle_root / "configs" / "inference.json").read_text(encoding="utf-8"))
    assert config["min_lung_litres"] > 0 and config["preprocessing"]["min_lung_litres"] == "@min_lung_litres"


def test_results_that_cannot_be_written_are_one_line_that_names_the_folder(tmp_path: Path, answers: Answers) -> None:
    (tmp_path / "model.pt").write_bytes(b"weights")
    (tmp_path / "output").write_text("a file where the folder should be")
    network = SimpleNamespace(image=SimpleNamespace(tower=None))
    engine = SimpleNamespace(
        state=SimpleNamespace(batch=batch_of("a.nii.gz"), output={"pred": answers}), network=network
    )
    with pytest.raises(ValueError, match=r"output: results cannot be written there \(.*\); make room"):
        FindingsWriter(tmp_path / "output", tmp_path / "model.pt", tmp_path)(engine)  # type: ignore[arg-type]
