"""Answers of the service on a folder of chest CT: what is present, and whether peaks lie in the body and the anatomy.

The reference for a peak is independent of the code under test where there is one: the body mask and the threshold lungs
of the scan itself, and the network's label map inside the body for the other anatomies.

Usage: python -m experiments.domain.real_chests FOLDER OUT.json [--ckpt_path model.pt]
"""

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bundle.ctfindings.anatomy import ANATOMIES
from bundle.ctfindings.inference.service import AnsweredScan, FindingsService, load_service
from bundle.ctfindings.scan.body_mask import body_mask
from bundle.ctfindings.scan.coordinates import voxel_spacing, world_to_voxel
from bundle.ctfindings.scan.load_scan import load_scan
from bundle.ctfindings.scan.lung_mask import lung_mask

SCANS = (
    "nsclc_lung1-001_ct_1p5x1p5x3",
    "imlab_id001_ct_128x128x64",
    "imlab_id002_ct_128x128x64",
    "imlab_id003_ct_128x128x64",
    "ibsi_candat_pat_1_ct",
    "ibsi_candat_pat_2_ct",
    "cip_ct-64",
)
"""The seven real chests of shared/data; the two of ibsi_candat are partial."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--ckpt_path", type=Path, default=Path("models/model.pt"))
    parser.add_argument("--scans", nargs="+", default=SCANS, help="file names without .nii.gz")
    options = parser.parse_args()
    service = load_service(".", options.ckpt_path, text=False)
    rows = [describe(service, options.folder / f"{name}.nii.gz") for name in options.scans]
    result = {"weights_sha256": service.model.weights_sha256, "summary": summary(rows), "scans": rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["summary"], indent=1))


def describe(service: FindingsService, path: Path) -> dict[str, Any]:
    """One scan: its findings, each with the distance of its peak to the body and to the anatomy that answered."""
    answered = service.answer_file(path)
    record = answered.record.to_dict()
    scan = load_scan(path)
    hu, affine = scan.as_tensor()[0].numpy(), scan.affine.numpy()
    regions = reference_regions(answered, hu, affine)
    findings = []
    for answer in record["findings"]:
        row: dict[str, Any] = {key: answer[key] for key in ("name", "probability", "anatomy")}
        row["present"] = answer["probability"] >= answer["threshold"]
        row["shown"] = "not assessed" if answer["present"] is None else "present" if answer["present"] else "absent"
        if (place := answer["evidence"]) is not None:
            row["to_body_mm"] = distance_mm(place["peak_mm"], regions["thorax"], affine)
            # Without its anatomy, the whole scan answers.
            answered_by = answer["anatomy"] if answer["anatomy_found"] else "thorax"
            row["to_anatomy_mm"] = distance_mm(place["peak_mm"], regions[answered_by], affine)
            box = place["box_mm"]
            row["box_litres"] = None if box is None else float(np.prod(np.subtract(box[1], box[0])) / 1e6)
            row |= {key: place[key] for key in ("peak_mm", "side", "region", "extent", "share") if key in place}
        findings.append(row)
    return {"scan": path.name, "domain": record.get("domain"), "findings": findings}


def reference_regions(answered: AnsweredScan, hu: NDArray[Any], affine: NDArray[Any]) -> dict[str, NDArray[np.bool_]]:
    """The body, the threshold lungs, and the other anatomies of the network inside the body, by name."""
    body, lungs = body_mask(hu, affine), lung_mask(hu, affine)
    body |= lungs
    regions = {name: region & body for name, region in label_map(answered).items()}
    return regions | {"thorax": body} | ({"lung": lungs} if lungs.any() else {})


def label_map(answered: AnsweredScan) -> dict[str, NDArray[np.bool_]]:
    """The anatomies of ``write_anatomy`` by name, ``[X, Y, Z]``; one includes its members."""
    with tempfile.TemporaryDirectory() as folder:
        answered.write_anatomy(Path(folder) / "anatomy.nii.gz")
        ids = np.asarray(nib.load(Path(folder) / "anatomy.nii.gz").dataobj)  # type: ignore[attr-defined]
    return {anatomy.name: np.isin(ids, anatomy.members) for anatomy in ANATOMIES}


def distance_mm(point: list[float], region: NDArray[np.bool_], affine: NDArray[Any]) -> float | None:
    """Distance from a point to the nearest voxel of a region, 0 inside; None for an empty region."""
    if not region.any():
        return None
    voxel = tuple(np.clip(np.rint(world_to_voxel(point, affine)).astype(int), 0, np.array(region.shape) - 1))
    if region[voxel]:
        return 0.0
    away = ndimage.distance_transform_edt(~region, sampling=voxel_spacing(affine))
    return round(float(away[voxel]), 2)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    findings = [finding for row in rows for finding in row["findings"]]
    present = Counter(finding["name"] for finding in findings if finding["present"])
    shown = Counter(finding["name"] for finding in findings if finding["shown"] == "present")
    placed = [finding for finding in findings if "to_body_mm" in finding]
    boxes = [finding["box_litres"] for finding in placed if finding["box_litres"] is not None]
    return {
        "scans": len(rows),
        "above_threshold_per_scan": round(sum(present.values()) / len(rows), 2),
        "above_threshold_in_all": sorted(name for name, count in present.items() if count == len(rows)),
        "shown_as_present_per_scan": round(sum(shown.values()) / len(rows), 2),
        "shown_as_present_in_all": sorted(name for name, count in shown.items() if count == len(rows)),
        "outside_domain": sum((row["domain"] or {}).get("inside") is False for row in rows),
        "peaks": len(placed),
        "peaks_outside_body": sum(finding["to_body_mm"] > 0 for finding in placed),
        "peaks_more_than_10_mm_outside_anatomy": sum((finding["to_anatomy_mm"] or 0) > 10 for finding in placed),
        "peaks_without_anatomy_in_the_scan": sum(finding["to_anatomy_mm"] is None for finding in placed),
        "boxes": len(boxes),
        "boxes_over_3_litres": sum(litres > 3 for litres in boxes),
    }


if __name__ == "__main__":
    main()
