"""Detection: a map that shows the lesions finds them, one that does not does not, and scans without a lesion count."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from bundle.ctfindings.downstream import detection
from bundle.ctfindings.downstream.detection import Detection
from bundle.ctfindings.downstream.heat_maps import EncodeHeatd, attention_map
from bundle.ctfindings.downstream.task_run import TaskRun
from bundle.ctfindings.evaluation.evaluated_model import whole_scan_steps
from bundle.ctfindings.findings import finding_index

NODULE = finding_index("Lung nodule")
SIZE, TOKEN = 32, 4  # voxels of 4 mm


class DrawScan:
    """In place of the image pipeline."""

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        affine = torch.diag(torch.tensor([4.0, 4, 4, 1], dtype=torch.float64))
        meta = {"original_affine": affine, "spatial_shape": np.array([SIZE] * 3)}
        return {**data, "image": MetaTensor(torch.zeros(1, SIZE, SIZE, SIZE), affine=affine, meta=meta)}


class DrawHeat:
    """In place of the encoder: ``field`` marks the lesions, ``attention`` always the same corner."""

    outside: tuple[str, ...] = ()

    def __init__(self, *args: Any) -> None:
        self.weights = "drawn"

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        bits = data.get("finding_masks", torch.zeros(1, SIZE, SIZE, SIZE, dtype=torch.int32))
        random = torch.Generator().manual_seed(sum(data["id"].encode()))
        noise = 0.1 * torch.rand(1, *[SIZE // TOKEN] * 3, generator=random)
        corner = noise.clone()
        corner[0, 0, 0, 0] = 1
        tokens = torch.diag(torch.tensor([16.0, 16, 16, 1], dtype=torch.float64))
        tokens[:3, 3] = 6
        return {
            **data,
            "heat_field": F.max_pool3d((bits > 0).float(), TOKEN) + noise,
            "heat_attention": corner,
            "inside": torch.full((1, *[SIZE // TOKEN] * 3), data["id"] not in self.outside),
            "token_affine": tokens,
            "image_affine": torch.as_tensor(data["image"].affine),
            "image": data["image"].as_tensor(),
        }


@pytest.fixture
def lesions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A datalist in which every second scan has a nodule of 8 voxels."""
    monkeypatch.setattr(detection, "EncodeHeatd", DrawHeat)
    monkeypatch.setattr(detection, "whole_scan_steps", lambda steps: list(steps))
    content: dict[str, list[dict[str, Any]]] = {}
    for split, count in {"training": 1, "validation": 4, "test": 8}.items():
        content[split] = []
        for index in range(count):
            study: dict[str, Any] = {"id": f"{split}{index}", "image": "none", "labels": [0] * 18}
            if index % 2 == 0:
                bits = np.zeros([SIZE] * 3, np.int32)
                start = 8 + 2 * index
                bits[start : start + 2, 16:18, 16:18] = 1 << NODULE
                nib.save(nib.Nifti1Image(bits, np.diag([4.0, 4, 4, 1])), tmp_path / f"{split}{index}.nii.gz")
                study["finding_masks"] = f"{split}{index}.nii.gz"
                study["labels"][NODULE] = 1
            content[split].append(study)
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def run(path: Path, **options: Any) -> dict[str, Any]:
    encoder = SimpleNamespace(
        ckpt_path=None, load=lambda: None, network=torch.nn.Identity(), preprocessing=[DrawScan()], device="cpu"
    )
    encoder.cache_dir, encoder.cache_key = None, None
    return TaskRun(Detection(["Lung nodule"], **options), encoder, path, path.parent / "out", resamples=20).run()


def test_a_map_of_the_lesions_finds_them_and_a_fixed_place_does_not(lesions: Path) -> None:
    maps = run(lesions)["maps"]
    seen, fixed = maps["field"]["Lung nodule"], maps["attention"]["Lung nodule"]
    assert (seen["lesions"], seen["scans_with_lesion"]) == (4, 4)
    assert seen["pointing"]["value"] == seen["froc"]["value"] == 1.0 and fixed["pointing"]["value"] == 0.0
    # Four patients with a lesion: the exact limits of 4 of 4 and of 0 of 4.
    assert seen["pointing"]["interval"] == [pytest.approx(0.025 ** (1 / 4)), 1]
    assert fixed["pointing"]["interval"] == [0, pytest.approx(1 - 0.025 ** (1 / 4))]
    assert seen["ap_0.1"]["value"] == pytest.approx(1.0) and fixed["froc"]["value"] < 0.5
    # The box of a token of 4 x 4 x 4 voxels around 2 x 2 x 2: an overlap of 1/8.
    assert seen["ap_0.3"]["value"] == 0.0
    assert 0 < seen["pointing_chance"]["value"] < 0.2
    # The corner is hot on every scan without a lesion; the map of the lesions has noise there at most.
    assert fixed["false_positives_per_clean_scan"]["value"] >= 1


