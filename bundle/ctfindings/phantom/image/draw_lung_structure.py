"""Findings that change the structure of the lung and its airways, drawn into a chest."""

from collections.abc import Iterator

import numpy as np
from scipy.spatial import cKDTree

from bundle.ctfindings.phantom.image.canvas import LUNG, curve
from bundle.ctfindings.phantom.image.lung_field import (
    Drawn,
    LungField,
    core,
    lung_of,
    random_lobe,
    random_point,
    random_sides,
    span_mm,
)


def draw_emphysema(rng: np.random.Generator, chest: LungField, severity: float) -> Iterator[Drawn]:
    """Centrilobular holes of 4 to 12 mm, mainly in the upper lobes, or paraseptal bullae; the lung around is darker."""
    canvas, spots = chest.canvas, chest.spots
    kind = str(rng.choice(["centrilobular", "paraseptal"], p=[0.75, 0.25]))
    upper = spots.height + rng.normal(0, 0.12, len(spots.height)) > 0.62 - 0.45 * severity
    fade = np.clip((canvas.z - (110 - 120 * severity) * chest.size) / 60, 0.25, 1).astype(np.float32)
    view = canvas.hu
    lung = canvas.anatomy == LUNG
    view -= (lung & (view < -600)) * fade * np.float32(5 + 47 * severity)
    if kind == "centrilobular":
        count = int(50 + 750 * severity)
        centers = spots.points[rng.choice(np.flatnonzero(upper & (spots.depth > 2)), count)]
        radii = rng.uniform(1.6, 3.0 + 3.4 * severity, count)
    else:
        count = int(12 + 138 * severity)
        centers = spots.points[rng.choice(np.flatnonzero(upper & (spots.depth < 9)), count)]
        radii = rng.uniform(3, 5 + 5 * severity, count)
        for _ in range(int(1 + 3 * severity)):
            centers = np.vstack([centers, spots.points[rng.choice(np.flatnonzero(spots.height > 0.6))]])
            radii = np.append(radii, rng.uniform(8, 12 + 10 * severity))
        canvas.paint_balls(centers, radii + 1.3, -620.0, lung, strength=0.8)
    flat, share = canvas.paint_balls(centers, radii, -990.0, lung & (view < -400))
    yield Drawn(core(flat, share, 0.5), "bilateral", "upper lobe" if severity < 0.7 else None, kind)


def draw_mosaic(rng: np.random.Generator, chest: LungField, severity: float) -> Iterator[Drawn]:
    """Sharp geographic regions of dark (-920 HU) beside bright (-760 HU) lung, on both sides."""
    canvas = chest.canvas
    field = canvas.smooth_noise(rng, float(rng.uniform(15, 22)))
    share = np.clip(field * 5 + 0.5, 0, 1)
    air = (canvas.anatomy == LUNG) & (canvas.hu < -500)
    step = 30 + 110 * severity
    canvas.hu += air * ((1 - 2 * share) * np.float32(step) * 0.5 + 0.1 * step).astype(np.float32)
    yield Drawn(np.flatnonzero((air & (share > 0.5)).reshape(-1)), "bilateral")


def draw_fibrosis(rng: np.random.Generator, chest: LungField, severity: float) -> Iterator[Drawn]:
    """Scars at the apex, or reticulation and honeycombing under the pleura of the bases, with distorted strands."""
    canvas, spots = chest.canvas, chest.spots
    kind = str(rng.choice(["scar", "reticulation", "honeycombing"], p=[0.45, 0.33, 0.22]))
    apical = kind == "scar" or rng.random() < 0.15
    for side in random_sides(rng, 0.6):
        height = (0.72, 1.0) if apical else (0.0, 0.38)
        hub = chest.hila[side]
        lines = []
        strands = int((4 + 32 * severity) if kind == "scar" else (10 + 76 * severity))
        focus = random_point(rng, chest, side, depth=(4, 16), height=height)
        for _ in range(strands):
            if kind == "scar":
                start = focus + rng.normal(0, 1, 3) * np.array([10, 12, 9]) * (0.7 + 0.6 * severity)
            else:
                start = random_point(rng, chest, side, depth=(0, 5 + 9 * severity), height=height)
            pull = (0.8 if kind == "scar" else 0.3) * (hub - start) / np.linalg.norm(hub - start)
            heading = rng.normal(0, 1, 3) + pull
            heading /= np.linalg.norm(heading)
            length = rng.uniform(12, 30) if kind == "scar" else rng.uniform(7, 16)
            bend = start + 0.5 * length * heading + rng.normal(0, 0.16 * length, 3)
            lines.append(curve([start, bend, start + length * heading]))
        width, hu = float(rng.uniform(0.8, 1.2) + 0.9 * severity), float(rng.uniform(-60, 30))
        flat, share = canvas.paint_balls(np.concatenate(lines), width, hu, lung_of(chest, side))
        parts = [core(flat, share, 0.3)]
        if kind == "honeycombing":
            near = (spots.side == side) & (spots.depth < 7 + 6 * severity) & (spots.height < height[1])
            pool = np.flatnonzero(near & (spots.points[:, 1] < 15))
            centers = spots.points[rng.choice(pool, int(30 + 240 * severity))]
            radii = rng.uniform(2.0, 4.2, len(centers))
            lung = canvas.anatomy == LUNG
            flat, share = canvas.paint_balls(centers, radii + 1.6, -150.0, lung, strength=0.9)
            parts.append(flat[share > 0.4])
            canvas.paint_balls(centers, radii, -930.0, lung)
        region = np.unique(np.concatenate(parts))
        yield Drawn(region, side, "apex" if apical else "base", kind, span_mm(canvas, region))


