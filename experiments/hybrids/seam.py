"""Can the seam of a drawn finding be seen? A classifier looks at patches on the border of drawn findings.

Usage: python -m experiments.hybrids.seam docs/experiments/hybrids [--bases 6] [--real FOLDER]

Synthetic scans: findings are drawn into the unaffected scan of a synthetic patient, and the same patient is rendered
with findings of his own, with the same severity, scanner and noise. A classifier tells patches on the border of the
drawn findings from those on the border of the own ones. Real scans (``--real``) have no known findings of their own:
there, border patches are told from untouched patches of the same scan with the nearest mean and gradient. A third group
is pasted without noise and partial volume, to show what the classifier can see. Cross-validated by base scan; intervals
by base scan. Writes ``seam.json`` and, from the synthetic scans only, ``seam.png``.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bundle.ctfindings.files.progress import progress_bar
from bundle.ctfindings.findings import FINDING_NAMES, finding_index
from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.json_numbers import number
from bundle.ctfindings.phantom.dataset import make_case
from bundle.ctfindings.phantom.hybrid import HybridBase, upright
from bundle.ctfindings.phantom.image.canvas import LUNG
from bundle.ctfindings.scan.load_scan import load_scan
from bundle.ctfindings.scan.lung_mask import lung_mask
from experiments.domain.real_chests import SCANS
from experiments.harness.page import write_results

GROUPS = (
    {
        "solid nodule": "Lung nodule",
        "ground glass": "Lung opacity",
        "consolidation": "Consolidation",
        "pleural effusion": "Pleural effusion",
    },
    {"emphysema": "Emphysema"},
    {"atelectasis": "Atelectasis"},
)
"""Findings by kind. Those of a group are rendered into one synthetic patient; others would hide their borders."""
KINDS = {kind: finding for group in GROUPS for kind, finding in group.items()}
SOLID_HU = (-100.0, 150.0)
"""HU of the densest quarter of a nodule that counts as solid; its mean holds the partial volume of its border."""
REACH = (3, 3, 1)
"""Voxels of a patch on each side of its middle."""
PATCHES = 60
"""Most patches of a finding in a scan."""
FEWEST_BASES = 3
"""With fewer base scans that have patches of both sorts, there is no AUC."""
FEATURES = ("mean", "sd", *(f"{what}_{axis}" for what in ("gradient", "autocorrelation") for axis in "xyz"), "grain")
MATCHED = ("mean", "gradient_x", "gradient_y", "gradient_z")
"""What an untouched patch has in common with the border patch that it is compared with."""
CLASSIFIERS: dict[str, Any] = {
    "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
    "gradient boosting": GradientBoostingClassifier(n_estimators=60, subsample=0.5, random_state=0),
}

Mask = NDArray[np.bool_]
Volume = NDArray[np.float32]


class Sample(NamedTuple):
    """Patches of one scan."""

    base: str
    drawn: bool
    features: NDArray[np.float64]  # [patches, FEATURES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--bases", type=int, default=6, help="synthetic base scans")
    parser.add_argument("--real", type=Path, help="folder of the seven real chests")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    settings = {"seed": options.seed, "patch_voxels": [2 * reach + 1 for reach in REACH], "features": FEATURES}
    own, pasted = synthetic(options.bases, options.seed, options.out / "seam.png")
    result: dict[str, Any] = {**settings, "synthetic": judged(own), "synthetic_pasted": judged(pasted)}
    if options.real is not None:
        result["real"] = judged(real(options.real, options.seed))
    write_results(options.out, result, "seam.json")


def synthetic(bases: int, seed: int, picture: Path | None) -> tuple[dict[str, list[Sample]], dict[str, list[Sample]]]:
    """Border patches of drawn and of own findings by kind; and of pasted and of own ones."""
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[Sample]] = defaultdict(list)
    pasted: dict[str, list[Sample]] = defaultdict(list)
    rows: dict[str, tuple[Volume, Volume, Mask]] = {}
    for index in progress_bar(range(bases), "synthetic", unit="scan"):
        severity = float(rng.beta(1.15, 1.75))
        _, hu, anatomy, _, affine = make_case(seed, index, [0] * len(FINDING_NAMES))
        base = HybridBase(*upright(hu, affine), upright(anatomy, affine)[0])
        borders = {kind: each for group in GROUPS for kind, each in own_borders(group, seed, index, severity).items()}
        for kind, finding in KINDS.items():
            scan, border = borders[kind]
            made = base.insert(finding, (seed, index), severity)
            seen = made.hu.astype(np.float32)
            edge = border_of(seen, made.mask, kind)
            flat = np.where(made.mask, np.float32(np.mean(seen[made.mask])), base.hu.astype(np.float32))
            name = str(index)
            features = patches(scan, border, rng)
            for samples, values in ((drawn, seen), (pasted, flat)):
                samples[kind] += [Sample(name, False, features), Sample(name, True, patches(values, edge, rng))]
            if edge.sum() > (rows[kind][2].sum() if kind in rows else 0):
                rows[kind] = (base.hu.astype(np.float32), seen, edge)
    if picture is not None:
        draw(rows, picture)
    return drawn, pasted


def own_borders(group: dict[str, str], seed: int, index: int, severity: float) -> dict[str, tuple[Volume, Mask]]:
    """A patient rendered with the findings of a group: the scan and the border of each finding, by kind."""
    labels = [int(name in group.values()) for name in FINDING_NAMES]
    _, hu, _, bits, affine = make_case(seed, index, labels, severity)
    scan, masks = upright(hu, affine)[0].astype(np.float32), upright(bits, affine)[0]
    found = {}
    for kind, finding in group.items():
        bit = 1 << finding_index(finding)
        # Where another finding is near, it is not the border of this one.
        alone = ~ndimage.binary_dilation((masks & ~bit) != 0, iterations=4)
        found[kind] = scan, border_of(scan, (masks & bit) != 0, kind) & alone
    return found


def real(folder: Path, seed: int) -> dict[str, list[Sample]]:
    """Border patches of findings drawn into real chests, and the untouched patches that are most like them."""
    rng = np.random.default_rng(seed)
    found: dict[str, list[Sample]] = defaultdict(list)
    for index, name in enumerate(progress_bar(SCANS, "real", unit="scan")):
        scan = load_scan(folder / f"{name}.nii.gz")
        hu, affine = upright(np.asarray(scan[0]), np.asarray(scan.affine))
        lungs = lung_mask(hu, affine)
        base = HybridBase(hu, affine, np.where(lungs, LUNG, 0))
        near = ndimage.binary_dilation(lungs, iterations=3)
        for kind, finding in KINDS.items():
            made = base.insert(finding, (seed, index), float(rng.beta(1.15, 1.75)))
            seen = made.hu.astype(np.float32)
            edge = patches(seen, border_of(seen, made.mask, kind), rng)
            others = patches(base.hu.astype(np.float32), near & ~made.mask, rng, 100 * PATCHES)
            found[kind] += [Sample(name, True, edge), Sample(name, False, nearest(edge, others))]
    return found


def border_of(hu: Volume, mask: Mask, kind: str) -> Mask:
    """Voxels of a mask that touch its outside; of nodules, only of the solid ones."""
    if kind == "solid nodule":
        parts, count = ndimage.label(mask)
        dense = [float(np.percentile(hu[parts == part], 75)) for part in range(1, count + 1)]
        mask = np.isin(parts, 1 + np.flatnonzero([SOLID_HU[0] < value < SOLID_HU[1] for value in dense]))
    return np.asarray(mask & ~ndimage.binary_erosion(mask))


def patches(hu: Volume, where: Mask, rng: np.random.Generator, most: int = PATCHES) -> NDArray[np.float64]:
    """``FEATURES`` of the patches around some of the voxels, ``[patches, FEATURES]``."""
    places = np.argwhere(where)
    inside = ((places >= REACH) & (places < np.array(hu.shape) - REACH)).all(axis=1)
    places = places[inside]
    places = places[rng.permutation(len(places))[:most]]
    steps = np.stack(np.meshgrid(*(np.arange(-reach, reach + 1) for reach in REACH), indexing="ij"))
    index = places[:, :, None, None, None] + steps[None]
    patch = hu[index[:, 0], index[:, 1], index[:, 2]].astype(np.float64)
    rest = patch - patch.mean(axis=(1, 2, 3), keepdims=True)
    variance = (rest**2).mean(axis=(1, 2, 3)) + 1e-6
    columns = [patch.mean(axis=(1, 2, 3)), np.sqrt(variance)]
    columns += [np.abs(np.diff(patch, axis=axis)).mean(axis=(1, 2, 3)) for axis in (1, 2, 3)]
    for axis in (1, 2, 3):
        first, second = (np.delete(rest, end, axis) for end in (-1, 0))
        columns.append((first * second).mean(axis=(1, 2, 3)) / variance)
    # What a plane through each row of three leaves is the grain of the noise.
    grain = np.diff(np.diff(patch, n=2, axis=1), n=2, axis=2)
    columns.append(np.sqrt((grain**2).mean(axis=(1, 2, 3))))
    return np.stack(columns, axis=1)


def nearest(wanted: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of other patches, those with the nearest ``MATCHED`` features, each at most once."""
    columns = [FEATURES.index(name) for name in MATCHED]
    if not len(wanted) or not len(others):
        return others[:0]
    spread = wanted[:, columns].std(axis=0) + 1e-6
    ranked = cKDTree(others[:, columns] / spread).query(wanted[:, columns] / spread, k=min(len(others), 50))[1]
    taken: dict[int, None] = {}
    for row in np.atleast_2d(ranked):
        taken.setdefault(next((int(place) for place in row if int(place) not in taken), int(row[0])))
    return others[list(taken)]


