"""Medical material in a synthetic chest: pacemaker, catheter, sternal wires, chest tube, surgical clips."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bundle.ctfindings.phantom.image.canvas import BODY, SIDES, Box, curve
from bundle.ctfindings.phantom.image.healthy_chest import Chest
from bundle.ctfindings.phantom.image.lung_field import Drawn
from bundle.ctfindings.phantom.image.outside_body import skin_points

Regions = list[NDArray[np.int64]]


def _metal(chest: Chest, points: ArrayLike, radius: float, hu: float) -> NDArray[np.int64]:
    """Draws a wire or tube and returns its voxels."""
    flat, share = chest.canvas.paint_balls(points, radius, hu)
    return flat[share > 0.3]


def _front(chest: Chest, x: float, z: float) -> float:
    """Body y of the skin at the front of the chest, at body x and z, all in mm."""
    return float(skin_points(chest.canvas, np.array([x]), np.array([z]))[0, 1])


def _case_under_skin(
    chest: Chest, sign: float, x: float, z: float, radii: tuple[float, float, float], hu: float
) -> tuple[NDArray, Box, NDArray[np.int64]]:
    """A flat box between skin and ribs: its centre, the box it was drawn in and its voxels."""
    center = np.array([sign * x, _front(chest, sign * x, z) - radii[1] - 3, z])
    box, distance = chest.canvas.ellipsoid(center, radii)
    share = chest.canvas.coverage(np.minimum(distance, 4.0))
    chest.canvas.paint_box(box, share, hu, BODY)
    return center, box, chest.canvas.flat(box, share > 0.5)


def _streaks(rng: np.random.Generator, chest: Chest, box: Box, center: NDArray) -> None:
    """Mild star of bright and dark rays in the images that cross dense metal."""
    canvas = chest.canvas
    dx, dy = canvas.x[:, :, 0] - center[0], canvas.y[:, :, (box[2].start + box[2].stop) // 2] - center[1]
    away = np.sqrt(dx**2 + dy**2)
    rays = np.cos(int(rng.integers(5, 9)) * 2 * np.arctan2(dy, dx)) * np.exp(-away / 60) * rng.uniform(50, 140)
    rays *= (canvas.anatomy[:, :, (box[2].start + box[2].stop) // 2] > 0) * np.clip(away / 25 - 0.6, 0, 1)
    canvas.hu[:, :, box[2]] += rays[:, :, None].astype(np.float32)


def _pacemaker(rng: np.random.Generator, chest: Chest, side: str) -> Regions:
    s, sign, cava = chest.size, SIDES[side], chest.vessels.vena_cava
    center, box, region = _case_under_skin(chest, sign, 78 * s, 150 * s, (26, 8, 24), 2800.0)
    regions = [region]
    entry = [center + [-sign * 20, -8, 24], np.array([sign * 34, 22, 184]) * s]
    vein = [*entry, cava[0] + [0, 0, -10], cava[len(cava) // 2], cava[-1]]
    leads = [[center, *vein, chest.heart.center + [8, 10, -10], chest.heart.center + [-22, 26, -28]]]
    if rng.random() < 0.6:
        leads.append([*vein[-2:], chest.heart.center + [30, 12, 10]])
    regions += [_metal(chest, curve(lead), 1.5, 2600.0) for lead in leads]
    _streaks(rng, chest, box, center)
    return regions


def _catheter(rng: np.random.Generator, chest: Chest, side: str) -> Regions:
    s, sign, cava = chest.size, SIDES[side], chest.vessels.vena_cava
    entry = np.array([sign * 55, 20, 200] if rng.random() < 0.5 else [sign * 28, 8, 222]) * s
    end = int(rng.uniform(0.7, 1.0) * (len(cava) - 1))
    regions = [_metal(chest, curve([entry, cava[0] + [0, 0, 4], *cava[3:end:8], cava[end]]), 1.6, 1700.0)]
    if rng.random() < 0.4:
        # A port under the skin.
        center, _, region = _case_under_skin(chest, sign, 70 * s, 142 * s, (11, 7, 11), 1900.0)
        tunnel = curve([center, np.array([sign * 55 * s, center[1] - 10, 172 * s]), entry])
        regions += [region, _metal(chest, tunnel, 1.4, 1500.0)]
    return regions


def _sternal_wires(rng: np.random.Generator, chest: Chest, side: str) -> Regions:
    s = chest.size
    angle = np.linspace(0, 2 * np.pi, 60)
    regions = []
    for level in np.linspace(60, 160, int(rng.integers(5, 8))) * s:
        middle = _front(chest, 0.0, level) - chest.patient.fat_mm * 0.75 - 10
        tilt = rng.uniform(-2.2, 2.2) * np.cos(angle)
        ring = np.stack([11 * s * np.cos(angle), middle + 8 * s * np.sin(angle), level + tilt], 1)
        regions.append(_metal(chest, ring, 1.5, 2600.0))
    return regions


def _chest_tube(rng: np.random.Generator, chest: Chest, side: str) -> Regions:
    canvas, s = chest.canvas, chest.size
    points = chest.spots.points[(chest.spots.side == side) & (chest.spots.depth < 10)].astype(np.float64)
    # From the wall at the side to the apex, along the lung surface.
    inlet = points[np.abs(points - np.array([SIDES[side] * 125, 0, 50]) * s).sum(1).argmin()]
    tip = points[np.argsort(points[:, 2])[-int(rng.integers(5, 60))]]
    bend = inlet * [0.96, 1, 1] + np.array([0, -20, 40]) * s
    line = curve([inlet + [SIDES[side] * 55, -6, -14], inlet, bend, tip])
    flat, share = canvas.paint_balls(line, 4.6, 650.0)
    canvas.paint_balls(line, 2.4, -700.0)
    return [flat[share > 0.5], _metal(chest, line + [0, 4.2, 0], 1.0, 2200.0)]


def _clips(rng: np.random.Generator, chest: Chest, side: str) -> Regions:
    s = chest.size
    centers = chest.hila[side] + rng.normal(0, 1, (int(rng.integers(6, 15)), 3)) * np.array([10, 9, 26]) * s
    headings = rng.normal(0, 1, centers.shape)
    headings /= np.linalg.norm(headings, axis=1, keepdims=True)
    ends = zip(centers - 3 * headings, centers + 3 * headings, strict=True)
    return [_metal(chest, np.linspace(first, last, 6), 1.5, 2600.0) for first, last in ends]


# How often a device of each kind is drawn, how often it lies on the left (None: in the midline), and how it is drawn.
DEVICES: dict[str, tuple[float, float | None, Callable[[np.random.Generator, Chest, str], Regions]]] = {
    "pacemaker": (0.27, 0.75, _pacemaker),
    "central venous catheter": (0.27, 0.35, _catheter),
    "sternal wires": (0.22, None, _sternal_wires),
    "chest tube": (0.10, 0.5, _chest_tube),
    "surgical clips": (0.14, 0.5, _clips),
}


def draw_medical_material(rng: np.random.Generator, chest: Chest, severity: float) -> Iterator[Drawn]:
    """One or two of: pacemaker, central venous catheter, sternal wires, chest tube, surgical clips."""
    shares = [share for share, _, _ in DEVICES.values()]
    for kind in rng.choice(list(DEVICES), size=1 + int(rng.random() < 0.25), replace=False, p=shares):
        _, left, draw = DEVICES[str(kind)]
        side = "left" if rng.random() < (0.5 if left is None else left) else "right"
        region = np.unique(np.concatenate(draw(rng, chest, side)))
        yield Drawn(region, None if left is None else side, str(kind), str(kind))
