"""Detection of lesions: from heat to components with boxes, and pointing, FROC and average precision of them.

Shapes: D detections, L lesions of a scan, I limits of the overlap, x y z cells of a heat map, X Y Z voxels. Boxes are
lower and upper corners in mm, [D, 6].
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from monai.apps.detection.metrics.coco import COCOMetric
from monai.apps.detection.metrics.matching import matching_batch
from monai.data.box_utils import box_iou
from monai.metrics import compute_froc_curve_data, compute_froc_score
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from bundle.ctfindings.metrics.classification import FloatArray, IntArray

FALSE_POSITIVE_RATES = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)
"""False positives per scan at which FROC is read, as in LUNA16 (https://arxiv.org/abs/1612.08012)."""
MAX_DETECTIONS = 100
SAME_LESION_MM = 10.0
"""Parts of a mask at this distance or closer are one lesion."""


class Detections(NamedTuple):
    """Connected parts of a heat map, by falling score."""

    scores: FloatArray  # [D]: largest value
    peaks: FloatArray  # [D, 3]: place of it in mm
    boxes: FloatArray  # [D, 6]


class Lesions(NamedTuple):
    """Connected parts of a mask."""

    boxes: FloatArray  # [L, 6]
    voxels: Sequence[FloatArray]  # L arrays [n, 3]: centres of the voxels in mm


def _boxes(parts: IntArray, affine: FloatArray) -> FloatArray:
    """Boxes of the parts 1, 2, ... of labels on a grid whose axes are those of the world."""
    found = []
    for place in ndimage.find_objects(parts):
        ends = np.array([[axis.start - 0.5, axis.stop - 0.5] for axis in place]).T
        corners = ends @ affine[:3, :3].T + affine[:3, 3]
        found.append([*corners.min(axis=0), *corners.max(axis=0)])
    return np.array(found, dtype=float).reshape(-1, 6)


def detect(heat: ArrayLike, threshold: float, affine: ArrayLike) -> Detections:
    """The connected parts of heat ``[x, y, z]`` at or above a threshold, at most ``MAX_DETECTIONS``.

    The affine maps cells to mm; its axes are those of the world, as the grid of the network has them.
    """
    values, matrix = np.asarray(heat, dtype=float), np.asarray(affine, dtype=float)
    parts, count = ndimage.label(values >= threshold, ndimage.generate_binary_structure(3, 3))
    index = np.arange(1, count + 1)
    peaks = np.array(ndimage.maximum_position(values, parts, index), dtype=float).reshape(-1, 3)
    scores = np.array(ndimage.maximum(values, parts, index), dtype=float).reshape(-1)
    order = np.argsort(-scores, kind="stable")[:MAX_DETECTIONS]
    return Detections(scores[order], peaks[order] @ matrix[:3, :3].T + matrix[:3, 3], _boxes(parts, matrix)[order])


def lesions_of(mask: NDArray[np.bool_], affine: ArrayLike) -> Lesions:
    """The parts of a mask ``[X, Y, Z]`` that are farther than ``SAME_LESION_MM`` apart; for the affine see ``detect``.

    Connected parts alone would count every speck at the border of a fluid collection as a lesion.
    """
    matrix = np.asarray(affine, dtype=float)
    sampling = np.abs(np.diag(matrix)[:3])
    parts = np.zeros(mask.shape, dtype=int)
    count = 0
    for box in ndimage.find_objects(mask.astype(np.int8)):
        room = np.ceil(SAME_LESION_MM / sampling).astype(int)
        near = tuple(
            slice(max(axis.start - pad, 0), axis.stop + pad) for axis, pad in zip(box, room.tolist(), strict=True)
        )
        grown = ndimage.distance_transform_edt(~mask[near], sampling=sampling) <= SAME_LESION_MM / 2
        joined, count = ndimage.label(grown, ndimage.generate_binary_structure(3, 3))
        parts[near] = np.where(mask[near], joined, 0)
    voxels = [np.argwhere(parts == part) @ matrix[:3, :3].T + matrix[:3, 3] for part in range(1, count + 1)]
    return Lesions(_boxes(parts, matrix), voxels)


def distances_mm(points: ArrayLike, lesions: Lesions) -> FloatArray:
    """Distance of points ``[D, 3]`` to the nearest voxel centre of each lesion, ``[D, L]``."""
    given = np.asarray(points, dtype=float).reshape(-1, 3)
    columns = [cKDTree(voxels).query(given)[0] for voxels in lesions.voxels]
    return np.stack(columns, axis=1) if columns else np.zeros((len(given), 0))


def froc_hits(found: Detections, lesions: Lesions, tolerance_mm: float) -> tuple[FloatArray, FloatArray]:
    """Scores of the lesions that were found, and of the false positives.

    A detection finds the lesions whose voxels are within the tolerance of its peak. A lesion has the score of the best
    detection that finds it; a further one is not a false positive, as in LUNA16.
    """
    near = distances_mm(found.peaks, lesions) <= tolerance_mm
    hit = near.any(axis=0)
    best = np.where(near, found.scores[:, None], -np.inf).max(axis=0, initial=-np.inf)
    return best[hit], found.scores[~near.any(axis=1)]


def froc_score(true: FloatArray, false: FloatArray, lesions: int, scans: int) -> float:
    """Mean sensitivity at ``FALSE_POSITIVE_RATES``, from the scores of ``froc_hits``; NaN without a lesion.

    All scans count, also those without a lesion.
    """
    if lesions == 0:
        return float("nan")
    if not len(true):
        return 0.0
    # MONAI leaves out the lowest score; a lower one that nobody has keeps it in.
    lowest = min(true.min(), false.min(initial=np.inf)) - 1
    curve = compute_froc_curve_data(false, np.append(true, lowest), lesions, scans)
    return float(compute_froc_score(*curve, eval_thresholds=FALSE_POSITIVE_RATES))


class AveragePrecision:
    """Average precision at limits of the overlap of boxes, by MONAI's COCO metric; scans are matched once.

    Args:
        found: detections of each scan.
        lesions: boxes of the lesions of each scan, ``[L, 6]`` each.
        limits: least overlaps (intersection over union) of a detection and its lesion.
    """

    def __init__(self, found: Sequence[Detections], lesions: Sequence[FloatArray], limits: Sequence[float]) -> None:
        self.limits = list(limits)
        # MONAI wants a range as well; this one has a single limit.
        only = (self.limits[0], self.limits[0], 1.0)
        self.metric = COCOMetric(["lesion"], self.limits, only, [MAX_DETECTIONS], per_class=False)
        self.results = matching_batch(
            box_iou,  # type: ignore[arg-type]
            self.metric.iou_thresholds.tolist(),
            [each.boxes for each in found],
            [np.zeros(len(each.scores), dtype=int) for each in found],
            [each.scores for each in found],
            list(lesions),
            [np.zeros(len(boxes), dtype=int) for boxes in lesions],
            max_detections=MAX_DETECTIONS,
        )
        self.lesions = np.array([len(boxes) for boxes in lesions])

    def of(self, scans: IntArray) -> FloatArray:
        """AP over some of the scans, by index, at each limit, ``[I]``; NaN without a lesion."""
        if self.lesions[scans].sum() == 0:
            return np.full(len(self.limits), np.nan)
        values, _ = self.metric([self.results[scan] for scan in scans])
        return np.array([values[f"AP_IoU_{limit:.2f}_MaxDet_{MAX_DETECTIONS}"] for limit in self.limits])
