"""Training on reports and slice references as a MONAI bundle: the objectives take part, gradient caching trains and
resumes.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow

from bundle.ctfindings.phantom.dataset import make_dataset

SMALL = {
    "spacing": [8, 8, 6],
    "roi_size": [48, 48, 64],
    "shift_voxels": [2, 2, 2],
    "embedding": 32,
    "image_tower#patch": 4,
    "image_tower#channels": [8, 8, 8, 16],
    "image_tower#width": 16,
    "image_tower#blocks": [1, 1, 1, 1],
    "batch_size": 2,
    "epochs": 2,
    "warm_start_steps": 3,
    "val_interval": 1,
}
PLACE_LOSSES = {"pathology_alignment", "correlation_exploration"}
REPORT_LOSSES = {"siglip", "snippet_localization", "disease_prompts", "anatomy_head"}


@pytest.fixture(scope="module")
def datalist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight scans, each with a snippet at its middle, so that every batch has one."""
    path = make_dataset(tmp_path_factory.mktemp("synthetic"), training=8, validation=4, test=2, seed=3, workers=1)
    content = json.loads(path.read_text(encoding="utf-8"))
    for study in content["training"]:
        study["snippets"] = study["snippets"] or [{"text": "Seen here.", "series": 2, "image": 1, "z_mm": None}]
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def train(bundle_root: Path, datalist: Path, cache: Path, output: Path, *overlays: str, **keys: Any) -> ConfigWorkflow:
    paths = {"bundle_root": bundle_root, "datalist": datalist, "cache_dir": cache, "output_dir": output}
    files = [str(bundle_root / "configs" / name) for name in ("train.json", *overlays)]
    settings = {**{key: str(path) for key, path in paths.items()}, **SMALL, **keys}
    workflow = ConfigWorkflow(config_file=files, workflow_type="train", logging_file=False, **settings)
    workflow.initialize()
    workflow.run()
    return workflow


@pytest.mark.parametrize("objective", ["radfinder", "unified"])
def test_objectives_on_reports_take_part(
    objective: str, bundle_root: Path, datalist: Path, cache: Path, tmp_path: Path
) -> None:
    workflow = train(bundle_root, datalist, cache, tmp_path, f"objectives/{objective}.json", epochs=1)
    loss, optimizer = (workflow.parser.get_parsed_content(name) for name in ("loss", "optimizer"))
    unified = {"local_anatomy", "cross_anatomy", "text_separation", "grounding"} | PLACE_LOSSES
    others = unified if objective == "unified" else set()
    assert REPORT_LOSSES | others <= set(loss.last)
    assert loss.losses["siglip"].bias.item() != -10, "scale and bias are trained"
    assert optimizer.param_groups[1]["weight_decay"] == 0
    assert workflow.parser.get_parsed_content("network").text.snippet_head_trained.item() == 1


def test_place_takes_part_beside_labels_and_masks_with_the_gradient_cache(
    bundle_root: Path, datalist: Path, cache: Path, tmp_path: Path
) -> None:
    overlays = ("objectives/place_on_default.json", "gradient_cache.json")
    workflow = train(bundle_root, datalist, cache, tmp_path, *overlays, micro_batches=2, epochs=1)
    assert {"disease_prompts", "grounding"} | PLACE_LOSSES <= set(workflow.parser.get_parsed_content("loss").last)
    metrics = workflow.parser.get_parsed_content("validate#evaluator").state.metrics
    assert {"macro_auc", "alignment", "alignment_gap", "effective_queries", "cce", "cce_gap_low"} <= set(metrics)


def test_gradient_caching_trains_and_goes_on_where_it_stopped(
    bundle_root: Path, datalist: Path, cache: Path, tmp_path: Path
) -> None:
    def run(folder: str, **keys: Any) -> dict[str, Any]:
        train(
            bundle_root,
            datalist,
            cache,
            tmp_path / folder,
            "objectives/unified.json",
            "gradient_cache.json",
            micro_batches=2,
            correlation_target="teacher",
            teacher_momentum=0.5,
            correlation_hidden_in="input",
            **keys,
        )
        return torch.load(tmp_path / folder / "last.pt", weights_only=True)

    whole = run("whole")
    assert whole["trainer"] == {"epoch": 2, "iteration": 4}, "eight scans are two steps of two micro-batches of two"
    # The schedule spans the run, so that the first half is a run of two epochs that is stopped.
    (tmp_path / "stopped").mkdir()
    stopped = run("stopped", **{"train#trainer#max_epochs": 1})
    assert stopped["trainer"]["epoch"] == 1
    resumed = run("stopped")
    assert resumed["trainer"] == whole["trainer"]
    average = "teacher.average.module.field.1.weight"
    for name in ("loss.losses.siglip.bias", "text.snippet_head.linear.weight", "image.field.1.weight", average):
        found, expected = (
            (state["loss"][name[5:]] if name.startswith("loss.") else state["model"][name])
            for state in (resumed, whole)
        )
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert whole["model"]["teacher.average.n_averaged"] == 4, "once a step, not once a micro-batch"
    assert not torch.equal(whole["model"][average], whole["model"]["image.field.1.weight"])
