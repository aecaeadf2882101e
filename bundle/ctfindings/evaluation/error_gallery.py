"""Section of an evaluation: pictures of its worst errors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.ctfindings.evaluation.evaluation_run import EvaluationRun
from bundle.ctfindings.evaluation.plots import plot_errors
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.metrics.json_numbers import number
from bundle.ctfindings.networks.classifier import NO_THRESHOLD
from bundle.ctfindings.scan.coordinates import voxel_to_world
from bundle.ctfindings.scan.load_scan import read_volume

MISSED, FALSE_ALARM = "missed", "false alarm"


@dataclass(frozen=True)
class ErrorGallery:
    """The answers that are farthest from their label, one for each scan, and one missed and one false of each finding.

    The picture of a false alarm is the axial slice of the evidence peak. That of a missed finding goes through its mask
    if the study has one. Reads the thresholds of ``Classification``, which comes before it; writes ``errors.png``.

    Args:
        count: pictures; 0 for none. They are of the scans and go into ``report.html``.
    """

    count: int = 12
    needs_labels = True
    needs_calibration = True

    def __call__(self, run: EvaluationRun) -> str:
        """Adds ``errors``: rows with ``study``, ``finding``, ``error``, ``probability``, ``threshold`` and ``z_mm``."""
        studies, scores = run.studies[run.split], run.own_scores
        thresholds = np.asarray([row["threshold"] for row in run.record["findings"]])
        rows, places = [], []
        for scan, finding in worst_errors(run.probabilities, scores.labels, thresholds, self.count):
            missed = bool(scores.labels[scan, finding] == 1)
            place = _mask_centre(studies[scan], finding) if missed else None
            places.append(scores.peaks_mm[scan, finding] if place is None else place)
            rows.append(
                {
                    "study": scores.ids[scan],
                    "finding": FINDING_NAMES[finding],
                    "error": MISSED if missed else FALSE_ALARM,
                    "probability": float(run.probabilities[scan, finding]),
                    "threshold": float(thresholds[finding]),
                    "z_mm": number(places[-1][2]),
                }
            )
        run.record["errors"] = rows
        if rows:
            by_id = {study["id"]: study for study in studies}
            shown = [by_id[row["study"]] for row in rows]
            run.figures.append(lambda folder: plot_errors(rows, shown, places, folder / "errors.png"))
        return ""


def worst_errors(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], thresholds: NDArray[np.float64], count: int
) -> list[tuple[int, int]]:
    """Scan and finding of the errors farthest from their labels, see ``ErrorGallery``.

    Probabilities and labels are ``[S, C]``, thresholds ``[C]``; a finding with NO_THRESHOLD has no errors.
    """
    present = probabilities >= thresholds
    wrong = (labels >= 0) & (present != (labels == 1)) & (thresholds < NO_THRESHOLD)
    distance = np.where(wrong, np.abs(probabilities - labels), -1.0)
    chosen: list[tuple[int, int]] = []
    scans, kinds = set(), set()
    for flat in np.argsort(-distance, axis=None, kind="stable")[: int(wrong.sum())]:
        scan, finding = (int(part) for part in np.unravel_index(flat, distance.shape))
        kind = (finding, int(labels[scan, finding]))
        if len(chosen) < count and scan not in scans and kind not in kinds:
            chosen.append((scan, finding))
            scans.add(scan)
            kinds.add(kind)
    return chosen


def _mask_centre(study: Mapping[str, Any], finding: int) -> NDArray[np.float64] | None:
    """World position of the voxel of a finding's mask that is nearest to its middle; None without one."""
    if "finding_masks" not in study:
        return None
    mask = read_volume(study["finding_masks"])
    voxels = np.argwhere(mask.array & (1 << finding))
    if not len(voxels):
        return None
    return voxel_to_world(voxels[((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1).argmin()], mask.affine)
