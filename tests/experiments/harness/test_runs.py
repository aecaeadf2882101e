"""Runs of an experiment are done once, and never mix two settings."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.harness import runs as experiments
from experiments.harness.runs import Variant, reduced_datalist, run_variant


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, Any]]]:
    """What would be run; an evaluation leaves its files."""
    calls: list[tuple[list[str], dict[str, Any]]] = []

    def run(configs: list[str], keys: dict[str, Any], log: Path) -> None:
        calls.append((configs, keys))
        if "eval_dir" in keys:
            Path(keys["eval_dir"]).mkdir(parents=True, exist_ok=True)
            (Path(keys["eval_dir"]) / "diagnostics.npz").touch()
            (Path(keys["eval_dir"]) / "metrics.json").write_text("{}")

    monkeypatch.setattr(experiments, "bundle_run", run)
    return calls


def datalist_of(folder: Path, scans: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        split: [{"id": f"{split}{i}", "image": f"{split}{i}.nii.gz"} for i in range(scans)]
        for split in ("training", "validation", "test")
    }
    path = folder / "datalist.json"
    path.write_text(json.dumps(content))
    return path


def test_a_run_that_is_done_is_not_done_again(commands: list[tuple[list[str], dict[str, Any]]], tmp_path: Path) -> None:
    variant, datalist = Variant("fvlm", "", ("objectives/fvlm.json",), {"batch_size": 2}), datalist_of(tmp_path)
    first = run_variant(variant, 3, datalist, tmp_path / "runs", {"epochs": 2})
    assert first == tmp_path / "runs" / "fvlm_seed3" / "evaluation"
    train, evaluate = commands
    assert [Path(name).name for name in train[0]] == ["train.json", "fvlm.json"]
    assert (train[1]["epochs"], train[1]["batch_size"], train[1]["seed"], train[1]["patience"]) == (2, 2, 3, None)
    assert Path(evaluate[0][-1]).name == "evaluate.json" and evaluate[1]["ckpt_path"].endswith("last.pt")
    run_variant(variant, 3, datalist, tmp_path / "runs", {"epochs": 2})
    assert len(commands) == 2
    with pytest.raises(ValueError, match="contains a run with other settings"):
        run_variant(variant, 3, datalist, tmp_path / "runs", {"epochs": 5})


def test_a_run_of_as_many_other_scans_is_refused_and_of_moved_ones_kept(
    commands: list[tuple[list[str], dict[str, Any]]], tmp_path: Path
) -> None:
    variant = Variant("fvlm", "", ("objectives/fvlm.json",))
    run_variant(variant, 0, datalist_of(tmp_path / "here"), tmp_path / "runs", {})
    moved = datalist_of(tmp_path / "there")
    moved.write_text(moved.read_text().replace('"image": "', f'"image": "{tmp_path}/'))
    run_variant(variant, 0, moved, tmp_path / "runs", {})
    assert len(commands) == 2, "the second time it was done"
    moved.write_text(moved.read_text().replace("training1", "training9"))
    with pytest.raises(ValueError, match="contains a run with other settings"):
        run_variant(variant, 0, moved, tmp_path / "runs", {})


def test_a_run_that_failed_is_named_by_its_log(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train\.log: the command failed .*; see the file"):
        run_variant(
            Variant("none", "", ("objectives/there_is_none.json",)), 0, datalist_of(tmp_path), tmp_path / "runs", {}
        )


def test_a_reduced_datalist_keeps_the_first_scans_where_they_are(tmp_path: Path) -> None:
    path = reduced_datalist(datalist_of(tmp_path / "scans").parent, (2, 1, 3), tmp_path / "work")
    content = json.loads(path.read_text())
    assert [len(content[split]) for split in ("training", "validation", "test")] == [2, 1, 3]
    assert content["training"][1]["image"] == str((tmp_path / "scans" / "training1.nii.gz").resolve())
    with pytest.raises(ValueError, match="expected at least 4 scans in split 'test', found 3"):
        reduced_datalist(tmp_path / "scans", (2, 1, 4), tmp_path / "work")
    with pytest.raises(ValueError, match="datalist not found"):
        reduced_datalist(tmp_path / "nowhere.json", None, tmp_path)
