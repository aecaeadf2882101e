"""Exports the image classifier to TorchScript and ONNX, and compares both with PyTorch on a scan.

    python scripts/export_classifier.py OUT_DIR --image SCAN

The exported network maps a preprocessed scan ``[B, 1, X, Y, Z]`` in [0, 1], with extents that are multiples of 16
voxels, to calibrated probabilities of the 18 findings ``[B, 18]``. It does not include preprocessing, free-text queries
or evidence. ONNX needs the packages onnx, onnxscript and onnxruntime (pip install -e '.[export]').
"""

import argparse
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from torch import Tensor, nn

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.files.atomic_write import atomic_path
from bundle.ctfindings.networks.classifier import load_classifier

ROOT = Path(__file__).resolve().parent.parent

TOLERANCE = 1e-4
"""Largest accepted difference of a probability."""

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")

Network = Callable[[Tensor], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder for model.ts and model.onnx")
    parser.add_argument("--image", help="scan for the comparison with PyTorch (default: noise)")
    parser.add_argument("--formats", nargs="+", choices=("ts", "onnx"), default=["ts", "onnx"], help="default: both")
    parser.add_argument(
        "--config-file", type=Path, default=ROOT / "configs" / "inference.json", help="default: configs/inference.json"
    )
    parser.add_argument("--ckpt-path", help="weights (default: those of the configuration)")
    parser.add_argument("--repeats", type=int, default=5, help="timed passes (default %(default)s)")
    options = parser.parse_args()
    if "onnx" in options.formats and (missing := [name for name in ONNX_PACKAGES if find_spec(name) is None]):
        remedy = "install them: pip install -e '.[export]', or add --formats ts"
        raise SystemExit(f"error: ONNX needs {', '.join(missing)}; {remedy}")

    config = ConfigParser()
    config.read_config(options.config_file)
    config["bundle_root"] = str(ROOT)
    config["device"] = "cpu"
    if options.ckpt_path is not None:
        config["ckpt_path"] = options.ckpt_path
    network = config.get_parsed_content("network_def").eval()
    run_or_exit(load_classifier, network, config.get_parsed_content("ckpt_path"))
    scan = torch.rand(1, 1, 96, 80, 112) if options.image is None else run_or_exit(preprocessed, config, options.image)

    exported: dict[str, Network] = {}
    if "ts" in options.formats:
        exported["TorchScript"] = export_torchscript(network, options.output / "model.ts")
    if "onnx" in options.formats:
        exported["ONNX"] = export_onnx(network, scan, options.output / "model.onnx")
    sys.exit(compare(network, exported, scan, options.repeats))


def preprocessed(config: ConfigParser, image: str) -> Tensor:
    """The preprocessed scan ``[1, 1, X, Y, Z]``."""
    prepared: MetaTensor = config.get_parsed_content("preprocessing")({"image": image})["image"]
    return prepared.as_tensor()[None]


def export_torchscript(network: nn.Module, path: Path) -> Network:
    """Writes a scripted module and loads it."""
    with atomic_path(path) as temporary:
        torch.jit.save(torch.jit.script(network), temporary)  # type: ignore[no-untyped-call]
    return torch.jit.load(path).eval()  # type: ignore[no-untyped-call]


def export_onnx(network: nn.Module, scan: Tensor, path: Path) -> Network:
    """Writes an ONNX model for extents that are multiples of 16 voxels, and loads it in ONNX Runtime."""
    import onnxruntime

    sizes = {axis + 2: 16 * torch.export.Dim(name, min=2, max=64) for axis, name in enumerate(("x", "y", "z"))}
    with torch.no_grad():
        program = torch.onnx.export(
            network,
            (scan,),
            dynamo=True,
            dynamic_shapes={"image": sizes},
            opset_version=18,
            input_names=["image"],
            output_names=["pred"],
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    with atomic_path(path) as temporary:
        program.save(temporary)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(np.asarray(session.run(["pred"], {"image": image.numpy()})[0]))


def compare(network: nn.Module, exported: dict[str, Network], scan: Tensor, repeats: int) -> int:
    """Prints largest difference and median time of each network; returns 1 if a difference is too large."""
    failed = 0
    with torch.inference_mode():
        expected = network(scan)
        print(f"scan {' x '.join(map(str, scan.shape[2:]))} voxels, {torch.get_num_threads()} threads")
        print(f"{'PyTorch':<12} {'':>24} {median_seconds(network, scan, repeats):8.3f} s")
        for name, run in exported.items():
            difference = float((run(scan) - expected).abs().max())
            failed += difference > TOLERANCE
            print(f"{name:<12} largest difference {difference:.0e} {median_seconds(run, scan, repeats):8.3f} s")
    return int(failed > 0)


def median_seconds(run: Network, scan: Tensor, repeats: int) -> float:
    """Median time of a pass, after two warm-up passes."""
    times = []
    for _ in range(repeats + 2):
        started = time.perf_counter()
        run(scan)
        times.append(time.perf_counter() - started)
    return float(np.median(times[2:]))


if __name__ == "__main__":
    main()
