"""From a file to its encoding: warnings, geometry, and one pass through the network."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Lambda

from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.inference.encoding import TimedPreprocessing, describe_scan, encode_study, token_affine
from bundle.ctfindings.inference.service import FindingsService
from bundle.ctfindings.phantom.dataset import make_case
from bundle.ctfindings.scan.load_scan import load_scan


def study_of(path: str, *warnings: str) -> dict[str, Any]:
    affine = torch.diag(torch.tensor([4.0, 4.0, 3.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor([-100.0, -50.0, 20.0])
    voxels = torch.rand(1, 32, 32, 48, generator=torch.Generator().manual_seed(0))
    meta = {"filename_or_obj": path, "source_format": "nifti", "warnings": list(warnings)}
    scan = MetaTensor(torch.zeros(1, 4, 4, 4), affine=torch.eye(4), meta=meta)
    return {"image": MetaTensor(voxels, affine=affine), "scan": scan, "seconds": {"load": 1.0}}


def test_no_folder_of_the_scan_is_kept_as_it_may_name_a_patient(service: FindingsService) -> None:
    path = "/archive/A NAME/scan.nii.gz"
    answered = service.answer(study_of(path, f"{path}: the slices are tilted by 2.0 degrees"))
    assert "scan.nii.gz: the slices are tilted by 2.0 degrees" in answered.record.warnings
    assert "A NAME" not in answered.record.to_json()


def test_the_scan_is_encoded_once(service: FindingsService, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    forward = service.network.image.tower.forward
    monkeypatch.setattr(service.network.image.tower, "forward", lambda x: calls.append(1) or forward(x))
    service.answer(study_of("scan.nii.gz"))
    assert len(calls) == 1


def test_the_midline_is_the_centre_of_the_body_crop(service: FindingsService) -> None:
    encoded = encode_study(service.network, study_of("scan.nii.gz"))
    assert encoded.midline_mm == pytest.approx(-100 + 4 * 15.5)
    assert list(encoded.seconds) == ["load", "encode"]


def test_no_path_is_kept() -> None:
    assert describe_scan("/patients/name/scan.nrrd", "NRRD", (2, 2, 2), np.eye(4)).file == "scan.nrrd"


def test_tokens_lie_at_the_centre_of_their_voxels() -> None:
    affine = np.diag([4.0, 4.0, 3.0, 1.0])
    affine[:3, 3] = [-100, -50, 20]
    # The first token covers voxels 0..3, whose centre is at voxel 1.5.
    np.testing.assert_allclose(token_affine(affine, (4, 4, 4)) @ [0, 0, 0, 1], [-94, -44, 24.5, 1])
    np.testing.assert_allclose(token_affine(affine, (4, 4, 4)) @ [1, 0, 2, 1], [-78, -44, 48.5, 1])


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
        r"scan\.nii\.gz: shows 0\.\d litres of air-filled lung, less than the 1\.5 of a whole chest", warning
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
