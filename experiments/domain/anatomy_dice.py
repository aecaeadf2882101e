"""Dice with given masks of real scans: of the anatomy head, of the written label map, and of the lungs by threshold.

The label map takes the lung from the threshold, on a coarse grid. The head alone is where its logits, interpolated
between tokens, are above 0 within the body. There is no anatomy ``pulmonary artery``; its mask says what the network
takes the artery for.

Usage: python -m experiments.domain.anatomy_dice REAL_FOLDER OUT.json [--ckpt_path model.pt]
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from nibabel.processing import resample_from_to
from numpy.typing import NDArray

from bundle.ctfindings.anatomy import ANATOMIES
from bundle.ctfindings.inference.output.evidence_volume import map_on_scan
from bundle.ctfindings.inference.service import FindingsService, load_service
from bundle.ctfindings.scan.body_mask import body_mask
from bundle.ctfindings.scan.load_scan import load_scan
from bundle.ctfindings.scan.lung_mask import lung_mask
from experiments.domain.real_chests import label_map
from experiments.harness.page import write_results

MASKS: dict[str, tuple[str, str, Sequence[int] | None]] = {
    "imlab_id001_ct_128x128x64": ("imlab_id001_lungmask_128x128x64", "lung", None),
    "imlab_id002_ct_128x128x64": ("imlab_id002_lungmask_128x128x64", "lung", None),
    "imlab_id003_ct_128x128x64": ("imlab_id003_lungmask_128x128x64", "lung", None),
    "nsclc_lung1-001_ct_1p5x1p5x3": ("nsclc_lung1-001_rtstruct_1p5x1p5x3", "lung", (1, 2)),
    "ts_cardiac_cta_crop_1p5": ("ts_cardiac_heart_seg", "heart", None),
    "ts_aorta_cta_crop_1p5": ("ts_aorta_seg", "aorta", None),
}
"""Mask of each scan of shared/data, its anatomy, and its values (None for all but 0)."""
ARTERY = ("ts_cardiac_cta_crop_1p5", "ts_cardiac_pulmonary_artery_seg")
"""A scan of shared/data and its mask of the pulmonary artery."""

Mask = NDArray[np.bool_]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--ckpt_path", type=Path, default=Path("models/model.pt"))
    options = parser.parse_args()
    service = load_service(".", options.ckpt_path, text=False)
    rows = []
    for name, (mask, anatomy, values) in MASKS.items():
        found = find_anatomies(service, options.folder / f"{name}.nii.gz")
        true = given_mask(options.folder / f"{mask}.nii.gz", found, values)
        row: dict[str, Any] = {"scan": name, "anatomy": anatomy, "head": dice(found.head[anatomy], true)}
        row["label_map"] = dice(found.label_map[anatomy], true)
        if anatomy == "lung":
            row["threshold"] = dice(found.lungs, true)
        rows.append(row)
        print(row, flush=True)
    found = find_anatomies(service, options.folder / f"{ARTERY[0]}.nii.gz")
    artery = given_mask(options.folder / f"{ARTERY[1]}.nii.gz", found)
    shares: dict[str, Any] = {
        "scan": ARTERY[0],
        "voxels": int(artery.sum()),
        "in_the_body": share_of(artery, found.body),
        "head": {name: share_of(artery, region) for name, region in found.head.items()},
        "label_map": {name: share_of(artery, region) for name, region in found.label_map.items()},
    }
    print(shares, flush=True)
    result = {"weights_sha256": service.model.weights_sha256, "scans": rows, "pulmonary_artery": shares}
    write_results(options.out.parent, result, options.out.name)


class FoundAnatomies(NamedTuple):
    """What is found in a scan, as masks on its own grid, ``[X, Y, Z]``."""

    head: dict[str, Mask]  # by anatomy: the anatomy head alone, within the body
    label_map: dict[str, Mask]  # by anatomy: ``AnsweredScan.write_anatomy``
    lungs: Mask  # by threshold
    body: Mask
    affine: NDArray[Any]


def find_anatomies(service: FindingsService, path: Path) -> FoundAnatomies:
    """The anatomies of a scan; one includes its members, such as the heart in the mediastinum."""
    answered, scan = service.answer_file(path), load_scan(path)
    hu, affine = scan.as_tensor()[0].numpy(), scan.affine.numpy()
    lungs = lung_mask(hu, affine)
    body = body_mask(hu, affine) | lungs
    encoded = answered.encoded
    logits = encoded.embedding.anatomy_logits[0].T.reshape(-1, *encoded.embedding.grid).numpy()
    head = {
        anatomy.name: (map_on_scan(row, encoded.token_affine, affine, hu.shape) > 0) & body
        for anatomy, row in zip(ANATOMIES, logits, strict=True)
    }
    return FoundAnatomies(head, label_map(answered), lungs, body, affine)


def given_mask(path: Path, found: FoundAnatomies, values: Sequence[int] | None = None) -> Mask:
    """A mask file on the grid of a scan: its ``values``, or all but 0."""
    given: Any = resample_from_to(nib.load(path), (found.body.shape, found.affine), order=0)
    ids = np.asarray(given.dataobj)
    return ids != 0 if values is None else np.isin(ids, values)


def share_of(true: Mask, region: Mask) -> float:
    """Share of a mask that a region covers."""
    return round(float(region[true].mean()), 3)


def dice(one: Any, two: Any) -> float:
    return round(float(2 * (one & two).sum() / (one.sum() + two.sum())), 3)


if __name__ == "__main__":
    main()
