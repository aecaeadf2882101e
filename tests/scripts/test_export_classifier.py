"""The exported classifier gives what PyTorch gives, for scans of any size that the network takes."""

import importlib.util
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from bundle.ctfindings.networks.classifier import load_classifier

SIZES = [(32, 48, 64), (64, 32, 48)]


@pytest.fixture(scope="module")
def script(bundle_root: Path) -> dict[str, Any]:
    return runpy.run_path(str(bundle_root / "scripts" / "export_classifier.py"))


@pytest.fixture(scope="module")
def network(bundle_root: Path, untrained_weights: Path) -> torch.nn.Module:
    config = ConfigParser()
    config.read_config(bundle_root / "configs" / "inference.json")
    config["bundle_root"] = str(bundle_root)
    classifier = config.get_parsed_content("network_def").eval()
    load_classifier(classifier, untrained_weights)
    return classifier


def check(script: dict[str, Any], network: torch.nn.Module, exported: Any) -> None:
    for size in SIZES:
        scan = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            torch.testing.assert_close(exported(scan), network(scan), atol=1e-5, rtol=1e-4)
    assert script["compare"](network, {"it": exported}, scan, 1) == 0
    assert script["compare"](network, {"it": lambda image: exported(image) + 0.01}, scan, 1) == 1


def test_torchscript(script: dict[str, Any], network: torch.nn.Module, tmp_path: Path) -> None:
    check(script, network, script["export_torchscript"](network, tmp_path / "model.ts"))


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("onnxscript") is None, reason="onnxscript is not installed: pip install -e '.[export]'"
)
def test_onnx(script: dict[str, Any], network: torch.nn.Module, tmp_path: Path) -> None:
    check(script, network, script["export_onnx"](network, torch.rand(1, 1, 48, 32, 64), tmp_path / "model.onnx"))


def test_a_missing_package_is_named_before_anything_is_exported(
    bundle_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["export_classifier.py", str(tmp_path / "out")])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"error: ONNX needs onnx, onnxscript, onnxruntime; .*pip install -e"):
        runpy.run_path(str(bundle_root / "scripts" / "export_classifier.py"), run_name="__main__")
    assert not (tmp_path / "out").exists()