def test_a_scan_outside_the_anatomy_is_named(lesions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(lesions)["warnings"] == []
    monkeypatch.setattr(DrawHeat, "outside", ("test2", "test3"))
    line = "detection: no anatomy of lung nodule was found in test2, test3: all of it is searched"
    assert run(lesions)["warnings"] == [line]


def test_detections_pictures_and_page_are_written(lesions: Path) -> None:
    run(lesions, pictures=1)
    folder = lesions.parent / "out"
    tables = ["detections_attention.csv", "detections_field.csv", "pointing.csv"]
    names = sorted([*tables, "lesions.png", "metrics.json", "report.html"])
    assert sorted(path.name for path in folder.iterdir()) == names
    with (folder / "detections_field.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    first = next(row for row in rows if row["id"] == "test0")
    assert float(first["score"]) > 1 and float(first["peak_x_mm"]) == 38 and float(first["box_low_x_mm"]) == 30
    with (folder / "pointing.csv").open(encoding="utf-8") as file:
        pointed = [float(row["pointing"]) for row in csv.DictReader(file) if row["map"] == "field"]
    found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["maps"]["field"]["Lung nodule"]
    assert len(pointed) == found["scans_with_lesion"] and np.mean(pointed) == found["pointing"]["value"]


def test_a_positive_scan_without_a_mask_takes_no_part(lesions: Path) -> None:
    content = json.loads(lesions.read_text(encoding="utf-8"))
    del content["test"][0]["finding_masks"]
    lesions.write_text(json.dumps(content), encoding="utf-8")
    entry = run(lesions)["maps"]["field"]["Lung nodule"]
    assert entry["lesions"] == 3 and entry["pointing"]["value"] == 1.0


def test_splits_without_masks_are_refused_and_a_finding_without_them_is_named(lesions: Path) -> None:
    content = json.loads(lesions.read_text(encoding="utf-8"))
    for study in content["validation"]:
        study.pop("finding_masks", None)
    lesions.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match="detection: no finding has masks in the validation and the test split"):
        run(lesions)


def test_attention_is_scaled_by_the_support_of_the_statement() -> None:
    rows = torch.eye(4)[:2][None]
    attention = torch.tensor([[[0.8, 0.2, 0.0], [0.0, 0.5, 0.5]]])
    encoded = SimpleNamespace(
        pathology=rows,
        pathology_valid=torch.ones(1, 2, dtype=torch.bool),
        pathology_attention=attention,
    )
    prompts = torch.stack([torch.stack([torch.eye(4)[0], torch.eye(4)[1]])])
    found, shares = attention_map(encoded, prompts)
    # The first query answers almost alone: its attention, times the sigmoid of (1 - 0) / 0.1.
    assert found[0].tolist() == pytest.approx([1.0, 0.25, 0.0], abs=1e-3)
    assert shares[0, 0].tolist() == pytest.approx([1.0, 0.0], abs=1e-3)


def test_heat_of_a_scan_has_the_grid_of_the_tokens(
    bundle_root: Path, phantom_scan: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    parser = ConfigParser()
    parser.read_config(bundle_root / "configs" / "train.json")
    parser.update({"bundle_root": str(bundle_root), "pathology_queries": 4, "spacing": [8, 8, 6], "roi_size": None})
    network = parser.get_parsed_content("network_def").eval()
    study: Any = {"id": "a", "image": str(phantom_scan[0]), "labels": torch.zeros(18)}
    for step in whole_scan_steps(parser.get_parsed_content("image_pipeline")):
        study = step(study)
    made = EncodeHeatd(network, [NODULE, 0], torch.device("cpu"))(study)
    grid = [size // 4 for size in study["image"].shape[1:]]
    for name in ("heat_field", "heat_attention", "heat_answer", "inside"):
        assert list(made[name].shape) == [2, *grid]
    assert made["heat_attention"].min() >= 0 and made["heat_attention"].max() <= 1
    assert made["inside"].any() and "regions" not in made
