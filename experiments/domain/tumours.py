"""Do answers point at real lung tumours? Peaks and token maps of nodule and mass against tumour masks.

Usage: python -m experiments.domain.tumours REAL_FOLDER OUT.json --weights phantom1=OLD.pt phantom2=models/model.pt

For each answer: the distance of its peak to the tumour, that of random places in the lungs, and the mean percentile of
the tokens that the tumour touches among the tokens of the lungs. 0.5 is chance. Three scans prove nothing; they can
refute.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.stats import rankdata

from bundle.ctfindings.anatomy import anatomy_index
from bundle.ctfindings.inference.findings_record import QueryAnswer
from bundle.ctfindings.inference.service import AnsweredScan, FindingsService, load_service
from bundle.ctfindings.scan.coordinates import voxel_to_world, world_to_voxel
from experiments.harness.page import write_results

TUMOURS = {
    "nsclc_lung1-001_ct_1p5x1p5x3": ("nsclc_lung1-001_rtstruct_1p5x1p5x3", 4),
    "ibsi_candat_pat_1_ct": ("ibsi_candat_pat_1_gtv", 1),
    "ibsi_candat_pat_2_ct": ("ibsi_candat_pat_2_gtv", 1),
}
"""Mask of each scan of shared/data with a tumour, and the tumour's value in it."""
FINDING, QUERY = "Lung nodule", "lung mass"
RANDOM_PLACES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", nargs="+", required=True, metavar="NAME=FILE")
    options = parser.parse_args()
    result = {}
    for name, _, path in (given.partition("=") for given in options.weights):
        service = load_service(".", path)
        # The scans are outside the domain of the weights, where a query otherwise has no place.
        service.assessment = replace(service.assessment, outside_domain="warn")
        rows = [row for scan in TUMOURS for row in describe(service, options.folder, scan)]
        result[name] = {"weights_sha256": service.model.weights_sha256, "answers": rows}
        for row in rows:
            print(name, row, flush=True)
    write_results(options.out.parent, result, options.out.name)


def tumour_points(folder: Path, scan: str) -> NDArray[np.float64]:
    """World positions in mm of the voxels of the tumour of a scan, ``[n, 3]``."""
    mask, value = TUMOURS[scan]
    image: Any = nib.load(folder / f"{mask}.nii.gz")
    return voxel_to_world(np.argwhere(np.asarray(image.dataobj) == value), image.affine)


def describe(service: FindingsService, folder: Path, scan: str) -> list[dict[str, Any]]:
    """The answers to `FINDING` and `QUERY` about one scan."""
    study = service.preprocessing({"image": str(folder / f"{scan}.nii.gz")})
    answered = service.answer(study, [QUERY])
    tumour = tumour_points(folder, scan)
    rows = []
    for placed in answered.placed.values():
        named = placed.answer.text if isinstance(placed.answer, QueryAnswer) else placed.answer.name
        if named not in (FINDING, QUERY):
            continue
        peak = placed.answer.evidence
        away = None if peak is None else round(float(cKDTree(tumour).query(peak.peak_mm)[0]), 1)
        percentile = token_percentile(answered, placed.token_map.numpy(), tumour)
        rows.append(
            {
                "scan": scan,
                "answer": named,
                "score": round(placed.score, 4),
                "peak_to_tumour_mm": away,
                "random_to_tumour_mm": random_distance(answered, tumour),
                "tumour_percentile": percentile,
            }
        )
    return rows


def token_percentile(answered: AnsweredScan, token_map: NDArray[Any], tumour: NDArray[Any]) -> float:
    """Mean percentile of the tumour's tokens among those of the lungs and the tumour."""
    encoded = answered.encoded
    places = np.rint(world_to_voxel(tumour, encoded.token_affine)).astype(int)
    hit = np.zeros(token_map.shape, dtype=bool)
    hit[tuple(np.clip(places, 0, np.array(token_map.shape) - 1).T)] = True
    among = encoded.regions.reached[anatomy_index("lung")] | hit
    return round(float(np.mean((rankdata(token_map[among]) / among.sum())[hit[among]])), 3)


def random_distance(answered: AnsweredScan, tumour: NDArray[Any]) -> float:
    """Median distance in mm of random places in the lungs to the tumour."""
    regions = answered.encoded.regions
    lung = np.argwhere(regions.inside[anatomy_index("lung")])
    chosen = np.random.default_rng(0).choice(lung, RANDOM_PLACES)
    return round(float(np.median(cKDTree(tumour).query(voxel_to_world(chosen, regions.affine))[0])), 1)


if __name__ == "__main__":
    main()
