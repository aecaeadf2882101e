"""How well the domain score of the shipped weights tells scans unlike the training scans from held-out ones.

Beside it a simpler measure: RMS z of the thorax row, with mean and SD of the first training scans of DATALIST.

Usage: python -m experiments.domain.detection DATALIST REAL_FOLDER OUT.json [--ckpt_path model.pt]

The held-out scans are the test split of DATALIST. Groups that they are compared with: real chests, other real
scans, and altered copies of the first held-out scans.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from scipy import ndimage

from bundle.ctfindings.anatomy import THORAX
from bundle.ctfindings.data.datalist import load_datalist
from bundle.ctfindings.inference.encoding import encode_study
from bundle.ctfindings.inference.service import FindingsService, load_service
from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.json_numbers import number
from experiments.domain.real_chests import SCANS
from experiments.harness.page import write_results

NOT_CHESTS = ("ts_example_ct_3mm", "crlm-ct-1004_ct_1p5x1p5x5", "ts_aorta_cta_crop_1p5", "ts_cardiac_cta_crop_1p5")
"""Abdomen, abdomen with lung bases, and two crops of angiographies of the chest, of shared/data."""

Volume = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("datalist", type=Path)
    parser.add_argument("real", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--ckpt_path", type=Path, default=Path("models/model.pt"))
    parser.add_argument("--held_out", type=int, default=100, help="first scans of the test split")
    parser.add_argument("--training", type=int, default=100, help="first scans of the training split")
    parser.add_argument("--altered", type=int, default=25, help="first of these of which altered copies are made")
    options = parser.parse_args()
    service = load_service(".", options.ckpt_path, text=False)
    studies = load_datalist(options.datalist, "test")[: options.held_out]
    training = load_datalist(options.datalist, "training")[: options.training]
    rows = np.stack([encoded(service, loaded(service, study["image"])).row for study in training])
    typical = rows.mean(axis=0), rows.std(axis=0)

    def scores(scan: MetaTensor) -> Scores:
        found = encoded(service, scan)
        return Scores(found.domain, float(np.sqrt(np.mean(((found.row - typical[0]) / typical[1]) ** 2))))

    held_out = [scores(loaded(service, study["image"])) for study in studies]
    limit = float(service.network.domain.threshold)
    result: dict[str, Any] = {
        "weights_sha256": service.model.weights_sha256,
        "threshold": limit,
        "held_out": summary(held_out, limit),
        "groups": {},
        "real_scans": {},
    }
    for name, scans in {"chests of patients": SCANS, "other scans of patients": NOT_CHESTS}.items():
        found = {scan: scores(loaded(service, options.real / f"{scan}.nii.gz")) for scan in scans}
        result["real_scans"] |= {scan: number(own.domain) for scan, own in found.items()}
        result["groups"][name] = summary(list(found.values()), limit) | auroc(list(found.values()), held_out)
    for name, alter in ALTERATIONS.items():
        others = [scores(scan) for scan in altered(service, studies[: options.altered], alter)]
        result["groups"][name] = summary(others, limit) | auroc(others, held_out)
        print(name, result["groups"][name], flush=True)
    write_results(options.out.parent, result, options.out.name)


class Scores(NamedTuple):
    """How unlike the training scans a scan is, by two measures."""

    domain: float  # the domain score
    thorax: float  # RMS z of the thorax row


class Encoded(NamedTuple):
    """What the measures of a scan are computed from."""

    domain: float  # the domain score
    row: NDArray[np.float64]  # [E], the row of the thorax


def summary(found: list[Scores], limit: float) -> dict[str, Any]:
    domain, thorax = np.asarray(found).T
    return {
        "scans": len(found),
        "median": number(float(np.median(domain))),
        "lowest": number(float(domain.min())),
        "highest": number(float(domain.max())),
        "outside": number(float(np.mean(domain > limit))),
        "thorax_median": number(float(np.median(thorax))),
        "thorax_lowest": number(float(thorax.min())),
        "thorax_highest": number(float(thorax.max())),
    }


def auroc(found: list[Scores], held_out: list[Scores]) -> dict[str, Any]:
    """AUROC of both measures of a group against the held-out scans, with an interval by scan."""
    values = np.asarray([*found, *held_out])
    labels = np.repeat(np.r_[np.ones(len(found), np.int64), np.zeros(len(held_out), np.int64)][:, None], 2, axis=1)
    areas = Bootstrap([str(row) for row in range(len(values))], seed=0).auc(values, labels).findings
    names = {"": 0, "thorax_": 1}
    return {f"{name}auroc": number(float(areas.estimate[column])) for name, column in names.items()} | {
        f"{name}auroc_interval": areas.limits(column) for name, column in names.items()
    }


def encoded(service: FindingsService, scan: MetaTensor) -> Encoded:
    """The domain score and the thorax row of a loaded scan."""
    study = service.preprocessing.preprocess({"image": scan})  # type: ignore[attr-defined]
    found = encode_study(service.network, {**study, "scan": scan, "seconds": {}})
    assert found.domain is not None and found.domain.score is not None
    return Encoded(found.domain.score, found.embedding.anatomy[0, THORAX].double().numpy())


def loaded(service: FindingsService, path: str | Path) -> MetaTensor:
    return service.preprocessing.load({"image": str(path)})["image"]  # type: ignore[attr-defined]


def altered(
    service: FindingsService,
    studies: list[dict[str, Any]],
    alter: Callable[[Volume, NDArray[Any], np.random.Generator], Volume],
) -> Iterator[MetaTensor]:
    for index, study in enumerate(studies):
        scan = loaded(service, study["image"])
        anatomy = np.asarray(nib.load(study["anatomy"]).dataobj)  # type: ignore[attr-defined]
        hu = alter(scan.as_tensor()[0].numpy(), anatomy, np.random.default_rng([5, index]))
        volume = torch.from_numpy(np.ascontiguousarray(hu, np.float32))[None]
        yield MetaTensor(volume, affine=scan.affine, meta=dict(scan.meta))


def noisy(hu: Volume, _: NDArray[Any], rng: np.random.Generator) -> Volume:
    """Correlated noise of 40 to 120 HU, as of a scan at low dose."""
    grain = ndimage.gaussian_filter(rng.standard_normal(hu.shape).astype(np.float32), (0.8, 0.8, 0))
    return hu + grain / grain.std() * np.float32(rng.uniform(40, 120))


def damaged(hu: Volume, anatomy: NDArray[Any], rng: np.random.Generator) -> Volume:
    """Three to seven slabs of two to seven slices that hold one value."""
    result = hu.copy()
    for _ in range(rng.integers(3, 8)):
        start = rng.integers(0, hu.shape[2] - 8)
        result[:, :, start : start + rng.integers(2, 8)] = rng.choice([-1024.0, 0.0, float(hu.max())])
    return result


def rotated(hu: Volume, _: NDArray[Any], rng: np.random.Generator) -> Volume:
    """20 to 40 degrees about the body axis."""
    angle = rng.choice([-1, 1]) * rng.uniform(20, 40)
    return ndimage.rotate(hu, angle, axes=(0, 1), reshape=False, order=1, cval=-1000)


def abdominal(hu: Volume, _: NDArray[Any], rng: np.random.Generator) -> Volume:
    """The lowest 20 to 30 percent of the slices."""
    return hu[:, :, : int(hu.shape[2] * rng.uniform(0.2, 0.3))]


def arterial(hu: Volume, anatomy: NDArray[Any], rng: np.random.Generator) -> Volume:
    """Heart and aorta brighter by 150 to 300 HU, as in an arterial phase."""
    return (hu + np.isin(anatomy, (2, 4)) * np.float32(rng.uniform(150, 300))).astype(np.float32)


def scaled(hu: Volume, _: NDArray[Any], rng: np.random.Generator) -> Volume:
    """HU + 1000 times 1.05 to 1.15, as with a wrong rescale slope."""
    return (hu + 1000) * np.float32(rng.uniform(1.05, 1.15)) - 1000


ALTERATIONS = {
    "noise added": noisy,
    "damaged slices": damaged,
    "rotated": rotated,
    "left and right mirrored": lambda hu, *_: hu[::-1],
    "front and back mirrored": lambda hu, *_: hu[:, ::-1],
    "upside down": lambda hu, *_: hu[:, :, ::-1],
    "lowest quarter only": abdominal,
    "arterial phase": arterial,
    "wrong rescale slope": scaled,
}

if __name__ == "__main__":
    main()
