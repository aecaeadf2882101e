"""Does everything run on this device? Trains, evaluates, answers and exports in small, and compares with the CPU.

    python experiments/gpu_smoke_test/run.py --output gpu_smoke_test.json

The default and every preset of configs/objectives train two steps, with and without mixed precision, and the default
also one step with the gradient cache. The shipped weights score two scans, answer one, and are exported to TorchScript.
A check that fails does not end the others. Without a GPU the device is the CPU, and there is nothing to compare with;
the memory of each check is measured on a GPU only.
The program ends with 1 if a check failed.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch
from monai.bundle import ConfigParser
from monai.utils import set_determinism

from bundle.ctfindings.data.datalist import load_datalist
from bundle.ctfindings.evaluation.evaluated_model import EvaluatedModel
from bundle.ctfindings.inference.service import load_service
from bundle.ctfindings.phantom.dataset import make_dataset
from experiments.benchmarks.measurement import write_record

CACHED = "gradient_cache.json"
Check = Callable[[str, Path, Path], torch.Tensor]
"""A check: device, datalist and folder to numbers that are compared with those of the CPU."""


def checks() -> dict[str, Check]:
    """All checks, by name."""
    presets = sorted((ROOT / "configs" / "objectives").glob("*.json"))
    overlays = {"default": (), **{path.stem: (f"objectives/{path.name}",) for path in presets}}
    found: dict[str, Check] = {}
    for name, files in overlays.items():
        found[f"train {name}"] = partial(last_loss, files, amp=False)
        found[f"train {name}, amp"] = partial(last_loss, files, amp=True)
    found["train default, gradient cache"] = partial(last_loss, (CACHED,), amp=False)
    return {**found, "evaluate": test_logits, "inference": probabilities, "export": exported}


def last_loss(overlays: tuple[str, ...], device: str, datalist: Path, folder: Path, amp: bool) -> torch.Tensor:
    """The loss of the last step of an epoch of two batches, or of one step of two cached micro-batches."""
    set_determinism(0)
    keys = {"amp": amp, "output_dir": str(folder / "run"), "resume": False, "epochs": 1, "val_interval": 2}
    keys |= {"batch_size": 2, "warm_start_steps": 1}
    parser = _parser(("train.json", *overlays), device, datalist, folder)
    parser.update({**keys, "micro_batches": 2} if CACHED in overlays else keys)
    trainer = parser.get_parsed_content("train#trainer")
    trainer.run()
    return torch.as_tensor(trainer.state.output["loss"]).detach().float().cpu().reshape(1)


def test_logits(device: str, datalist: Path, folder: Path) -> torch.Tensor:
    """Logits of the test scans, by the evaluation."""
    parser = _parser(("train.json", "evaluate.json"), device, datalist, folder)
    parser.update({"ckpt_path": str(ROOT / "models" / "model.pt")})
    model: EvaluatedModel = parser.get_parsed_content("evaluated_model")
    model.load()
    return torch.from_numpy(model.score(load_datalist(datalist, "test"), "evaluation").logits)


def probabilities(device: str, datalist: Path, folder: Path) -> torch.Tensor:
    """Probabilities of the findings of a scan, by the service of inference."""
    answered = load_service(ROOT, text=False, device=device).answer_file(load_datalist(datalist, "test")[0]["image"])
    return torch.tensor([finding.probability for finding in answered.record.findings])


def exported(device: str, datalist: Path, folder: Path) -> torch.Tensor:
    """Probabilities of the findings of a scan, by the network as TorchScript."""
    service = load_service(ROOT, text=False, device=device)
    script = torch.jit.script(service.network.eval())
    study: Mapping[str, Any] = service.preprocessing({"image": load_datalist(datalist, "test")[0]["image"]})  # type: ignore[assignment]
    with torch.inference_mode():
        found: torch.Tensor = script(study["image"].as_tensor()[None].float().to(device))
    return found.cpu()


def run_checks(device: str, datalist: Path, folder: Path) -> tuple[dict[str, dict[str, Any]], dict[str, torch.Tensor]]:
    """The row of each check, and the numbers of those that did not fail."""
    rows: dict[str, dict[str, Any]] = {}
    numbers: dict[str, torch.Tensor] = {}
    for name, check in checks().items():
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        try:
            numbers[name] = check(device, datalist, folder)
            row: dict[str, Any] = {"ok": bool(torch.isfinite(numbers[name]).all()), "error": None}
        except Exception as error:  # Whatever a device does; the other checks go on.
            row = {"ok": False, "error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        memory = None if device == "cpu" else torch.cuda.max_memory_allocated() / 2**20
        rows[name] = {**row, "seconds": time.perf_counter() - started, "megabytes": memory}
        print(f"{device:<5} {name:<34} {'ok' if row['ok'] else row['error'] or 'not finite'}", flush=True)
    return rows, numbers


def smoke_test(device: str, folder: Path) -> dict[str, Any]:
    """The record: each check on the device, with its largest difference from the CPU."""
    datalist = make_dataset(folder / "scans", training=4, validation=2, test=2, seed=0)
    rows, numbers = run_checks(device, datalist, folder / device)
    if device != "cpu":
        _, expected = run_checks("cpu", datalist, folder / "cpu")
        for name in numbers.keys() & expected.keys():
            rows[name]["difference"] = float((numbers[name] - expected[name]).abs().max())
    name = "" if device == "cpu" else torch.cuda.get_device_name()
    return {"device": device, "name": name, "checks": rows}


def _parser(configs: tuple[str, ...], device: str, datalist: Path, folder: Path) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(ROOT / "configs" / name) for name in configs])
    keys = {"bundle_root": str(ROOT), "datalist": str(datalist), "cache_dir": str(folder / "cache"), "seed": 0}
    parser.update({**keys, "device": f"$torch.device('{device}')"})
    return parser


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=default, help="cuda or cpu (default: cuda if there is one)")
    parser.add_argument("--output", type=Path, help="write the table to this JSON file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        record = smoke_test(options.device, Path(folder))
    print(f"\n{'check':<34} {'ok':<5} {'seconds':>8} {'MB':>8} {'difference':>11}")
    for name, row in record["checks"].items():
        difference = f"{row['difference']:.1e}" if "difference" in row else ""
        memory = "" if row["megabytes"] is None else f"{row['megabytes']:.0f}"
        print(f"{name:<34} {row['ok']!s:<5} {row['seconds']:>8.1f} {memory:>8} {difference:>11}")
    write_record(options.output, record)
    sys.exit(0 if all(row["ok"] for row in record["checks"].values()) else 1)


if __name__ == "__main__":
    main()
