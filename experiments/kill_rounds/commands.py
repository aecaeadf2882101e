"""The commands that the kill rounds stop, on a few synthetic scans, and the numbers that each of them writes."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bundle.ctfindings.data.scan_cache import read_entry

ROOT = Path(__file__).resolve().parents[2]

SMALL = {
    "spacing": [8, 8, 6],
    "roi_size": [48, 48, 48],
    "shift_voxels": [2, 2, 2],
    "embedding": 32,
    "image_tower#channels": [16, 8, 16, 16],
    "image_tower#width": 16,
    "image_tower#blocks": [1, 1, 1, 1],
    "text_trainable_layers": -1,
    "text_from_scratch": {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    },
    "batch_size": 2,
    "epochs": 4,
    "warm_start_steps": 100,
    "val_interval": 1,
    "domain_scans": 4,
    "resamples": 200,
}
"""Keys over ``configs/train.json`` and ``configs/evaluate.json``: a network that trains in seconds."""

WHEN = ("created", "seconds")
"""Fields of ``findings.json`` that tell when and how long a run took."""


class Data(NamedTuple):
    """What every round reads: a datalist, a full cache of it, and a checkpoint that was trained on it."""

    datalist: Path
    cache: Path
    checkpoint: Path


class Stage(NamedTuple):
    """A command that writes into a folder, and what it wrote there."""

    command: Callable[[Data, Path], list[str]]
    numbers: Callable[[Path], dict[str, str]]
    free: str  # What may differ between two runs that were not stopped, and why


def _train(data: Data, output: Path) -> list[str]:
    return _bundle_run(["train"], output, {**SMALL, "cache_dir": data.cache, "datalist": data.datalist})


def _evaluate(data: Data, output: Path) -> list[str]:
    keys = {**SMALL, "cache_dir": output / "cache", "datalist": data.datalist, "ckpt_path": data.checkpoint}
    return _bundle_run(["train", "evaluate"], output, {**keys, "eval_dir": output / "results"})


def _bundle_run(configs: list[str], output: Path, keys: Mapping[str, Any]) -> list[str]:
    output.mkdir(parents=True, exist_ok=True)
    overrides = output / "keys.json"
    keys = {**keys, "bundle_root": ROOT, "output_dir": output / "run"}
    overrides.write_text(json.dumps(keys, default=str), encoding="utf-8")
    files = [*(ROOT / "configs" / f"{name}.json" for name in configs), overrides]
    return ["-m", "monai.bundle", "run", "--config_file", str([str(file) for file in files])]


def _fill_cache(data: Data, output: Path) -> list[str]:
    keys = [f"{key}={json.dumps(SMALL[key])}" for key in ("spacing", "roi_size")]
    settings = ["--set", *keys, f"cache_dir={json.dumps(str(output))}"]
    return [str(ROOT / "scripts/fill_cache.py"), "--datalist", str(data.datalist), "--workers", "1", *settings]


def _run_archive(data: Data, output: Path) -> list[str]:
    return [str(ROOT / "scripts/run_archive.py"), str(data.datalist), "--output", str(output)]


def _trained(output: Path) -> dict[str, str]:
    states = {name: torch.load(output / "run" / name, weights_only=True) for name in ("last.pt", "best.pt")}
    return {key: _digest(value) for name, state in states.items() for key, value in _leaves(state, name)}


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from _leaves(item, f"{name} {key}")
    else:
        yield name, value


def _cached(output: Path) -> dict[str, str]:
    entries = {path.name: read_entry(path) for path in output.rglob("[!.]*.safetensors")}
    return {f"{name} {key}": _digest(value) for name, entry in entries.items() for key, value in entry.items()}


def _evaluated(output: Path) -> dict[str, str]:
    results = output / "results"
    record = json.loads((results / "metrics.json").read_text(encoding="utf-8"))
    files = {path.name: path.read_bytes() for path in results.rglob("[!.]*") if path.suffix in (".csv", ".png")}
    numbers = {f"metrics.json {key}": _digest(value) for key, value in _leaves(record, "")}
    return numbers | {name: _digest(content) for name, content in files.items()}


def _archived(output: Path) -> dict[str, str]:
    numbers = {"findings.csv": _digest((output / "findings.csv").read_bytes())}
    for path in output.glob("scans/*/findings.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        kept = {key: value for key, value in record.items() if key not in WHEN}
        numbers |= {f"{path.parent.name} {key}": _digest(value) for key, value in _leaves(kept, "")}
    return numbers


def _digest(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        header = f"{value.dtype} {tuple(value.shape)} ".encode()
        value = header + value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    content = value if isinstance(value, bytes) else json.dumps(value, default=str).encode()
    return hashlib.sha256(content).hexdigest()[:16]


STAGES = {
    "training": Stage(
        _train,
        _trained,
        "TensorBoard curves: the steps of the epoch that was stopped are logged twice",
    ),
    "cache": Stage(_fill_cache, _cached, "nothing"),
    "archive": Stage(
        _run_archive, _archived, f"{' and '.join(WHEN)} of findings.json: when and how long a scan was read"
    ),
    "evaluation": Stage(_evaluate, _evaluated, "nothing"),
}
