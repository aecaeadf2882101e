"""Training on reports and slice references as a MONAI bundle: the objectives take part, gradient caching trains and
resumes.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow

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
AVERAGE = "teacher.average.module.field.1.weight"
REPORT_LOSSES = {"siglip", "snippet_localization", "disease_prompts", "anatomy_head"}


@pytest.fixture(scope="module")
def datalist(synthetic_scans: Path) -> Path:
    """Eight scans, each with a snippet at its middle, so that every batch has one."""
    content = json.loads(synthetic_scans.read_text(encoding="utf-8"))
    for study in content["training"]:
        study["snippets"] = study["snippets"] or [{"text": "Seen here.", "series": 2, "image": 1, "z_mm": None}]
    path = synthetic_scans.with_name("with_snippets.json")
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


CACHED = {
    "micro_batches": 2,
    "correlation_target": "teacher",
    "teacher_momentum": 0.5,
    "correlation_hidden_in": "input",
}


def train_cached(bundle_root: Path, datalist: Path, cache: Path, output: Path, **keys: Any) -> ConfigWorkflow:
    """All objectives at once, with the gradient cache and a teacher."""
    overlays = ("objectives/unified.json", "gradient_cache.json")
    return train(bundle_root, datalist, cache, output, *overlays, **CACHED, **keys)


def state_of(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "last.pt", weights_only=True)


@pytest.fixture(scope="module")
def whole(
    bundle_root: Path, datalist: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ConfigWorkflow, dict[str, Any]]:
    """A run of two epochs, and its state."""
    output = tmp_path_factory.mktemp("whole")
    return train_cached(bundle_root, datalist, cache, output), state_of(output)


def test_all_objectives_take_part_with_the_gradient_cache(whole: tuple[ConfigWorkflow, dict[str, Any]]) -> None:
    workflow, state = whole
    loss, optimizer = (workflow.parser.get_parsed_content(name) for name in ("loss", "optimizer"))
    assert set(loss.last) >= REPORT_LOSSES
    assert loss.losses["siglip"].bias.item() != -10, "scale and bias are trained"
    assert optimizer.param_groups[1]["weight_decay"] == 0
    assert workflow.parser.get_parsed_content("network").text.snippet_head_trained.item() == 1
    others = {"local_anatomy", "cross_anatomy", "text_separation", "grounding"} | PLACE_LOSSES
    assert others <= set(workflow.parser.get_parsed_content("loss").last)
    logged = workflow.parser.get_parsed_content("validate#evaluator").state.metrics
    assert {"macro_auc", "alignment", "alignment_gap", "cce", "cce_gap"} <= set(logged)
    assert state["trainer"] == {"epoch": 2, "iteration": 4}, "eight scans are two steps of two micro-batches of two"
    assert state["model"]["teacher.average.n_averaged"] == 4, "once a step, not once a micro-batch"
    assert not torch.equal(state["model"][AVERAGE], state["model"]["image.field.1.weight"])


def test_reports_without_an_observation_are_refused(
    bundle_root: Path, datalist: Path, cache: Path, tmp_path: Path
) -> None:
    content = json.loads(datalist.read_text(encoding="utf-8"))
    for study in content["training"]:
        study["report"] = {"findings": "Comparison with the earlier scan.", "impression": ""}
    path = datalist.with_name("silent.json")
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(RuntimeError, match="check_observations") as caught:
        train(bundle_root, path, cache, tmp_path, "objectives/unified.json")
    assert "training: no report states an observation" in str(caught.value.__cause__)


def test_gradient_caching_goes_on_where_it_stopped(
    whole: tuple[ConfigWorkflow, dict[str, Any]], bundle_root: Path, datalist: Path, cache: Path, tmp_path: Path
) -> None:
    # The schedule spans the run, so that the first half is a run of two epochs that is stopped.
    train_cached(bundle_root, datalist, cache, tmp_path, **{"train#trainer#max_epochs": 1})
    assert state_of(tmp_path)["trainer"]["epoch"] == 1
    train_cached(bundle_root, datalist, cache, tmp_path)
    resumed, expected = state_of(tmp_path), whole[1]
    assert resumed["trainer"] == expected["trainer"]
    torch.testing.assert_close(
        resumed["loss"]["losses.siglip.bias"], expected["loss"]["losses.siglip.bias"], rtol=0, atol=1e-4
    )
    for name in ("text.snippet_head.linear.weight", "image.field.1.weight", AVERAGE):
        torch.testing.assert_close(resumed["model"][name], expected["model"][name], rtol=0, atol=1e-4)