def judged(samples: dict[str, list[Sample]]) -> dict[str, Any]:
    """AUC of each classifier for each kind, cross-validated by base scan, with intervals by base scan.

    Base scans with patches of one sort only are left out; with fewer than ``FEWEST_BASES`` others, the AUC is None.
    """
    result: dict[str, Any] = {}
    for kind, found in samples.items():
        sorts = [{part.base for part in found if part.drawn == drawn and len(part.features)} for drawn in (False, True)]
        parts = [part for part in found if part.base in sorts[0] & sorts[1]]
        if len(sorts[0] & sorts[1]) < FEWEST_BASES:
            result[kind] = {"bases": len(sorts[0] & sorts[1]), **dict.fromkeys(CLASSIFIERS)}
            continue
        features = np.concatenate([part.features for part in parts])
        truth = np.concatenate([np.full(len(part.features), int(part.drawn)) for part in parts])
        bases = np.concatenate([np.full(len(part.features), part.base) for part in parts])
        folds = GroupKFold(min(6, len(np.unique(bases))))
        row: dict[str, Any] = {
            "bases": len(np.unique(bases)),
            "drawn": int(truth.sum()),
            "others": int((1 - truth).sum()),
        }
        for name, classifier in CLASSIFIERS.items():
            scores = cross_val_predict(classifier, features, truth, groups=bases, cv=folds, method="predict_proba")
            auc = Bootstrap(bases.tolist(), seed=0).auc(scores[:, 1:], truth[:, None]).findings
            row[name] = {"auc": number(float(auc.estimate[0])), "interval": auc.limits(0)}
        result[kind] = row
    return result


def draw(rows: dict[str, tuple[Volume, Volume, Mask]], path: Path) -> None:
    """The base and the hybrid side by side, at the slice with the most border, for each kind."""
    matplotlib.use("Agg")
    figure, axes = plt.subplots(2, len(rows), figsize=(2.1 * len(rows), 4.4), dpi=100)
    for column, (kind, (base, hybrid, border)) in enumerate(rows.items()):
        level = int(border.sum(axis=(0, 1)).argmax())
        places = np.argwhere(border[:, :, level])
        middle = places[np.abs(places - np.median(places, axis=0)).sum(axis=1).argmin()]
        window = tuple(slice(max(0, int(place) - 16), int(place) + 16) for place in middle)
        for row, (name, volume) in enumerate((("base", base), ("hybrid", hybrid))):
            # Seen from the feet, the patient's right on the left.
            axes[row, column].imshow(volume[:, :, level][window].T[::-1, ::-1], cmap="gray", vmin=-1100, vmax=250)
            axes[row, column].set_title(f"{kind}, {name}", fontsize=8)
            axes[row, column].axis("off")
    figure.tight_layout(pad=0.4, h_pad=1.2)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    main()
