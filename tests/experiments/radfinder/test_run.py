"""The experiment on RadFinder's objectives: a folder of runs never mixes two settings, and a scoring is read back only
as it was asked.
"""

import argparse
import importlib
import json
import subprocess
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from bundle.ctfindings.phantom.dataset import make_dataset
from tests import commands


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return importlib.import_module("experiments.radfinder.run")


@pytest.fixture
def options(bundle_root: Path, tmp_path: Path) -> argparse.Namespace:
    datalist = tmp_path / "datalist.json"
    datalist.write_text(
        json.dumps({split: [{"id": split, "image": "a.nii.gz"}] for split in ("training", "validation", "test")})
    )
    paraphrases = bundle_root / "docs" / "evaluation" / "paraphrases.json"
    return argparse.Namespace(
        datalist=datalist, work=tmp_path / "work", keys={"epochs": 2}, pool=30, paraphrases=paraphrases
    )


def test_a_run_of_other_scans_or_settings_is_refused(
    script: ModuleType, options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Any] = []
    monkeypatch.setattr(subprocess, "run", lambda *given, **_: trained.append(given) or SimpleNamespace(returncode=0))
    run = options.work / "radfinder_seed0"
    for _ in range(2):
        script.train(run, "radfinder", 0, options)
    assert len(trained) == 1
    options.keys = {"epochs": 3}
    with pytest.raises(ValueError, match="radfinder_seed0: contains a run with other settings"):
        script.train(run, "radfinder", 0, options)
    options.keys = {"epochs": 2}
    options.datalist.write_text(
        options.datalist.read_text().replace('"test"}', '"other"}').replace('"id": "test"', '"id": "other"')
    )
    with pytest.raises(ValueError, match="radfinder_seed0: contains a run with other settings"):
        script.train(run, "radfinder", 0, options)
    assert len(trained) == 1


def test_a_scoring_is_read_back_as_it_was_asked(
    script: ModuleType, options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Scores(Exception):
        pass

    def scores(*_: object) -> None:
        raise Scores

    monkeypatch.setattr(script, "score", scores)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=0))
    run = options.work / "radfinder_seed0"
    script.train(run, "radfinder", 0, options)
    kept = {"asked": {"pool": 30, "paraphrases": script.sha256_of(options.paraphrases)}, "macro_auc": 0.5}
    (run / script.RESULT_FILE).write_text(json.dumps(kept))
    assert script.result_of("radfinder", 0, options, None) == kept
    options.pool = 40
    with pytest.raises(Scores):
        script.result_of("radfinder", 0, options, None)


def test_too_few_scans_for_the_recall_are_refused_before_anything_runs(
    script: ModuleType, options: argparse.Namespace
) -> None:
    with pytest.raises(ValueError, match=r"datalist\.json: split 'test' has 1 scans; recall at 10 needs more than 10"):
        script.run_all(options)
    assert not options.work.exists()


def test_runs_over_a_locked_tower_make_results_and_a_page(
    script: ModuleType, bundle_root: Path, tmp_path: Path
) -> None:
    datalist = make_dataset(tmp_path / "scans", training=3, validation=1, test=11, seed=5, workers=1)
    command = [str(script.__file__), "--datalist", str(datalist), "--work", str(tmp_path / "work")]
    command += ["--output", str(tmp_path / "out"), "--seeds", "0", "--variants", "siglip", "radfinder", "--epochs", "1"]
    command += ["--locked_image", str(bundle_root / "models" / "model.pt"), "--set", "batch_size=3"]
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    command += ["text_trainable_layers=-1", f"text_from_scratch={json.dumps(small)}"]
    done = commands.run(command)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(results["variants"]) == {"siglip", "radfinder"} and "localization" not in results["variants"]["siglip"]
    assert results["variants"]["radfinder"]["localization"]["snippets"] > 0
    page = (tmp_path / "out" / "README.md").read_text()
    assert (tmp_path / "out" / "variants.png").is_file()
    assert "image tower is locked" in page and str(tmp_path) not in page
