"""Do frozen features tell tumour from lung on real chests? AUC of tokens, each patient scored by the others.

    python -m experiments.adapt.tumour_tokens REAL_FOLDER docs/experiments/adapt/tumour_tokens.json

A logistic regression on principal components of the tokens that the lungs or the tumour touch. Sources of features: the
shipped tower, Astra's (both stages joined, and each alone), both towers on Astra's grid, and mean and maximum HU of the
same tokens. Three patients prove nothing; they can refute.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.inference.encoding import token_affine
from bundle.ctfindings.networks.image.resnet_tower import joined_tokens
from bundle.ctfindings.scan.coordinates import as_affine, voxel_to_world, world_to_voxel
from bundle.ctfindings.scan.load_scan import load_scan
from bundle.ctfindings.scan.lung_mask import lung_mask
from experiments.domain.tumours import TUMOURS, tumour_points
from experiments.harness.page import write_results

ROOT = Path(__file__).resolve().parents[2]
COMPONENTS = 32
THIRD = 1024
"""Channels of Astra's third stage, which come first among the joined ones."""


class Tokens(NamedTuple):
    """Tokens of a scan."""

    features: NDArray[np.float32]  # [gx, gy, gz, F]
    affine: NDArray[np.float64]  # (4, 4), token index to RAS mm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    run_or_exit(experiment, parser.parse_args())


def experiment(options: argparse.Namespace) -> None:
    """Scores every source of features, and writes the AUC of each patient."""
    paths = [options.folder / f"{scan}.nii.gz" for scan in TUMOURS]
    tumours = [tumour_points(options.folder, scan) for scan in TUMOURS]
    scans = [load_scan(path) for path in paths]
    hu = [scan.as_tensor()[0].numpy() for scan in scans]
    affines = [as_affine(scan.affine) for scan in scans]
    lungs = [voxel_to_world(np.argwhere(lung_mask(*each)), each[1]) for each in zip(hu, affines, strict=True)]
    shipped = [tokens_of(path, ()) for path in paths]
    astra = [tokens_of(path, ("networks/astra.json",)) for path in paths]
    joined = [
        Tokens(np.concatenate([a.features, moved(s, a)], -1), a.affine) for a, s in zip(astra, shipped, strict=True)
    ]
    values = [hu_of(*each) for each in zip(hu, affines, astra, strict=True)]
    sources = {
        "shipped": shipped,
        "astra": astra,
        "astra_layer3": [each._replace(features=each.features[..., :THIRD]) for each in astra],
        "astra_layer4": [each._replace(features=each.features[..., THIRD:]) for each in astra],
        "astra_and_shipped": joined,
        "hu": values,
    }
    results: dict[str, Any] = {"components": COMPONENTS, "sources": {}}
    for name, tokens in sources.items():
        rows = [chosen(*each) for each in zip(tokens, lungs, tumours, strict=True)]
        aucs = leave_one_out(rows)
        results["sources"][name] = {
            "auc": dict(zip(TUMOURS, aucs, strict=True)),
            "mean": round(float(np.mean(aucs)), 3),
            "tumour_tokens": [int(label.sum()) for _, label in rows],
            "tokens": [len(label) for _, label in rows],
        }
        print(name, results["sources"][name], flush=True)
    write_results(options.out.parent, results, options.out.name)


def tokens_of(path: Path, overlays: tuple[str, ...]) -> Tokens:
    """The tokens that ``adapt.json`` reads of a scan: those of the finest level, or both stages of Astra joined."""
    parser = ConfigParser()
    parser.read_config([str(ROOT / "configs" / name) for name in ("adapt.json", *overlays)])
    parser["bundle_root"] = str(ROOT)
    steps = [*parser.get_parsed_content("whole_scan"), parser.get_parsed_content("frozen_tokens")]
    study: Any = Compose(steps)({"image": str(path)})
    stride = parser.get_parsed_content("image_tower").stride
    if "third_stage" in study:
        rows, grid = joined_tokens(study["third_stage"][None].float(), study["fourth_stage"][None].float())
        features = rows[0].unflatten(0, grid)
    else:
        features = study["level_0"].float().permute(1, 2, 3, 0)
    return Tokens(features.numpy(), token_affine(as_affine(study["image"].affine), stride))


def moved(source: Tokens, target: Tokens) -> NDArray[np.float32]:
    """The tokens of one grid that are nearest to those of another."""
    grid = np.moveaxis(np.indices(target.features.shape[:3]), 0, -1)
    return source.features[index_of(source, voxel_to_world(grid, target.affine))]


def hu_of(hu: NDArray[Any], affine: NDArray[np.float64], tokens: Tokens) -> Tokens:
    """Mean and maximum HU of the voxels of each token."""
    grid = tokens.features.shape[:3]
    places = voxel_to_world(np.moveaxis(np.indices(hu.shape), 0, -1).reshape(-1, 3), affine)
    index = np.ravel_multi_index(index_of(tokens, places), grid)
    values = np.clip(hu.ravel(), -1000, 1000).astype(np.float32)
    count = np.maximum(np.bincount(index, minlength=int(np.prod(grid))), 1)
    highest = np.full(len(count), -1000, np.float32)
    np.maximum.at(highest, index, values)
    mean = np.bincount(index, values, minlength=len(count)) / count
    return Tokens(np.stack([mean, highest], -1).astype(np.float32).reshape(*grid, 2), tokens.affine)


def index_of(tokens: Tokens, places: NDArray[np.float64]) -> tuple[NDArray[np.int64], ...]:
    """Index of the token that is nearest to each world position."""
    index = np.rint(world_to_voxel(places, tokens.affine)).astype(int)
    return tuple(np.moveaxis(np.clip(index, 0, np.asarray(tokens.features.shape[:3]) - 1), -1, 0))


def chosen(
    tokens: Tokens, lungs: NDArray[np.float64], tumour: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Features of the tokens that the lungs or the tumour touch, and whether the tumour does."""
    hit, among = (np.zeros(tokens.features.shape[:3], bool) for _ in range(2))
    hit[index_of(tokens, tumour)] = True
    among[index_of(tokens, lungs)] = True
    among |= hit
    return tokens.features[among], hit[among]


def leave_one_out(rows: list[tuple[NDArray[np.float32], NDArray[np.bool_]]]) -> list[float]:
    """AUC of the tokens of each patient by a regression on those of the others."""
    found = []
    for held_out, (features, label) in enumerate(rows):
        others = [row for index, row in enumerate(rows) if index != held_out]
        size = min(COMPONENTS, features.shape[1])
        model = make_pipeline(
            StandardScaler(),
            PCA(size, whiten=True, random_state=0),
            LogisticRegression(class_weight="balanced", max_iter=2000),
        )
        model.fit(np.concatenate([row[0] for row in others]), np.concatenate([row[1] for row in others]))
        found.append(round(float(roc_auc_score(label, model.decision_function(features))), 3))
    return found


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
