"""The lungs that findings are drawn into, of a synthetic chest or of a scan: where they are placed, what they fill."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bundle.ctfindings.phantom.image.canvas import LUNG, Box, Canvas, Floats
from bundle.ctfindings.phantom.image.parenchyma import HORIZONTAL_FISSURE, oblique_fissure
from bundle.ctfindings.phantom.image.vessels import Branch, Spots

SPOTS = 12000


@dataclass
class LungField:
    """Lungs on a canvas, and the geometry that findings of the lung need.

    Attributes:
        size: scale of the chest, 1 for an average adult.
        contrast: whether the blood is enhanced.
        lung: signed distance to the lung surface in mm, positive inside, approximate, (X, Y, Z).
        wall: depth under the inner chest wall in mm, (X, Y, Z).
        dome: height over the diaphragm in mm, (X, Y, Z).
        hila: hilum of each side in body mm, (3,).
        bronchi: courses of the bronchi; may be empty.
        lumen: flat voxel indices and shares of the air in the bronchi.
        spots: sample of lung points to place findings at.
        part_solid: share of the nodules that are part-solid.
        vessel_points: places on vessels in body mm, (N, 3); empty where ``bronchi`` say where vessels run.
    """

    canvas: Canvas
    size: float
    contrast: bool
    lung: Floats
    wall: Floats
    dome: Floats
    hila: dict[str, NDArray]
    bronchi: list[Branch]
    lumen: tuple[NDArray[np.int64], Floats]
    spots: Spots
    part_solid: float = field(default=0.0, kw_only=True)
    vessel_points: NDArray = field(default_factory=lambda: np.zeros((0, 3)), kw_only=True)


def lobe_of(points: NDArray, size: float) -> NDArray[np.str_]:
    """Names of the lobes that body points (N, 3) lie in, from the planes of the fissures."""
    x, y, z = points.T
    middle = np.where(x > 0, "middle lobe", "lingula")
    upper = np.where(z < HORIZONTAL_FISSURE * size, middle, "upper lobe")
    return np.where(oblique_fissure(y, z, size) < 0, "lower lobe", upper)


def sample_spots(rng: np.random.Generator, canvas: Canvas, lung: Floats, size: float) -> Spots:
    """Draws points at least 1.5 mm under the lung surface. ValueError if the lung is nowhere that deep."""
    deep = np.flatnonzero(lung.reshape(-1) > 1.5)
    if len(deep) == 0:
        raise ValueError("no lung of more than 3 mm was found; leave this scan out, or give a mask of its lungs")
    flat = rng.choice(deep, SPOTS)
    points = canvas.body(flat)
    heights = points[:, 2]
    return Spots(
        points=points,
        depth=lung.reshape(-1)[flat],
        side=np.where(points[:, 0] > 0, "right", "left"),
        lobe=lobe_of(points, size),
        height=((heights - heights.min()) / (heights.max() - heights.min())).astype(np.float32),
    )


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
