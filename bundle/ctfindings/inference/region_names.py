"""The name of a place in the chest, as a radiologist says it: zone of a lung, part of the aorta, hilum, mediastinum.

World coordinates are mm in RAS. The names come from the outlines of the anatomies and from nothing else: there are no
lobes, whose fissures no mask here knows.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.inference.evidence import side_of
from bundle.ctfindings.inference.regions import Regions

THIRDS = ("lower", "middle", "upper")
ARCH_MM = 35.0
"""The aortic arch: this much of the aorta below its highest point."""
HILUM_MM = 20.0
"""A place in the mediastinum farther than this from the midline, at the height of the middle zones, is a hilum."""


def region_name(point_mm: ArrayLike, row: int, regions: Regions, midline_mm: float | None) -> str | None:
    """The name of a place, such as ``right lower zone``, ``aortic arch`` or ``left hilum``; None if there is none.

    A zone is a third of the height of that lung, or of both lungs on the midline. Thirds of the lungs' height also
    divide the mediastinum and the esophagus. The aorta is the arch near its top, and below it ascending (anterior) or
    descending. The heart and the thorax have no parts.

    Args:
        point_mm: world position.
        row: anatomy that answered.
        regions: outlines of the anatomies of the scan.
        midline_mm: world x of the patient's midline; without it the place has no side, and no place is a hilum.
    """
    x, y, z = np.asarray(point_mm, dtype=np.float64).tolist()
    name = ANATOMY_NAMES[regions.answering(row)]
    if name == "aorta":
        return _part_of_aorta(regions.points_mm(row), y, z)
    lungs = regions.lung_mm
    if not len(lungs) or name not in ("lung", "mediastinum", "esophagus"):
        return None
    third = _third(lungs, z)
    if name == "esophagus" or midline_mm is None:
        return f"{third} {'zone' if name == 'lung' else name}"
    side = side_of(x - midline_mm)
    if name == "mediastinum":
        return f"{side} hilum" if third == "middle" and abs(x - midline_mm) > HILUM_MM else f"{third} mediastinum"
    if side == "midline":
        return f"{third} zones"
    own = lungs[(lungs[:, 0] > midline_mm) == (side == "right")]
    return f"{side} {_third(own if len(own) else lungs, z)} zone"


def _third(points: NDArray[np.float64], z: float) -> str:
    low, high = points[:, 2].min(), points[:, 2].max()
    return THIRDS[int(np.clip(3 * (z - low) / max(high - low, 1e-6), 0, 2))]


def _part_of_aorta(aorta: NDArray[np.float64], y: float, z: float) -> str:
    top = aorta[:, 2].max()
    if z > top - ARCH_MM:
        return "aortic arch"
    # At heights with both parts, the middle between the foremost and the hindmost voxel divides them.
    front, back = aorta[:, 1].max(), aorta[:, 1].min()
    return "ascending aorta" if y > (front + back) / 2 else "descending aorta"
