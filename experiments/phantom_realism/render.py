"""Renders the synthetic scans that ``compare.py`` compares, with one group of their features left out if asked.

    python experiments/phantom_realism/render.py OUT --scans 30 [--without noise] [--seconds FILE.json]

Scan ``i`` is that of seed 10000 and index ``i``, as ``scripts/make_synthetic_scans.py`` renders it; no data set of the
project has this seed. ``FILE.json`` receives the time that each scan takes to render, without its file.
"""

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bundle.ctfindings.phantom import patient as patients
from bundle.ctfindings.phantom.dataset import make_case, write_nifti
from bundle.ctfindings.phantom.image.canvas import Canvas, Floats
from bundle.ctfindings.phantom.image.vessels import Tree
from bundle.ctfindings.phantom.patient import Patient
from experiments.harness.page import write_results

SEED = 10_000
PHANTOM = "bundle.ctfindings.phantom."


def plain_noise(rng: np.random.Generator, canvas: Canvas, patient: Patient) -> None:
    """White noise of the same strength everywhere, with neither kernel, streaks nor motion."""
    canvas.hu += np.float32(patient.noise_hu) * rng.standard_normal(canvas.shape, np.float32)


def plain_lung(
    rng: np.random.Generator, canvas: Canvas, patient: Patient, lung: Floats, wall: Floats, texture: Floats
) -> None:
    """Lungs of one density, with neither gravity, texture nor fissures."""
    canvas.hu += canvas.coverage(lung) * (np.float32(patient.lung_hu) - canvas.hu)


def few_branches(tree: Tree, targets: np.ndarray, step: float, first: int = 0, batch: int = 2) -> Tree:
    """A quarter of the branches, and no twigs."""
    return _GROW(tree, targets[: 2 if batch > 2 else len(targets) // 4], step, first, batch)


def one_phase(rng: np.random.Generator, contrast: bool) -> tuple[float, float, float]:
    """Blood of one attenuation in all vessels, and of one phase with contrast. The patient stays the same."""
    plain, _, _ = _BLOOD(rng, contrast)
    level = 155.0 if contrast else plain
    return level, level, level


def nothing(*_: object) -> None:
    """Draws nothing."""


_GROW = Tree.grow
_BLOOD = patients._blood
GROUPS: dict[str, dict[str, Callable[..., object]]] = {
    "noise": {"dataset.acquire": plain_noise},
    "lung": {"image.healthy_chest.draw_parenchyma": plain_lung},
    "vessels": {"image.vessels.Tree.grow": few_branches},
    "skeleton": {"image.skeleton._draw_ribs": nothing, "image.skeleton._draw_girdle": nothing},
    "contrast": {"patient._blood": one_phase},
    "surroundings": {"dataset.draw_surroundings": nothing, "image.torso._draw_arms": nothing},
}
"""What takes the place of which function when a group is left out. Noise includes streaks and motion, surroundings
include arms; of the skeleton the spine is left."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--scans", type=int, default=30)
    parser.add_argument("--without", choices=list(GROUPS))
    parser.add_argument("--seconds", type=Path)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        for name, replacement in GROUPS.get(options.without, {}).items():
            stack.enter_context(patch(PHANTOM + name, replacement))
        seconds = []
        for index in range(options.scans):
            path = options.output / f"phantom_{index:06d}.nii.gz"
            if not path.exists():
                started = time.process_time(), time.perf_counter()
                _, image, _, _, affine = make_case(SEED, index)
                seconds.append((time.process_time() - started[0], time.perf_counter() - started[1]))
                write_nifti(path, image, affine)
    if options.seconds and seconds:
        core, clock = np.median(seconds, axis=0).tolist()
        found = {"scans": len(seconds), "median_core_seconds": round(core, 2), "median_seconds": round(clock, 2)}
        write_results(options.seconds.parent, found, options.seconds.name)


if __name__ == "__main__":
    main()
