"""Dice of the anatomies that the network finds in real scans, and of the lungs by threshold, with given masks.

Usage: python -m experiments.domain.anatomy_dice REAL_FOLDER OUT.json [--ckpt_path model.pt]
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.processing import resample_from_to

from bundle.ctfindings.anatomy import ANATOMIES, anatomy_index
from bundle.ctfindings.inference.service import load_service
from bundle.ctfindings.scan.load_scan import load_scan
from bundle.ctfindings.scan.lung_mask import lung_mask
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--ckpt_path", type=Path, default=Path("models/model.pt"))
    options = parser.parse_args()
    service = load_service(".", options.ckpt_path, text=False)
    rows = []
    for name, (mask, anatomy, values) in MASKS.items():
        path = options.folder / f"{name}.nii.gz"
        answered = service.answer_file(path)
        with tempfile.TemporaryDirectory() as folder:
            answered.write_anatomy(Path(folder) / "anatomy.nii.gz")
            found: Any = nib.load(Path(folder) / "anatomy.nii.gz")
            labels = np.asarray(found.dataobj)
        given = resample_from_to(nib.load(options.folder / f"{mask}.nii.gz"), (labels.shape, found.affine), order=0)
        ids = np.asarray(given.dataobj)
        true = ids != 0 if values is None else np.isin(ids, values)
        row: dict[str, Any] = {"scan": name, "anatomy": anatomy}
        row["network"] = dice(np.isin(labels, ANATOMIES[anatomy_index(anatomy)].members), true)
        if anatomy == "lung":
            scan = load_scan(path)
            row["threshold"] = dice(lung_mask(scan.as_tensor()[0].numpy(), scan.affine.numpy()), true)
        rows.append(row)
        print(row, flush=True)
    result = {"weights_sha256": service.model.weights_sha256, "scans": rows}
    write_results(options.out.parent, result, options.out.name)


def dice(one: Any, two: Any) -> float:
    return round(float(2 * (one & two).sum() / (one.sum() + two.sum())), 3)


if __name__ == "__main__":
    main()
