"""The benchmark of the input measures an epoch, and nothing that comes before it."""

import json
import runpy
from pathlib import Path

import pytest

from bundle.ctfindings.training.token_warm_start import TokenWarmStart


def test_an_epoch_is_measured_without_the_warm_start(
    bundle_root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = runpy.run_path(str(bundle_root / "experiments" / "benchmarks" / "benchmark_input.py"))
    datalist = tmp_path / "datalist.json"
    files = {"image": "a.nii.gz", "anatomy": "b.nii.gz", "finding_masks": "c.nii.gz"}
    studies = [{"id": name, **files} for name in "abcde"]
    datalist.write_text(json.dumps({"training": studies[:4], "validation": studies[4:]}))
    steps: list[int] = []
    attach = TokenWarmStart.attach
    monkeypatch.setattr(TokenWarmStart, "attach", lambda self, engine: (steps.append(self.steps), attach(self, engine)))
    script["training"](datalist, tmp_path, None)
    assert steps == [0]
