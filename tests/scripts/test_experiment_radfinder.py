"""The experiment on RadFinder's objectives: a folder of runs never mixes two settings, and a scoring is read back only as it was asked."""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


@pytest.fixture(scope="module")
def script(bundle_root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("experiment_radfinder", bundle_root / "scripts" / "experiment_radfinder.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def options(bundle_root: Path, tmp_path: Path) -> argparse.Namespace:
    datalist = tmp_path / "datalist.json"
    datalist.write_text(json.dumps({split: [{"id": split, "image": "a.nii.gz"}] for split in ("training", "validation", "test")}))
    paraphrases = bundle_root / "docs" / "evaluation" / "paraphrases.json"
    return argparse.Namespace(datalist=datalist, work=tmp_path / "work", keys={"epochs": 2}, pool=30, paraphrases=paraphrases)


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
    with pytest.raises(ValueError, match="radfinder_seed0: holds a run with other settings"):
        script.train(run, "radfinder", 0, options)
    options.keys = {"epochs": 2}
    options.datalist.write_text(options.datalist.read_text().replace('"test"}', '"other"}').replace('"id": "test"', '"id": "other"'))
    with pytest.raises(ValueError, match="radfinder_seed0: holds a run with other settings"):
        script.train(run, "radfinder", 0, options)
    assert len(trained) == 1


def test_a_scoring_is_read_back_as_it_was_asked(script: ModuleType, options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    class Scores(Exception):
        pass

    def scores(*_: object) -> None:
        raise Scores

    monkeypatch.setattr(script, "load_checkpoint", scores)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=0))
    run = options.work / "radfinder_seed0"
    script.train(run, "radfinder", 0, options)
    kept = {"asked": {"pool": 30, "paraphrases": script.sha256_of(options.paraphrases)}, "macro_auc": 0.5}
    (run / script.RESULT_FILE).write_text(json.dumps(kept))
    assert script.result_of("radfinder", 0, options, None) == kept
    options.pool = 40
    with pytest.raises(Scores):
        script.result_of("radfinder", 0, options, None)
