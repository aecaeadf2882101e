"""The training workflow as a MONAI bundle: properties, epochs, a stop by signal, two processes."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow

from bundle.ctfindings.cli.error_lines import input_error
from bundle.ctfindings.networks.checkpoint import save_bundle_weights
from bundle.ctfindings.networks.classifier import PromptBank
from bundle.ctfindings.training.token_warm_start import TokenWarmStart
from tests.commands import run_in_ranks, started

SMALL = {
    "spacing": [8, 8, 6],
    "roi_size": [48, 48, 48],
    "shift_voxels": [2, 2, 2],
    "embedding": 32,
    "image_tower#channels": [16, 8, 16, 16],
    "image_tower#width": 16,
    "image_tower#blocks": [1, 1, 1, 1],
    "batch_size": 2,
    "epochs": 4,
    "warm_start_steps": 3,
    "val_interval": 2,
    "patience": 5,
}


@pytest.fixture(scope="module")
def datalist(synthetic_scans: Path) -> Path:
    """Six scans for training, four for validation."""
    content = json.loads(synthetic_scans.read_text(encoding="utf-8"))
    path = synthetic_scans.with_name("six.json")
    path.write_text(json.dumps({**content, "training": content["training"][:6]}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def keys_of(bundle_root: Path, datalist: Path, cache: Path, output: Path, **keys: Any) -> dict[str, Any]:
    paths = {"bundle_root": bundle_root, "datalist": datalist, "cache_dir": cache, "output_dir": output}
    return {**{key: str(path) for key, path in paths.items()}, **SMALL, **keys}


def workflow_of(bundle_root: Path, keys: dict[str, Any], *overlays: str) -> ConfigWorkflow:
    files = [str(bundle_root / "configs" / name) for name in ("train.json", *overlays)]
    workflow = ConfigWorkflow(config_file=files, workflow_type="train", logging_file=False, **keys)
    workflow.initialize()
    return workflow


def state_of(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "last.pt", weights_only=True)


def logits_of(bundle_root: Path, keys: dict[str, Any], state: dict[str, Any]) -> torch.Tensor:
    network = workflow_of(bundle_root, keys).network_def.eval()
    network.load_state_dict(state["model"])
    with torch.no_grad():
        return network(torch.rand(1, 1, 48, 48, 48, generator=torch.Generator().manual_seed(0)))["logits"]


@pytest.fixture(scope="module")
def whole_run(bundle_root: Path, datalist: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole")
    workflow_of(bundle_root, keys_of(bundle_root, datalist, cache, output)).run()
    return output


def test_every_required_property_is_there(bundle_root: Path, datalist: Path, cache: Path, tmp_path: Path) -> None:
    assert workflow_of(bundle_root, keys_of(bundle_root, datalist, cache, tmp_path)).check_properties() == []


def test_a_run_keeps_its_state_its_best_model_and_its_curves(whole_run: Path) -> None:
    assert state_of(whole_run)["trainer"]["epoch"] == 4
    assert (whole_run / "best.pt").is_file()
    assert list((whole_run / "tensorboard").iterdir())


def test_a_run_ended_by_a_signal_goes_on_as_if_it_had_not_been(
    whole_run: Path, bundle_root: Path, datalist: Path, cache: Path, tmp_path: Path
) -> None:
    keys = keys_of(bundle_root, datalist, cache, tmp_path)
    # It sums in the same order as this process.
    with started(command_of(bundle_root, keys, tmp_path), {"OMP_NUM_THREADS": str(torch.get_num_threads())}) as running:
        deadline = time.monotonic() + 900
        while not (tmp_path / "last.pt").is_file() and running.process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        running.process.terminate()
        printed = running.finish()
    assert 1 <= state_of(tmp_path)["trainer"]["epoch"] < 4, printed.stderr[-2000:]
    workflow_of(bundle_root, keys).run()
    expected, resumed = state_of(whole_run), state_of(tmp_path)
    assert resumed["trainer"] == expected["trainer"]
    assert resumed["best"] == pytest.approx(expected["best"], abs=1e-6)
    # The answers, not every parameter: a bias before a normalization is free to drift with the order of a sum.
    torch.testing.assert_close(
        logits_of(bundle_root, keys, resumed), logits_of(bundle_root, keys, expected), rtol=0, atol=1e-3
    )


@pytest.mark.parametrize(
    "overlay",
    [f"objectives/{name}.json" for name in ("fvlm", "ca_gcl", "ca_gcl_prototypes", "ca_gcl_product")],
)
def test_objectives_train(overlay: str, bundle_root: Path, datalist: Path, cache: Path, tmp_path: Path) -> None:
    workflow = workflow_of(
        bundle_root, keys_of(bundle_root, datalist, cache, tmp_path, epochs=1, val_interval=1), overlay
    )
    workflow.run()
    losses = workflow.parser.get_parsed_content("loss").last
    assert "disease_prompts" not in losses and "local_anatomy" in losses
    assert ("cross_anatomy" in losses) == (overlay in ("objectives/ca_gcl.json", "objectives/ca_gcl_product.json"))
    assert ("anatomy_prototypes" in losses) == (overlay == "objectives/ca_gcl_prototypes.json")


def test_the_default_objective_trains_with_the_gradient_cache_after_its_warm_start(
    bundle_root: Path, datalist: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warmed: list[int] = []
    fit = TokenWarmStart.fit
    monkeypatch.setattr(
        TokenWarmStart, "fit", lambda self, sample: (warmed.append(len(sample.features)), fit(self, sample))
    )
    keys = keys_of(bundle_root, datalist, cache, tmp_path, epochs=1, val_interval=1, micro_batches=2)
    workflow = workflow_of(bundle_root, keys, "gradient_cache.json")
    workflow.run()
    assert len(warmed) == 1 and warmed[0] > 0
    assert state_of(tmp_path)["trainer"] == {"epoch": 1, "iteration": 1}, (
        "six scans are one step of two micro-batches of two"
    )
    assert {"grounding", "local_anatomy", "disease_prompts"} <= set(workflow.parser.get_parsed_content("loss").last)


@pytest.mark.parametrize(("epochs", "expected"), [(1, 1), (2, 1), (6, 3)])
def test_running_statistics_change_in_half_of_the_epochs_and_at_least_in_one(
    epochs: int, expected: int, bundle_root: Path, datalist: Path, cache: Path, tmp_path: Path
) -> None:
    workflow = workflow_of(bundle_root, keys_of(bundle_root, datalist, cache, tmp_path, epochs=epochs))
    assert workflow.parser.get_parsed_content("standardization_epochs") == expected


def test_two_processes_train(bundle_root: Path, datalist: Path, cache: Path, tmp_path: Path) -> None:
    keys = keys_of(bundle_root, datalist, cache, tmp_path, epochs=1, val_interval=1, correlation_target="teacher")
    overlays = ("objectives/place_on_default.json", "multi_gpu_train.json")
    run_in_ranks(command_of(bundle_root, keys, tmp_path, *overlays), 2)
    state = state_of(tmp_path)
    assert state["trainer"]["epoch"] == 1
    assert state["model"]["teacher.average.n_averaged"] == state["trainer"]["iteration"]


def command_of(bundle_root: Path, keys: dict[str, Any], folder: Path, *overlays: str) -> list[str]:
    (folder / "keys.json").write_text(json.dumps(keys))
    files = [*(f"{bundle_root}/configs/{name}" for name in ("train.json", *overlays)), str(folder / "keys.json")]
    return ["-m", "monai.bundle", "run", "--config_file", str(files)]


def test_two_processes_fine_tune_from_the_given_weights_on_scans_that_one_of_them_makes(
    bundle_root: Path, cache: Path, tmp_path: Path
) -> None:
    keys = keys_of(
        bundle_root, tmp_path, cache, tmp_path / "run", epochs=1, val_interval=1, init_ckpt=str(tmp_path / "initial.pt")
    )
    network = workflow_of(bundle_root, keys).parser.get_parsed_content("network_def")
    save_bundle_weights(tmp_path / "initial.pt", network, PromptBank(network.image.embedding))
    keys |= {"datalist": None, "dataset_dir": str(tmp_path / "synthetic"), "synthetic_counts": [4, 2, 0]}
    ranks = run_in_ranks(command_of(bundle_root, keys, tmp_path, "finetune.json", "multi_gpu_train.json"), 2)
    assert ["fine-tuning starts from" in rank.stdout for rank in ranks] == [True, True]
    assert ["fine-tuned weights written" in rank.stdout for rank in ranks] == [True, False]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "best.pt",
        "last.pt",
        "model.pt",
        "tensorboard",
    ]
    made = (tmp_path / "synthetic" / "records.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(made) == 6, "one process makes the scans, each of them once"
    assert ["synthetic scans: 100%" in rank.stderr for rank in ranks] == [True, False], "a log shows the bar"


def test_a_datalist_that_is_not_there_ends_in_one_line(bundle_root: Path, cache: Path, tmp_path: Path) -> None:
    keys = keys_of(bundle_root, tmp_path / "none.json", cache, tmp_path)
    with pytest.raises(RuntimeError) as caught:
        workflow_of(bundle_root, keys).run()
    assert re.fullmatch(r".*none\.json: no such datalist.*", str(input_error(caught.value)))


def test_the_last_epoch_is_validated_also_between_two_intervals(
    bundle_root: Path, datalist: Path, cache: Path, tmp_path: Path
) -> None:
    workflow_of(bundle_root, keys_of(bundle_root, datalist, cache, tmp_path, epochs=1, val_interval=2)).run()
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    assert state_of(tmp_path)["best"] == best["macro_auc"]


def test_a_run_without_studies_to_validate_says_that_it_has_no_best_model(
    bundle_root: Path, datalist: Path, cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = {**json.loads(datalist.read_text(encoding="utf-8")), "validation": []}
    alone = datalist.with_name("training_only.json")
    alone.write_text(json.dumps(content))
    workflow_of(bundle_root, keys_of(bundle_root, alone, cache, tmp_path, epochs=1)).run()
    assert state_of(tmp_path)["trainer"]["epoch"] == 1 and not (tmp_path / "best.pt").exists()
    assert "has no best.pt, because no study was validated" in caplog.text


def test_a_scan_that_is_not_there_ends_the_run_in_one_line_that_names_it(
    bundle_root: Path, datalist: Path, cache: Path, tmp_path: Path
) -> None:
    content = json.loads(datalist.read_text(encoding="utf-8"))
    content["training"][1]["image"] = "images/gone.nii.gz"
    broken = datalist.with_name("broken.json")
    broken.write_text(json.dumps(content))
    with pytest.raises((RuntimeError, ValueError)) as caught:
        workflow_of(bundle_root, keys_of(bundle_root, broken, cache, tmp_path, epochs=1)).run()
    assert re.fullmatch(r".*gone\.nii\.gz: no such file or folder.*", str(input_error(caught.value)))
    assert not (tmp_path / "last.pt").exists()


def test_place_learns_from_reports_alone(bundle_root: Path, datalist: Path, cache: Path, tmp_path: Path) -> None:
    """Labels and masks removed from the datalist change no bit of the trained model."""
    content = json.loads(datalist.read_text(encoding="utf-8"))
    for split in ("training", "validation", "test"):
        for study in content[split]:
            for key in ("labels", "anatomy", "finding_masks"):
                study.pop(key, None)
            study["image"] = str(datalist.parent / study["image"])
    bare = tmp_path / "datalist.json"
    bare.write_text(json.dumps(content), encoding="utf-8")
    states = []
    for name, studies in (("labelled", datalist), ("bare", bare)):
        keys = keys_of(bundle_root, studies, cache, tmp_path / name, epochs=1, val_interval=1)
        workflow = workflow_of(bundle_root, keys, "objectives/place.json")
        workflow.run()
        assert {"pathology_alignment", "correlation_exploration"} <= set(
            workflow.parser.get_parsed_content("loss").last
        )
        metrics = workflow.parser.get_parsed_content("validate#evaluator").state.metrics
        assert {"alignment", "alignment_gap", "effective_queries", "cce", "cce_gap_low"} <= set(metrics)
        states.append(torch.load(tmp_path / name / "best.pt", weights_only=True))
    assert states[0]["alignment"] == states[1]["alignment"]
    assert "correlation.hidden" in states[0]["model"] and "image.pathology.query" in states[0]["model"]
    for name, tensor in states[0]["model"].items():
        assert torch.equal(tensor, states[1]["model"][name]), name


@pytest.mark.parametrize("preset", ["place", "place_on_default"])
def test_place_refuses_reports_without_an_observation_before_it_trains(
    bundle_root: Path, datalist: Path, cache: Path, tmp_path: Path, preset: str
) -> None:
    content = json.loads(datalist.read_text(encoding="utf-8"))
    for study in [*content["training"], *content["validation"]]:
        study["image"] = str(datalist.parent / study["image"])
        study.pop("anatomy", None), study.pop("finding_masks", None)
    for study in content["validation"]:
        study["report"] = {"findings": "Unauffälliger Befund."}
    (tmp_path / "datalist.json").write_text(json.dumps(content), encoding="utf-8")
    keys = keys_of(bundle_root, tmp_path / "datalist.json", cache, tmp_path / "run", epochs=1)
    with pytest.raises(RuntimeError) as caught:
        workflow_of(bundle_root, keys, f"objectives/{preset}.json")
    assert str(input_error(caught.value)).startswith("validation: no report states an observation")
