"""Where findings of the lung are placed, and which voxels they may fill."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle.ctfindings.phantom.image.canvas import LUNG, Box, Canvas
from bundle.ctfindings.phantom.image.lung_field import LungField, lobe_of


@dataclass
class Drawn:
    """One drawn occurrence of a finding; ``Site`` explains the fields.

    ``region`` has the flat voxel indices of its mask. ``severity`` is set only where it differs from the requested one.
    """

    region: NDArray[np.int64]
    side: str | None = None
    location: str | None = None
    kind: str | None = None
    size_mm: float | None = None
    count: int = 1
    severity: float | None = None


def core(flat: NDArray[np.int64], share: NDArray, level: float) -> NDArray[np.int64]:
    """The voxels that are filled to a share of the fullest one; thin things fill no voxel whole."""
    return flat[share > level * share.max(initial=0)]


def span_mm(canvas: Canvas, region: NDArray[np.int64]) -> float | None:
    """Largest extent of a region along a body axis, in whole mm; None for an empty region."""
    if len(region) == 0:
        return None
    points = canvas.body(region)
    return float(round(float((points.max(0) - points.min(0)).max() + canvas.voxel)))


def random_point(
    rng: np.random.Generator,
    chest: LungField,
    side: str | None = None,
    lobe: str | None = None,
    depth: tuple[float, float] = (0, 99),
    height: tuple[float, float] = (0, 1),
) -> NDArray:
    """A random point of the lung in body mm. Conditions that no point meets are ignored, the last ones first."""
    spots = chest.spots
    tests = [np.ones(len(spots.points), bool)]
    tests += [column == value for column, value in ((spots.side, side), (spots.lobe, lobe)) if value is not None]
    tests += [(spots.depth >= depth[0]) & (spots.depth <= depth[1])]
    tests += [(spots.height >= height[0]) & (spots.height <= height[1])]
    while not np.logical_and.reduce(tests).any():
        tests.pop()
    return spots.points[int(rng.choice(np.flatnonzero(np.logical_and.reduce(tests))))].astype(np.float64)


def random_sides(rng: np.random.Generator, both: float) -> list[str]:
    """Both sides with a probability, otherwise one of them."""
    return ["right", "left"] if rng.random() < both else [str(rng.choice(["right", "left"]))]


def middle_lobe(side: str) -> str:
    """The middle lobe of the right lung, the lingula of the left one."""
    return "middle lobe" if side == "right" else "lingula"


def random_lobe(rng: np.random.Generator, side: str, shares: tuple[float, float, float]) -> str:
    """The upper, middle or lower lobe of a side, with these probabilities."""
    return str(rng.choice(["upper lobe", middle_lobe(side), "lower lobe"], p=shares))


def lobe_at(chest: LungField, point: NDArray) -> str:
    """The lobe of a point in body mm."""
    return str(lobe_of(point[None], chest.size)[0])


def lung_of(chest: LungField, side: str, box: Box | None = None) -> NDArray[np.bool_]:
    """Voxels of the aerated lung of a side, in a box or in the whole volume."""
    box = box or (slice(None), slice(None), slice(None))
    return (chest.canvas.anatomy[box] == LUNG) & of_side(chest, side, box)


def of_side(chest: LungField, side: str, box: Box) -> NDArray[np.bool_]:
    """Voxel columns of a box on a side of the body."""
    return (chest.canvas.x[box[0], box[1]] > 0) == (side == "right")


def fillable(chest: LungField, side: str, box: Box) -> NDArray[np.bool_]:
    """Lung of a side with the half-filled voxels of its surface: no air remains between a filling and the wall."""
    surface = (chest.lung[box] > -0.7 * chest.canvas.voxel) & (chest.canvas.hu[box] < -150)
    return ((chest.canvas.anatomy[box] == LUNG) | surface) & of_side(chest, side, box)
