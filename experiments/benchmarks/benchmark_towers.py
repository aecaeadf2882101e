"""Cost of the image towers of published models: seconds and peak memory, beside a plain MONAI ViT of the same size.

    python experiments/benchmarks/benchmark_towers.py [--output docs/evaluation/benchmark_towers.json] [--repeats 3]

Each tower runs in its own process with random weights on a random scan; time and memory do not depend on them. fVLM's
geometry reads 352 x 256 x 112 voxels, forward and as one training step; RadFinder reads a whole scan of 512 x
384 x 128 voxels, window by window; Astra reads a scan resized to 224 x 224 x 160 voxels, with the border of its tower.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from timeit import timeit
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from monai.bundle import ConfigParser
from monai.networks.nets import ViT
from torch import Tensor, nn

from bundle.ctfindings.networks.image.resnet_tower import ResNetTower
from bundle.ctfindings.published.radfinder.image_encoder import radfinder_image_encoder
from experiments.benchmarks.measurement import (
    ROOT,
    last_line_of,
    peak_megabytes,
    shortest_seconds,
    write_record,
)

FVLM_SCAN = (1, 1, 352, 256, 112)
RADFINDER_SCAN = (1, 1, 512, 384, 128)
ASTRA_SCAN = (1, 1, 240, 240, 168)


def fvlm_tower() -> nn.Module:
    """The tower of ``configs/networks/fvlm_tower.json``."""
    parser = ConfigParser()
    parser.read_config([str(ROOT / "configs" / name) for name in ("train.json", "networks/fvlm_tower.json")])
    return parser.get_parsed_content("image_tower")


def plain_vit() -> nn.Module:
    """MONAI's ViT with the same patch, width, depth and heads."""
    size, patch = FVLM_SCAN[2:], (32, 16, 16)
    return ViT(
        1, size, patch, hidden_size=768, mlp_dim=3072, num_layers=12, num_heads=12, qkv_bias=True, dropout_rate=0.1
    )


def first_tensor(output: Any) -> Tensor:
    """The tokens in the output of a tower, where lists and tuples start with them."""
    while not isinstance(output, Tensor):
        output = output[0]
    return output


def forward(build: Callable[[], nn.Module]) -> Callable[[], object]:
    """A forward pass of a tower without gradients."""
    tower, scan = build().eval(), torch.rand(FVLM_SCAN)
    return torch.no_grad()(lambda: tower(scan))


def training_step(build: Callable[[], nn.Module]) -> Callable[[], object]:
    """Forward and backward pass of a tower, and a step of AdamW."""
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
    # Weights that were never written take no memory.
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return torch.no_grad()(lambda: encoder.encode_scan(scan))


def astra_scan() -> Callable[[], object]:
    """A whole scan through Astra's frozen network."""
    tower, scan = ResNetTower().eval(), torch.rand(ASTRA_SCAN)
    return torch.no_grad()(lambda: tower(scan))


TASKS: dict[str, Callable[[], Callable[[], object]]] = {
    "fVLM's geometry, forward": lambda: forward(fvlm_tower),
    "plain MONAI ViT, forward": lambda: forward(plain_vit),
    "fVLM's geometry, training step": lambda: training_step(fvlm_tower),
    "plain MONAI ViT, training step": lambda: training_step(plain_vit),
    "RadFinder, whole scan": radfinder_scan,
    "Astra, whole scan": astra_scan,
}
RATIOS = (
    ("fVLM's geometry, forward", "plain MONAI ViT, forward"),
    ("fVLM's geometry, training step", "plain MONAI ViT, training step"),
)


def measure(name: str, repeats: int) -> dict[str, float]:
    """Shortest time of some runs, one for RadFinder, and peak memory of this process."""
    task = TASKS[name]()
    seconds = timeit(task, number=1) if name.startswith("RadFinder") else shortest_seconds(task, repeats)
    return {"seconds": seconds, "peak_mb": peak_megabytes()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="write the numbers to this JSON file")
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
        found[name] = json.loads(last_line_of([__file__, "--task", name, "--repeats", str(options.repeats)]))
        print(f"{name:<34}{found[name]['seconds']:>9.1f} s{found[name]['peak_mb']:>9.0f} MB", flush=True)
    ratios = {
        f"{one} / {other}": {key: found[one][key] / found[other][key] for key in found[one]} for one, other in RATIOS
    }
    for name, ratio in ratios.items():
        print(f"{name}: time {ratio['seconds']:.2f}, memory {ratio['peak_mb']:.2f}")
    write_record(options.output, {"towers": found, "ratios": ratios})


if __name__ == "__main__":
    main()
