"""How far apart groups of scans lie in the features of an encoder that was trained on patients."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.model_selection import KFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

COMPONENTS = 20
FOLDS = 5
DRAWS = 200
Features = NDArray[np.float32]


def read_features(folder: Path) -> Features:
    """The features that ``encode.py`` wrote to a folder, (N, 6144)."""
    return np.stack([np.load(path)["features"] for path in sorted(folder.glob("*.npz"))])


def residual(model: Pipeline, features: Features) -> NDArray[np.float64]:
    """Norm of what the principal components leave of the standardised features, (N,)."""
    standard = model[0].transform(features)
    return np.linalg.norm(standard - model[1].inverse_transform(model[1].transform(standard)), axis=1)


def fitted_components(scans: int, folds: int = FOLDS) -> int:
    """Components that the smallest fold of ``residuals`` of so many scans has: ``COMPONENTS``, or one less than it."""
    return min(COMPONENTS, scans - -(-scans // folds) - 1)


def residuals(reference: Features, others: dict[str, Features], folds: int = FOLDS) -> dict[str, list[float]]:
    """Residuals of principal components fitted on folds of ``reference``: held-out ones under ``held_out``.

    Those of the other groups are means over the folds, so that all models have seen the same number of scans.
    """
    held_out: list[float] = []
    summed = {name: np.zeros(len(features)) for name, features in others.items()}
    for kept, left in KFold(folds, shuffle=True, random_state=0).split(reference):
        model = make_pipeline(StandardScaler(), PCA(min(COMPONENTS, len(kept) - 1))).fit(reference[kept])
        held_out += residual(model, reference[left]).tolist()
        for name, features in others.items():
            summed[name] += residual(model, features) / folds
    return {"held_out": held_out, **{name: values.tolist() for name, values in summed.items()}}


def frechet(first: NDArray, second: NDArray) -> float:
    """Frechet distance of two groups of points, (N, D) and (M, D); their covariances are diagonal."""
    apart = (first.mean(0) - second.mean(0)) ** 2 + (first.std(0) - second.std(0)) ** 2
    return float(apart.sum())


def frechet_distances(groups: dict[str, Features], seed: int = 0) -> dict[str, dict[str, float]]:
    """Mean Frechet distance between disjoint draws of three and four scans of each pair of groups, in their own space.

    The space is that of 20 principal components of all scans, standardised. Draws of one size have one bias: a group
    against itself is the floor for all others.
    """
    rng = np.random.default_rng(seed)
    model = make_pipeline(StandardScaler(), PCA(COMPONENTS, random_state=0)).fit(np.concatenate(list(groups.values())))
    points = {name: model.transform(features) for name, features in groups.items()}
    table: dict[str, dict[str, float]] = {}
    for first, here in points.items():
        table[first] = {}
        for second, there in points.items():
            values = []
            for _ in range(DRAWS):
                order, other = rng.permutation(len(here)), rng.permutation(len(there))
                values.append(frechet(here[order[:3]], here[order[3:7]] if first == second else there[other[:4]]))
            table[first][second] = float(np.mean(values))
    return table


def way_to(start: Features, goal: Features, others: dict[str, Features]) -> dict[str, list[float]]:
    """How far the scans of each group lie on the way from the mean of ``start`` (0) to that of ``goal`` (1).

    Features are standardised by the two groups together.
    """
    scaler = StandardScaler().fit(np.concatenate([start, goal]))
    origin = scaler.transform(start).mean(0)
    course = scaler.transform(goal).mean(0) - origin
    return {
        name: ((scaler.transform(features) - origin) @ course / (course @ course)).tolist()
        for name, features in others.items()
    }
