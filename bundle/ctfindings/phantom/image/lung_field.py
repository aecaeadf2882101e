"""The lungs that findings are drawn into, of a synthetic chest or of a scan."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bundle.ctfindings.phantom.image.canvas import Canvas, Floats
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


def lobe_of(points: NDArray, size: float) -> NDArray[np.str_]:
    """Names of the lobes that body points (N, 3) lie in, from the planes of the fissures."""
    x, y, z = points.T
    middle = np.where(x > 0, "middle lobe", "lingula")
    upper = np.where(z < HORIZONTAL_FISSURE * size, middle, "upper lobe")
    return np.where(oblique_fissure(y, z, size) < 0, "lower lobe", upper)


def sample_spots(rng: np.random.Generator, canvas: Canvas, lung: Floats, size: float) -> Spots:
    """Draws points at least 1.5 mm under the lung surface.

    Raises:
        ValueError: if the lung is nowhere that deep.
    """
    deep = np.flatnonzero(lung.reshape(-1) > 1.5)
    if len(deep) == 0:
        raise ValueError("no lung of more than 3 mm was found")
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
