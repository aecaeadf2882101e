"""Places of a scan in the words of the table: image number, and zone of a lung, organ or side of the patient."""

from collections.abc import Mapping, Sequence

import numpy as np
from ctfindings_client.record import SIDE_WORDS

MIDLINE_MM = 10.0
"""A place closer than this to the midline has no side, as in the record of findings."""
CUT_SHARE = 0.75
"""A scan whose outermost sagittal plane shows more than this share of the largest area of the body is cut there, and
has no midline, as in the record of findings."""
SPACING_MM = 5.0
"""Least distance of the voxels that are looked at: zones are larger."""

_THIRDS = ("lower", "middle", "upper")
_OUTSIDE = 0


class Places:
    """The anatomies of an answer.

    Args:
        labels: ``(K, J, I)``, 0 outside of the body.
        affine: ``(4, 4)``, voxel index (i, j, k) to RAS mm.
        label_names: label value by anatomy.
    """

    def __init__(self, labels: np.ndarray, affine: np.ndarray, label_names: Mapping[str, int]) -> None:
        self.labels, thin_affine = thinned(labels, affine, SPACING_MM)
        self.to_voxel = np.linalg.inv(thin_affine)
        self.names = {value: name for name, value in label_names.items()}
        found = np.argwhere(self.labels != _OUTSIDE)
        points = found[:, ::-1] @ thin_affine[:3, :3].T + thin_affine[:3, 3]
        lows, highs = (points.min(axis=0), points.max(axis=0)) if len(points) else (np.zeros(3), np.zeros(3))
        self.body_mm = [(float(low), float(high)) for low, high in zip(lows, highs, strict=True)]
        """Lowest and highest x, y and z of the body."""
        self.midline_mm = None if _is_cut(self.labels, thin_affine) else sum(self.body_mm[0]) / 2
        """World x; None without one."""
        in_lung = points[self.labels[tuple(found.T)] == label_names.get("lung", -1)]
        sides = {"": in_lung}
        if self.midline_mm is not None:
            to_right = in_lung[:, 0] > self.midline_mm
            sides |= {"right": in_lung[to_right], "left": in_lung[~to_right]}
        self.lung_heights = {
            side: (float(lung[:, 2].min()), float(lung[:, 2].max())) for side, lung in sides.items() if len(lung)
        }

    def name(self, place: Sequence[float]) -> str:
        """Such as ``right lower zone``, ``heart``, or ``left of midline`` for other parts of the body.

        Empty outside of the body.

        Without a midline no side is named.

        Args:
            place: in RAS mm.
        """
        i, j, k = np.rint(self.to_voxel @ [*place, 1.0])[:3].astype(int)
        if not all(0 <= index < size for index, size in zip((k, j, i), self.labels.shape, strict=True)):
            return ""
        value = int(self.labels[k, j, i])
        if value == _OUTSIDE:
            return ""
        name, side = self.names.get(value, ""), self._side(place[0])
        if name == "lung":
            low, high = self.lung_heights.get(side) or self.lung_heights[""]
            third = _THIRDS[int(np.clip(3 * (place[2] - low) / max(high - low, 1e-6), 0, 2))]
            return f"{side} {third} zone" if side in ("right", "left") else f"{third} zone{'s' if side else ''}"
        return SIDE_WORDS.get(side, "") if name in ("thorax", "") else name

    def _side(self, x: float) -> str:
        """``right``, ``left`` or ``midline``; empty without a midline."""
        if self.midline_mm is None:
            return ""
        across = x - self.midline_mm
        return "midline" if abs(across) < MIDLINE_MM else "right" if across > 0 else "left"


def _is_cut(labels: np.ndarray, affine: np.ndarray) -> bool:
    """Whether the field of view cuts through the body on the left or right."""
    sagittal_axis = 2 - int(np.abs(affine[0, :3]).argmax())  # of (K, J, I)
    areas = np.moveaxis(labels != _OUTSIDE, sagittal_axis, 0).sum(axis=(1, 2))
    return bool(max(areas[0], areas[-1]) > CUT_SHARE * areas.max())


def image_number(place: Sequence[float], affine: np.ndarray, shape: Sequence[int]) -> str:
    """``image 85 of 105``: the slice through a place, counted from 1 at the most superior one; empty outside.

    Args:
        place: in RAS mm.
        affine: ``(4, 4)``, voxel index (i, j, k) of the scan to RAS mm.
        shape: of the scan, ``(K, J, I)``.
    """
    axis = int(np.argmax(np.abs(affine[2, :3]) / np.linalg.norm(affine[:3, :3], axis=0)))
    index = round(float((np.linalg.inv(affine) @ [*place, 1.0])[axis]))
    images = shape[::-1][axis]
    if not 0 <= index < images:
        return ""
    return f"image {images - index if affine[2, axis] > 0 else index + 1} of {images}"


def thinned(labels: np.ndarray, affine: np.ndarray, spacing_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Every n-th voxel along each axis, so that voxels lie at least about this far apart, and the affine of those."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    steps = [max(1, round(spacing_mm / millimetres)) for millimetres in spacing]
    along_i, along_j, along_k = steps
    return labels[::along_k, ::along_j, ::along_i], affine @ np.diag([*steps, 1.0])
