"""What the image towers of published models cost on this machine: seconds and peak memory, beside a plain MONAI ViT of
the same size.

    python experiments/benchmarks/benchmark_towers.py [--output docs/evaluation/benchmark_towers.json] [--repeats 3]

Each tower has a process of its own, random weights and a scan of random numbers: time and memory do not depend on them.
fVLM's geometry reads 352 x 256 x 112 voxels, forward and as one training step; RadFinder reads a whole scan of 512 x
384 x 128 voxels, window by window.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from monai.bundle import ConfigParser  # noqa: E402
from monai.networks.nets import ViT  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from bundle.ctfindings.published.radfinder.image_encoder import radfinder_image_encoder  # noqa: E402
from experiments.benchmarks.hardware import machine  # noqa: E402

FVLM_SCAN = (1, 1, 352, 256, 112)
RADFINDER_SCAN = (1, 1, 512, 384, 128)


def fvlm_tower() -> nn.Module:
    """The tower of ``configs/networks/fvlm_tower.json``."""
    parser = ConfigParser()
    parser.read_config([str(ROOT / "configs" / name) for name in ("train.json", "networks/fvlm_tower.json")])
    tower: nn.Module = parser.get_parsed_content("image_tower")
    return tower


def plain_vit() -> nn.Module:
    """MONAI's ViT with the same patch, width, depth and heads."""
    size, patch = FVLM_SCAN[2:], (32, 16, 16)
    return ViT(
        1, size, patch, hidden_size=768, mlp_dim=3072, num_layers=12, num_heads=12, qkv_bias=True, dropout_rate=0.1
    )


def first_tensor(output: Any) -> Tensor:
    """The tokens in what a tower gives: lists and tuples begin with them."""
    while not isinstance(output, Tensor):
        output = output[0]
    return output


def forward(build: Callable[[], nn.Module]) -> Callable[[], object]:
    """One pass of a tower without gradient."""
    tower, scan = build().eval(), torch.rand(FVLM_SCAN)
    return torch.no_grad()(lambda: tower(scan))


def training_step(build: Callable[[], nn.Module]) -> Callable[[], object]:
    """A pass of a tower, the gradient of its tokens, and a step of AdamW."""
    tower, scan = build().train(), torch.rand(FVLM_SCAN)
    optimizer = torch.optim.AdamW(tower.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        first_tensor(tower(scan)).square().mean().backward()
        optimizer.step()

    return step


def radfinder_scan() -> Callable[[], object]:
    """A whole scan through RadFinder, one window at a time."""
    encoder, scan = radfinder_image_encoder().eval(), torch.rand(RADFINDER_SCAN)
    # Weights that were never written take no memory, which would flatter the figure.
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return torch.no_grad()(lambda: encoder.encode_scan(scan))


TASKS: dict[str, Callable[[], Callable[[], object]]] = {
    "fVLM's geometry, forward": lambda: forward(fvlm_tower),
    "plain MONAI ViT, forward": lambda: forward(plain_vit),
    "fVLM's geometry, training step": lambda: training_step(fvlm_tower),
    "plain MONAI ViT, training step": lambda: training_step(plain_vit),
    "RadFinder, whole scan": radfinder_scan,
}
RATIOS = (
    ("fVLM's geometry, forward", "plain MONAI ViT, forward"),
    ("fVLM's geometry, training step", "plain MONAI ViT, training step"),
)


def measure(name: str, repeats: int) -> dict[str, float]:
    """Shortest time of some runs after one that is not counted, and the largest memory of this process."""
    task = TASKS[name]()
    times = []
    for _ in range(1 if name.startswith("RadFinder") else repeats + 1):
        started = time.perf_counter()
        task()
        times.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
    return {"seconds": min(times[1:] or times), "peak_mb": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    parser.add_argument(
        "--repeats", type=int, default=3, help="timed runs of each (default %(default)s; RadFinder has one)"
    )
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        print(json.dumps(measure(options.task, options.repeats)))
        return
    found: dict[str, dict[str, float]] = {}
    for name in TASKS:
        command = [sys.executable, __file__, "--task", name, "--repeats", str(options.repeats)]
        found[name] = json.loads(
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout.splitlines()[
                -1
            ]
        )
        print(f"{name:<34}{found[name]['seconds']:>9.1f} s{found[name]['peak_mb']:>9.0f} MB", flush=True)
    ratios = {
        f"{one} / {other}": {key: found[one][key] / found[other][key] for key in found[one]} for one, other in RATIOS
    }
    for name, ratio in ratios.items():
        print(f"{name}: time {ratio['seconds']:.2f}, memory {ratio['peak_mb']:.2f}")
    if options.output:
        options.output.write_text(
            json.dumps({"machine": machine(), "towers": found, "ratios": ratios}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
