"""Compares groups of scans: slices, HU, lung texture, noise, and distances in the features of an encoder.

    python experiments/phantom_realism/compare.py --scans phantom1=FOLDER phantom2=FOLDER real=FOLDER
        --features phantom1=FOLDER phantom2=FOLDER real=FOLDER --output FOLDER --draw phantom1 phantom2

``render.py`` makes folders of synthetic scans and ``encode.py`` folders of features. ``results.json`` receives the
numbers of all groups and ``README.md`` shows them; ``comparison.png`` shows slices of the groups of ``--draw`` and
their curves beside those of ``real``.
``--scans`` and ``--features`` may come in separate runs: ``--scans`` replaces the groups that it names, ``--features``
all distances. Without both the page is written anew. Keep slices of patients (``--draw real``) out of the repository:
give another ``--output``.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from experiments.harness.page import page_head, write_page, write_results
from experiments.harness.shown_command import shown_command
from experiments.phantom_realism.encoder_distances import (
    COMPONENTS,
    fitted_components,
    frechet_distances,
    read_features,
    residuals,
    way_to,
)
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


def _shown(value: dict[str, float] | float) -> str:
    """Median and range, or a number, with three digits."""
    if isinstance(value, dict):
        return f"{value['median']:.3g} ({value['min']:.3g} to {value['max']:.3g})"
    return f"{value:.3g}"


def _table(corner: str, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A Markdown table with a line for each row and the columns of the first one."""
    columns = list(next(iter(rows.values())))
    lines = [f"| {corner} | {' | '.join(columns)} |", f"|---{'|---:' * len(columns)}|"]
    return [*lines, *(f"| {name} | {' | '.join(_shown(row[key]) for key in columns)} |" for name, row in rows.items())]


def page(results: Mapping[str, Any]) -> list[str]:
    """The lines of the page: the picture, and a table for each kind of number."""
    curves = ("histogram", "noise_power")
    statistics = {
        name: {key: value for key, value in row.items() if key not in curves}
        for name, row in results.get("image_statistics", {}).items()
    }
    title = "How much the synthetic scans resemble scans of patients"
    lines = page_head(title, "\n".join(results["commands"]))
    if statistics:
        lines += ["![Slices, histograms and noise of synthetic scans](comparison.png)", ""]
        lines += ["Statistics of the voxels, median (range) over the scans:", "", *_table("group", statistics), ""]
    if "residual_of_20_components" not in results:
        return lines
    encoded = ", ".join(f"{name} {count}" for name, count in results["scans_encoded"].items())
    lines += [f"Features of Astra, scans of each group: {encoded}.", ""]
    for name, row in results["residual_of_20_components"].items():
        components = fitted_components(results["scans_encoded"][name.removeprefix("fitted_on_")])
        title = f"Residual of {components} principal components {name.replace('_', ' ')}, median (range):"
        lines += [title, "", *_table("group", {key: {"residual": value} for key, value in row.items()}), ""]
    lines += [
        f"Frechet distance of draws of three and four scans, in {COMPONENTS} principal components of all scans, "
        "with diagonal covariances:",
        "",
        *_table("group", results["frechet_distance"]),
        "",
    ]
    way = {name: {"place": value} for name, value in results.get("way_from_phantom1_to_real", {}).items()}
    if way:
        lines += ["Place on the way from the mean of phantom 1 (0) to that of the real scans (1):", ""]
        lines += [*_table("group", way), ""]
    return lines


def measure(scans: dict[str, Path], limit: int | None = None) -> dict[str, dict[str, Any]]:
    """By group: ``summary`` of every statistic of its scans, and the mean of histogram and noise power."""
    found: dict[str, dict[str, Any]] = {}
    for name, folder in scans.items():
        rows = [image_statistics(path) for path in sorted(folder.glob("*.nii.gz"))[:limit]]
        curves = ("histogram", "noise_power")
        found[name] = {"scans": len(rows)}
        found[name] |= {key: summary([row[key] for row in rows]) for key in rows[0] if key not in curves}  # type: ignore[misc]
        found[name] |= {key: np.nanmedian([row[key] for row in rows], axis=0).tolist() for key in curves}
    return found


def draw(scans: dict[str, Path], measured: dict[str, dict[str, Any]], path: Path) -> None:
    """Slices of the first scans of each group, and the curves of the groups that were measured."""
    matplotlib.use("Agg")
    rows = SHOWN * len(scans)
    figure = plt.figure(figsize=(15, 2.5 * rows + 3.6), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[2.5 * rows, 3.6])
    slices, curves = parts
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
    for name in measured:
        histogram.semilogy(BINS[:-1] + 10, measured[name]["histogram"], label=name)
        power.plot(np.arange(1, PATCH // 2 + 1) / PATCH, measured[name]["noise_power"], label=name, marker="o")
    histogram.set(xlabel="HU", ylabel="density of voxels", title="all voxels")
    power.set(xlabel="frequency in plane (1 / voxel)", ylabel="noise power (HU²)", title="noise in soft tissue")
    histogram.legend()
    figure.savefig(path, dpi=64, pil_kwargs={"optimize": True})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=group, nargs="+", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--features", type=group, nargs="+", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "experiments" / "phantom_realism")
    parser.add_argument("--limit", type=int, help="number of scans of a group whose voxels are measured")
    parser.add_argument("--draw", nargs="+", default=[], help="groups that the picture shows")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    scans, folders = dict(options.scans), dict(options.features)
    path = options.output / "results.json"
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"commands": []}
    command = shown_command(sys.argv, {"--output": None})
    if (scans or folders) and command not in results["commands"]:
        results["commands"].append(command)
    if scans:
        results["image_statistics"] = results.get("image_statistics", {}) | measure(scans, options.limit)
    if shown := {name: folder for name, folder in scans.items() if name in options.draw}:
        curves = {name: row for name, row in results["image_statistics"].items() if name in shown or name == "real"}
        draw(shown, curves, options.output / "comparison.png")
    if folders:
        features = {name: read_features(folder) for name, folder in folders.items()}
        results["scans_encoded"] = {name: len(values) for name, values in features.items()}
        results["residual_of_20_components"] = {
            f"fitted_on_{name}": {
                key: summary(values)
                for key, values in residuals(
                    features[name], {other: features[other] for other in features if other != name}
                ).items()
            }
            for name in ("phantom1", "phantom2")
            if name in features
        }
        results["frechet_distance"] = frechet_distances(features)
        if {"phantom1", "real"} <= set(features):
            ways = way_to(features["phantom1"], features["real"], features)
            results["way_from_phantom1_to_real"] = {name: summary(values) for name, values in ways.items()}
    write_results(options.output, results)
    write_page(options.output, page(results))


if __name__ == "__main__":
    main()
