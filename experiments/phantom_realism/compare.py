"""Compares groups of scans: slices, HU, lung texture, noise, and distances in the features of an encoder.

    python experiments/phantom_realism/compare.py --scans phantom1=FOLDER phantom2=FOLDER real=FOLDER
        --features phantom1=FOLDER phantom2=FOLDER real=FOLDER --output FOLDER --draw phantom1 phantom2

``render.py`` makes folders of synthetic scans and ``encode.py`` folders of features. ``results.json`` receives the
numbers of all groups, and ``comparison.png`` shows those of ``--draw``, all by default.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from experiments.phantom_realism.encoder_distances import frechet_distances, read_features, residuals, way_to
from experiments.phantom_realism.image_statistics import BINS, PATCH, image_statistics

SHOWN = 3
LUNG, SOFT = (-1000, 200), (-160, 240)


def group(text: str) -> tuple[str, Path]:
    """NAME=FOLDER."""
    name, _, folder = text.partition("=")
    if not folder or not Path(folder).is_dir():
        raise argparse.ArgumentTypeError(f"{text}: expected NAME=FOLDER of an existing folder")
    return name, Path(folder)


def summary(values: list[float]) -> dict[str, float]:
    """Least, median and greatest of some numbers."""
    return {"min": float(np.min(values)), "median": float(np.median(values)), "max": float(np.max(values))}


def measure(scans: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """By group: ``summary`` of every statistic of its scans, and the mean of histogram and noise power."""
    found: dict[str, dict[str, Any]] = {}
    for name, folder in scans.items():
        rows = [image_statistics(path) for path in sorted(folder.glob("*.nii.gz"))]
        curves = ("histogram", "noise_power")
        found[name] = {"scans": len(rows)}
        found[name] |= {key: summary([row[key] for row in rows]) for key in rows[0] if key not in curves}  # type: ignore[misc]
        found[name] |= {key: np.nanmedian([row[key] for row in rows], axis=0).tolist() for key in curves}
    return found


def draw(scans: dict[str, Path], measured: dict[str, dict[str, Any]], path: Path) -> None:
    """Slices of the first scans of each group, and the curves of all."""
    matplotlib.use("Agg")
    rows = SHOWN * len(scans)
    figure = plt.figure(figsize=(15, 2.5 * rows + 3.6), layout="constrained")
    slices, curves = figure.subfigures(2, 1, height_ratios=[2.5 * rows, 3.6])
    axes = slices.subplots(rows, 6)
    for row, (name, number) in enumerate((name, number) for name in scans for number in range(SHOWN)):
        files = sorted(scans[name].glob("*.nii.gz"))
        image = nib.as_closest_canonical(nib.load(files[min(number, len(files) - 1)]))
        volume, (dx, dy, dz) = np.asarray(image.dataobj, np.float32), image.header.get_zooms()[:3]
        x, y, z = volume.shape
        views = [(volume[:, :, int(share * z)], dy / dx) for share in (0.78, 0.55, 0.55, 0.35)]
        views += [(volume[:, int(0.5 * y)], dz / dx), (volume[int(0.62 * x)], dz / dy)]
        for axis, (view, aspect), window in zip(axes[row], views, (SOFT, LUNG, SOFT, SOFT, LUNG, SOFT), strict=True):
            axis.imshow(view.T[::-1], cmap="gray", vmin=window[0], vmax=window[1], aspect=aspect)
            axis.axis("off")
        axes[row, 0].set_title(name, fontsize=9, loc="left")
    histogram, power = curves.subplots(1, 2)
    for name in scans:
        histogram.semilogy(BINS[:-1] + 10, measured[name]["histogram"], label=name)
        power.plot(np.arange(1, PATCH // 2 + 1) / PATCH, measured[name]["noise_power"], label=name, marker="o")
    histogram.set(xlabel="HU", ylabel="density of voxels", title="all voxels")
    power.set(xlabel="frequency in plane (1 / voxel)", ylabel="noise power (HU²)", title="noise in soft tissue")
    histogram.legend()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=group, nargs="+", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--features", type=group, nargs="+", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--draw", nargs="+", help="groups that the picture shows")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    scans, folders = dict(options.scans), dict(options.features)
    measured = measure(scans)
    content: dict[str, Any] = {"image_statistics": measured}
    if folders:
        features = {name: read_features(folder) for name, folder in folders.items()}
        content["scans_encoded"] = {name: len(values) for name, values in features.items()}
        content["residual_of_20_components"] = {}
        for reference in [name for name in features if name.startswith("phantom")]:
            others = {name: values for name, values in features.items() if name != reference}
            values = residuals(features[reference], others)
            content["residual_of_20_components"][f"fitted_on_{reference}"] = {
                name: summary(numbers) for name, numbers in values.items()
            }
        content["frechet_distance"] = frechet_distances(features)
        if {"phantom1", "real"} <= set(features):
            content["way_from_phantom1_to_real"] = way_to(features["phantom1"], features["real"], features)
    (options.output / "results.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    shown = {name: folder for name, folder in scans.items() if not options.draw or name in options.draw}
    if shown:
        draw(shown, measured, options.output / "comparison.png")


if __name__ == "__main__":
    main()