def draw_peribronchial(rng: np.random.Generator, chest: LungField, severity: float) -> Iterator[Drawn]:
    """Bronchial walls of the second to fourth generation thickened by 1 to 4 mm; the lumen keeps its width."""
    canvas = chest.canvas
    branches = [b for b in chest.bronchi if 1 <= b.generation <= 5 + int(3 * severity) and b.radii.max() > 1.2]
    points, radii = np.concatenate([b.points for b in branches]), np.concatenate([b.radii for b in branches])
    lung = canvas.anatomy == LUNG
    flat, share = canvas.paint_balls(points, radii + (0.7 + 3.7 * severity), float(rng.uniform(0, 35)), lung)
    canvas.paint_balls(points, np.maximum(radii, 1.3), -950.0, lung)
    yield Drawn(core(flat, share, 0.4), "bilateral")


def draw_bronchiectasis(rng: np.random.Generator, chest: LungField, severity: float) -> Iterator[Drawn]:
    """Clusters of bronchi widened to 5 to 14 mm, as tubes or as strings of cysts, in one or two lobes."""
    canvas = chest.canvas
    kind = str(rng.choice(["cylindrical", "cystic"], p=[0.6, 0.4]))
    for side in random_sides(rng, 0.4):
        lobe = random_lobe(rng, side, (0.25, 0.2, 0.55))
        focus = random_point(rng, chest, side, lobe, depth=(10, 40))
        lines, widths = [], []
        for _ in range(int(2 + 7 * severity)):
            tip = focus + rng.normal(0, 1, 3) * 13 * (0.8 + 0.5 * severity)
            start = 0.45 * chest.hila[side] + 0.55 * tip + rng.normal(0, 3, 3)
            line = curve([start, 0.5 * (start + tip) + rng.normal(0, 4, 3), tip], 1.5)
            radius = np.full(len(line), (5 + 8 * severity * rng.uniform(0.7, 1.1)) / 2)
            if kind == "cystic":
                radius = radius * (0.75 + 0.55 * np.sin(np.arange(len(line)) * 1.5 / 4.5) ** 2)
            lines.append(line)
            widths.append(radius)
        points, radii = np.concatenate(lines), np.concatenate(widths)
        flat, share = canvas.paint_balls(points, radii + 0.9, 20.0, lung_of(chest, side))
        region = core(flat, share, 0.5)
        canvas.paint_balls(points, np.maximum(radii - 1.3, 1.0), -980.0, canvas.anatomy == LUNG)
        yield Drawn(region, side, lobe, kind, span_mm(canvas, region), len(lines))


def draw_septal(rng: np.random.Generator, chest: LungField, severity: float) -> Iterator[Drawn]:
    """A net of polygons 15 to 22 mm wide with lines of 1 to 4 mm, towards the bases and the pleura."""
    canvas = chest.canvas
    heights = chest.spots.points[:, 2]
    limit = heights.min() + (0.35 + 0.5 * severity) * (heights.max() - heights.min())
    lung = (canvas.anatomy == LUNG) & (chest.lung < 15 + 17 * severity) & (canvas.z < limit)
    flat = np.flatnonzero(lung.reshape(-1))
    points = canvas.body(flat)
    cell = float(rng.uniform(14, 19))
    extent = points.max(0) - points.min(0)
    seeds = points.min(0) + rng.random((int(np.prod(extent) / cell**3), 3)) * extent
    away, _ = cKDTree(seeds).query(points, k=2, workers=1)
    border = (away[:, 1] - away[:, 0]) / 2
    # Some regions are spared.
    patch = canvas.smooth_noise(rng, 28.0).reshape(-1)[flat]
    width = 0.12 + 0.78 * severity
    share = np.clip((width - border) / canvas.voxel + 0.5, 0, 1).astype(np.float32)
    edge = np.clip((limit - points[:, 2]) / 15, 0, 1).astype(np.float32)
    share *= edge * np.clip(patch * 2 + 1.2, 0, 1)
    values = canvas.hu.reshape(-1)
    values[flat] += share * np.maximum(-80 - values[flat], 0)
    yield Drawn(core(flat, share, 0.4), "bilateral", "base")
