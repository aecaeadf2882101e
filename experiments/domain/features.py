"""Domain features of synthetic scans, of altered ones, and of real ones, in one NumPy archive for ``measure``.

Usage: python -m experiments.domain.features DATALIST REAL_FOLDER OUT.npz [--ckpt_path model.pt]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from scipy import ndimage

from bundle.ctfindings.data.datalist import load_datalist
from bundle.ctfindings.inference.encoding import scan_body
from bundle.ctfindings.inference.service import FindingsService, load_service
from bundle.ctfindings.networks.domain import domain_features
from experiments.domain.real_chests import SCANS

NOT_CHESTS = ("ts_example_ct_3mm", "crlm-ct-1004_ct_1p5x1p5x5", "ts_aorta_cta_crop_1p5", "ts_cardiac_cta_crop_1p5")
"""Abdomen, abdomen with lung bases, and crops of angiographies, of shared/data."""

Volume = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("datalist", type=Path)
    parser.add_argument("real", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--ckpt_path", type=Path, default=Path("models/model.pt"))
    parser.add_argument("--altered", type=int, default=25, help="test scans of which altered ones are made")
    options = parser.parse_args()
    service = load_service(".", options.ckpt_path, text=False)
    found: dict[str, Any] = {}
    for split in ("training", "validation", "test"):
        studies = load_datalist(options.datalist, split)
        found[split] = stacked(features_of(service, loaded(service, study["image"])) for study in studies)
        print(split, len(studies), flush=True)
    found["real chests"] = stacked(
        features_of(service, loaded(service, options.real / f"{name}.nii.gz")) for name in SCANS
    )
    found["real, no whole chest"] = stacked(
        features_of(service, loaded(service, options.real / f"{name}.nii.gz")) for name in NOT_CHESTS
    )
    for name, alter in ALTERATIONS.items():
        found[name] = stacked(altered(service, options.datalist, options.altered, alter))
        print(name, flush=True)
    np.savez_compressed(options.out, **found)


def loaded(service: FindingsService, path: str | Path) -> MetaTensor:
    scan: MetaTensor = service.preprocessing.load({"image": str(path)})["image"]  # type: ignore[attr-defined]
    return scan


def stacked(rows: Iterator[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.stack(list(rows))


@torch.inference_mode()
def features_of(service: FindingsService, scan: MetaTensor) -> NDArray[np.float32]:
    """Domain features and rows of one loaded scan, ``[K, F + E]``."""
    study = service.preprocessing.preprocess({"image": scan})  # type: ignore[attr-defined]
    image: MetaTensor = study["image"]
    encoder = service.network.image
    stride: tuple[int, int, int] = encoder.tower.stride  # type: ignore[assignment]
    grid = [size // step for size, step in zip(image.shape[1:], stride, strict=True)]
    body, voxels = scan_body(study, image.affine, stride, grid), image.as_tensor()[None].float()
    encoded = encoder.encode_scan(voxels, body=body)
    features = domain_features(voxels, encoded, stride, body)
    return torch.cat([features, encoded.anatomy], dim=2)[0].numpy()


def altered(
    service: FindingsService,
    datalist: Path,
    count: int,
    alter: Callable[[Volume, NDArray[Any], np.random.Generator], Volume],
) -> Iterator[NDArray[np.float32]]:
    for index, study in enumerate(load_datalist(datalist, "test")[:count]):
        scan = loaded(service, study["image"])
        anatomy = np.asarray(nib.load(study["anatomy"]).dataobj)  # type: ignore[attr-defined]
        hu = alter(scan.as_tensor()[0].numpy(), anatomy, np.random.default_rng([5, index]))
        volume = torch.from_numpy(np.ascontiguousarray(hu, np.float32))[None]
        yield features_of(service, MetaTensor(volume, affine=scan.affine, meta=dict(scan.meta)))


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
    turned: Volume = ndimage.rotate(hu, angle, axes=(0, 1), reshape=False, order=1, cval=-1000)
    return turned


def abdominal(hu: Volume, _: NDArray[Any], rng: np.random.Generator) -> Volume:
    """The lowest 20 to 30 percent of the slices."""
    return hu[:, :, : int(hu.shape[2] * rng.uniform(0.2, 0.3))]


def arterial(hu: Volume, anatomy: NDArray[Any], rng: np.random.Generator) -> Volume:
    """Heart and aorta brighter by 150 to 300 HU, as in an arterial phase."""
    brighter: Volume = (hu + np.isin(anatomy, (2, 4)) * np.float32(rng.uniform(150, 300))).astype(np.float32)
    return brighter


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
