"""Findings of the lung, the bronchi and the pleural space, drawn into a chest with their masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from bundle.ctfindings.phantom.case import Site
from bundle.ctfindings.phantom.image.canvas import LUNG, SIDES, Box, Canvas, curve
from bundle.ctfindings.phantom.image.healthy_chest import Chest, lobe_of

Drawn = tuple[list[Site], list[NDArray[np.int64]]]


def span_mm(canvas: Canvas, region: NDArray[np.int64]) -> float | None:
    """Largest extent of a region along a body axis, in whole mm; None for an empty region."""
    if len(region) == 0:
        return None
    points = canvas.body(region)
    return float(round(float((points.max(0) - points.min(0)).max() + canvas.voxel)))


def _pick(
    rng: np.random.Generator,
    chest: Chest,
    side: str | None = None,
    lobe: str | None = None,
    depth: tuple[float, float] = (0, 99),
    height: tuple[float, float] = (0, 1),
) -> NDArray:
    """A random point of the lung; conditions that no point meets are dropped, the last ones first."""
    spots = chest.spots
    tests = [np.ones(len(spots.points), bool)]
    if side is not None:
        tests.append(spots.side == side)
    if lobe is not None:
        tests.append(spots.lobe == lobe)
    tests.append((spots.depth >= depth[0]) & (spots.depth <= depth[1]))
    tests.append((spots.height >= height[0]) & (spots.height <= height[1]))
    while not np.logical_and.reduce(tests).any():
        tests.pop()
    return spots.points[int(rng.choice(np.flatnonzero(np.logical_and.reduce(tests))))].astype(np.float64)


def _place(chest: Chest, point: NDArray) -> tuple[str, str]:
    return ("right" if point[0] > 0 else "left"), str(lobe_of(point[None], chest.patient.size)[0])


def _sides(rng: np.random.Generator, both: float) -> list[str]:
    """Both sides with a probability, otherwise one of them."""
    return ["right", "left"] if rng.random() < both else [str(rng.choice(["right", "left"]))]


def _air(chest: Chest, box: Box) -> NDArray[np.bool_]:
    return chest.canvas.anatomy[box] == LUNG


def _side_mask(chest: Chest, side: str, box: Box) -> NDArray[np.bool_]:
    return (chest.canvas.x[box[0], box[1]] > 0) == (side == "right")


def _fillable(chest: Chest, box: Box) -> NDArray[np.bool_]:
    """Lung with the half-filled voxels of its surface, so that no thread of air stays between a filling and the wall."""
    return _air(chest, box) | ((chest.lung[box] > -0.7 * chest.canvas.voxel) & (chest.canvas.hu[box] < -150))


def _reopen_airways(chest: Chest, box: Box, mask: NDArray[np.bool_]) -> None:
    """Puts the air back into the bronchi that cross a filled region: air bronchograms."""
    canvas = chest.canvas
    inside = np.zeros(canvas.shape, bool)
    inside[box] = mask
    flat, share = chest.lumen
    keep = inside.reshape(-1)[flat]
    canvas.paint(flat[keep], share[keep], -930.0)


def draw_nodules(rng: np.random.Generator, chest: Chest, severity: float) -> Drawn:
    """One to six round or slightly lobulated spots of 6 to 30 mm: solid, ground-glass or calcified."""
    canvas = chest.canvas
    count = 1 + int(rng.binomial(5, 0.12 + 0.3 * severity))
    largest = 7 + 23 * severity
    sites, regions = [], []
    for number in range(count):
        size = float(largest if number == 0 else rng.uniform(5, max(6, 0.7 * largest)))
        kind = str(rng.choice(["solid", "ground-glass", "calcified"], p=[0.68, 0.18, 0.14]))
        if kind == "ground-glass":
            size = max(size, 9.0)
        if kind == "calcified":
            size = min(size, 14.0)
        point = _pick(rng, chest, depth=(0.3 * size, 60))
        radii = size / 2 * rng.uniform(0.85, 1.0, 3)
        box, distance = canvas.ellipsoid(point, radii, margin=3)
        if size > 9:
            distance = distance + 0.06 * size * canvas.smooth_noise(rng, 0.55 * size, box)
        share = canvas.coverage(distance) * _air(chest, box)
        if kind == "ground-glass":
            view = canvas.hu[box]
            view += np.where(view < -450, share * rng.uniform(280, 420), 0).astype(np.float32)
        else:
            canvas.paint_box(box, share, float(rng.uniform(15, 60) if kind == "solid" else rng.uniform(300, 700)))
        region = canvas.flat(box, share > 0.4)
        side, lobe = _place(chest, point)
        sites.append(Site("Lung nodule", severity, side, lobe, kind, float(round(size)), 1, canvas.center(region)))
        regions.append(region)
    return sites, regions


def draw_opacity(rng: np.random.Generator, chest: Chest, severity: float) -> Drawn:
    """Ground-glass patches with blurred edges of 20 to 60 mm, mostly under the pleura; vessels stay visible."""
    canvas = chest.canvas
    sites, regions = [], []
    lobes_right, lobes_left = ["upper lobe", "middle lobe", "lower lobe"], ["upper lobe", "lingula", "lower lobe"]
    for side in _sides(rng, 0.35 + 0.4 * severity):
        for _ in range(1 + int(rng.binomial(3, 0.2 + 0.6 * severity))):
            lobe = str(rng.choice(lobes_right if side == "right" else lobes_left, p=[0.35, 0.15, 0.5]))
            point = _pick(rng, chest, side, lobe, depth=(4, 22) if rng.random() < 0.75 else (0, 99))
            size = rng.uniform(22, 34 + 30 * severity)
            radii = size / 2 * rng.uniform(0.75, 1.25, 3)
            box, distance = canvas.ellipsoid(point, radii, margin=10)
            distance = distance + 0.13 * size * canvas.smooth_noise(rng, 12.0, box)
            share = np.clip(distance / 7 + 0.5, 0, 1) * _air(chest, box) * _side_mask(chest, side, box)
            grain = 1 + 0.15 * canvas.smooth_noise(rng, 6.0, box)
            view = canvas.hu[box]
            rise = rng.uniform(200, 300) + 130 * severity
            view += np.where(view < -350, share * grain * rise, 0).astype(np.float32)
            region = canvas.flat(box, share > 0.5)
            sites.append(
                Site(
                    "Lung opacity",
                    severity,
                    side,
                    _place(chest, point)[1],
                    "ground-glass",
                    span_mm(canvas, region),
                    1,
                    canvas.center(region),
                )
            )
            regions.append(region)
    return sites, regions


def draw_consolidation(rng: np.random.Generator, chest: Chest, severity: float) -> Drawn:
    """Airless lung of a segment or lobe up to the fissure and the pleura, crossed by air-filled bronchi."""
    canvas = chest.canvas
    sites, regions = [], []
    for side in _sides(rng, 0.2 + 0.15 * severity):
        lobe = str(
            rng.choice(["upper lobe", "middle lobe" if side == "right" else "lingula", "lower lobe"], p=[0.3, 0.2, 0.5])
        )
        point = _pick(rng, chest, side, lobe, depth=(6, 26))
        size = rng.uniform(26, 34) + 52 * severity
        box, distance = canvas.ellipsoid(point, size / 2 * rng.uniform(0.8, 1.3, 3), margin=8)
        distance = distance + 0.09 * size * canvas.smooth_noise(rng, 13.0, box)
        share = np.clip(distance / 4 + 0.5, 0, 1) * _fillable(chest, box) * _side_mask(chest, side, box)
        # A fissure stops it.
        s = chest.patient.size
        lower = canvas.z[:, :, box[2]] < 48 * s - 0.78 * canvas.y[box[0], box[1]]
        share = share * (lower if lobe == "lower lobe" else ~lower)
        view = canvas.hu[box]
        target = rng.uniform(28, 50) + 12 * canvas.smooth_noise(rng, 10.0, box) + (25 if chest.patient.contrast else 0)
        view += share * np.maximum(target - view, 0)
        mask = share > 0.5
        hub = chest.hila[side]
        airways = []
        for _ in range(int(4 + 6 * severity)):
            tip = point + rng.normal(0, 0.28 * size, 3)
            middle = 0.5 * (tip + hub) + rng.normal(0, 5, 3)
            airways.append(curve([hub * 0.35 + tip * 0.65, 0.3 * middle + 0.7 * tip, tip + rng.normal(0, 3, 3)])[0])
        flat, part = canvas.balls(np.concatenate(airways), 1.7)
        inside = np.zeros(canvas.shape, bool)
        inside[box] = mask
        keep = inside.reshape(-1)[flat]
        canvas.paint(flat[keep], part[keep], -880.0)
        _reopen_airways(chest, box, mask)
        region = canvas.flat(box, mask)
        sites.append(
            Site("Consolidation", severity, side, lobe, None, span_mm(canvas, region), 1, canvas.center(region))
        )
        regions.append(region)
    return sites, regions


def draw_atelectasis(rng: np.random.Generator, chest: Chest, severity: float) -> Drawn:
    """Collapsed lung: bands of 3 to 6 mm at the bases, or a dependent wedge with a straight border and no air in it."""
    canvas, s = chest.canvas, chest.patient.size
    sites, regions = [], []
    for side in _sides(rng, 0.35 + 0.2 * severity):
        sign = SIDES[side]
        parts = []
        kind = "wedge" if rng.random() < 0.15 + 0.6 * severity else "linear"
        box = canvas.box((sign * 72 * s, 0, 30 * s), (72 * s, 100 * s, 105 * s))
        x, y, z = canvas.x[box[0], box[1]], canvas.y[box[0], box[1]], canvas.z[:, :, box[2]]
        if kind == "linear":
            lobe = "lower lobe"
            for _ in range(1 + int(rng.binomial(3, 0.3 + 0.4 * severity))):
                lobe = str(rng.choice(["lower lobe", "middle lobe" if side == "right" else "lingula"], p=[0.75, 0.25]))
                point = _pick(rng, chest, side, lobe, depth=(2, 22), height=(0.05, 0.45))
                normal = np.array([rng.normal(0, 0.35), rng.normal(0, 0.35), 1.0])
                normal /= np.linalg.norm(normal)
                width = rng.uniform(2.6, 3.4) + 3.0 * severity
                reach = rng.uniform(14, 20 + 12 * severity)
                dx, dy, dz = x - point[0], y - point[1], z - point[2]
                plane = np.abs(normal[0] * dx + normal[1] * dy + normal[2] * dz + 0.0025 * (dx**2 + dy**2))
                disc = np.minimum(width / 2 - plane, reach - np.sqrt(dx**2 + (dy * 1.2) ** 2 + (1.0 * dz) ** 2))
                share = canvas.coverage(disc.astype(np.float32)) * _air(chest, box) * _side_mask(chest, side, box)
                view = canvas.hu[box]
                view += share * np.maximum(20 - view, 0)
                parts.append(canvas.flat(box, share > 0.4))
        else:
            lobe = "lower lobe"
            # The collapsed part lies on the back wall above the diaphragm and narrows towards the hilum.
            thick = rng.uniform(14, 18) + 36 * severity
            tall = rng.uniform(40, 60) + 40 * severity
            height = chest.dome[box]
            depth = chest.wall[box]
            # Unlike fluid it keeps to the side of the spine and does not follow the wall.
            back = np.clip((-y - 12 * s) / (30 * s), 0, 1) * np.clip(1.25 - (np.abs(x) - 22 * s) / (52 * s), 0, 1.2)
            share = canvas.coverage((thick * back * np.clip(1.15 - height / tall, 0, 1) - depth) * np.float32(0.9))
            share = share * _fillable(chest, box) * _side_mask(chest, side, box) * (height < tall)
            view = canvas.hu[box]
            view += share * np.maximum(rng.uniform(35, 60) + (30 if chest.patient.contrast else 0) - view, 0)
            parts.append(canvas.flat(box, share > 0.5))
        region = np.unique(np.concatenate(parts))
        count = len(parts) if kind == "linear" else 1
        sites.append(
            Site("Atelectasis", severity, side, lobe, kind, span_mm(canvas, region), count, canvas.center(region))
        )
        regions.append(region)
    return sites, regions


def draw_emphysema(rng: np.random.Generator, chest: Chest, severity: float) -> Drawn:
    """Centrilobular holes of 4 to 12 mm, mainly in the upper lobes, or paraseptal bullae; the lung around is darker."""
    canvas, spots = chest.canvas, chest.spots
    kind = str(rng.choice(["centrilobular", "paraseptal"], p=[0.75, 0.25]))
    upper = spots.height + rng.normal(0, 0.12, len(spots.height)) > 0.62 - 0.45 * severity
    fade = np.clip((canvas.z - (110 - 120 * severity) * chest.patient.size) / 60, 0.25, 1).astype(np.float32)
    view = canvas.hu
    air = (canvas.anatomy == LUNG) & (view < -600)
    view -= air * fade * np.float32(14 + 38 * severity)
    if kind == "centrilobular":
        pool = np.flatnonzero(upper & (spots.depth > 2))
        count = int(180 + 620 * severity)
        centers = spots.points[rng.choice(pool, count)]
        radii = rng.uniform(2.2, 3.6 + 2.8 * severity, count)
    else:
        pool = np.flatnonzero(upper & (spots.depth < 9))
        count = int(40 + 110 * severity)
        centers = spots.points[rng.choice(pool, count)]
        radii = rng.uniform(4, 6 + 4 * severity, count)
        for _ in range(int(1 + 3 * severity)):
            centers = np.vstack([centers, spots.points[rng.choice(np.flatnonzero(spots.height > 0.6))]])
            radii = np.append(radii, rng.uniform(8, 12 + 10 * severity))
        flat, share = canvas.balls(centers, radii + 1.3)
        keep = canvas.anatomy.reshape(-1)[flat] == LUNG
        canvas.paint(flat[keep], share[keep] * np.float32(0.8), -620.0)
    flat, share = canvas.balls(centers, radii)
    keep = (canvas.anatomy.reshape(-1)[flat] == LUNG) & (canvas.hu.reshape(-1)[flat] < -400)
    flat, share = flat[keep], share[keep]
    canvas.paint(flat, share, -990.0)
    region = flat[share > 0.5]
    return [
        Site(
            "Emphysema",
            severity,
            "bilateral",
            "upper lobe" if severity < 0.7 else None,
            kind,
            None,
            1,
            canvas.center(region),
        )
    ], [region]


def draw_mosaic(rng: np.random.Generator, chest: Chest, severity: float) -> Drawn:
    """Sharp geographic regions of dark (-920 HU) beside bright (-760 HU) lung, on both sides."""
    canvas = chest.canvas
    field = canvas.smooth_noise(rng, float(rng.uniform(15, 22)))
    share = np.clip(field * 5 + 0.5, 0, 1)
    air = (canvas.anatomy == LUNG) & (canvas.hu < -500)
    step = 45 + 65 * severity
    canvas.hu += air * ((1 - 2 * share) * np.float32(step) * 0.5 + 0.2 * step).astype(np.float32)
    region = np.flatnonzero((air & (share > 0.5)).reshape(-1))
    return [Site("Mosaic attenuation pattern", severity, "bilateral", None, None, None, 1, None)], [region]


def draw_fibrosis(rng: np.random.Generator, chest: Chest, severity: float) -> Drawn:
    """Scars at the apex, or reticulation and honeycombing under the pleura of the bases, with distorted strands."""
    canvas = chest.canvas
    sites, regions = [], []
    kind = str(rng.choice(["scar", "reticulation", "honeycombing"], p=[0.45, 0.33, 0.22]))
    apical = kind == "scar" or rng.random() < 0.15
    for side in _sides(rng, 0.6):
        height = (0.72, 1.0) if apical else (0.0, 0.38)
        parts = []
        hub = chest.hila[side]
        lines = []
        strands = int((10 + 26 * severity) if kind == "scar" else (26 + 60 * severity))
        focus = _pick(rng, chest, side, depth=(4, 16), height=height)
        for _ in range(strands):
            if kind == "scar":
                start = focus + rng.normal(0, 1, 3) * np.array([10, 12, 9]) * (0.7 + 0.6 * severity)
                heading = rng.normal(0, 1, 3) + 0.8 * (hub - start) / np.linalg.norm(hub - start)
            else:
                start = _pick(rng, chest, side, depth=(0, 5 + 9 * severity), height=height)
                heading = rng.normal(0, 1, 3) + 0.3 * (hub - start) / np.linalg.norm(hub - start)
            heading /= np.linalg.norm(heading)
            length = rng.uniform(12, 30) if kind == "scar" else rng.uniform(7, 16)
            bend = start + 0.5 * length * heading + rng.normal(0, 0.16 * length, 3)
            lines.append(curve([start, bend, start + length * heading])[0])
        flat, share = canvas.balls(np.concatenate(lines), float(rng.uniform(1.3, 1.6) + 0.5 * severity))
        points = canvas.body(flat)
        keep = (canvas.anatomy.reshape(-1)[flat] == LUNG) & ((points[:, 0] > 0) == (side == "right"))
        flat, share = flat[keep], share[keep]
        canvas.paint(flat, share, float(rng.uniform(-60, 30)))
        parts.append(flat[share > 0.3])
        if kind == "honeycombing":
            pool = np.flatnonzero(
                (chest.spots.side == side)
                & (chest.spots.depth < 7 + 6 * severity)
                & (chest.spots.height < height[1])
                & (chest.spots.points[:, 1] < 15)
            )
            centers = chest.spots.points[rng.choice(pool, int(100 + 170 * severity))]
            radii = rng.uniform(2.0, 4.2, len(centers))
            flat, share = canvas.balls(centers, radii + 1.6)
            keep = canvas.anatomy.reshape(-1)[flat] == LUNG
            canvas.paint(flat[keep], share[keep] * np.float32(0.9), -150.0)
            parts.append(flat[keep & (share > 0.4)])
            flat, share = canvas.balls(centers, radii)
            keep = canvas.anatomy.reshape(-1)[flat] == LUNG
            canvas.paint(flat[keep], share[keep], -930.0)
        region = np.unique(np.concatenate(parts))
        sites.append(
            Site(
                "Pulmonary fibrotic sequela",
                severity,
                side,
                "apex" if apical else "base",
                kind,
                span_mm(canvas, region),
                1,
                canvas.center(region),
            )
        )
        regions.append(region)
    return sites, regions


def draw_pleural_effusion(rng: np.random.Generator, chest: Chest, severity: float) -> Drawn:
    """Fluid along the back wall and the base: the patient lies on the back. It belongs to the lung of the anatomy mask."""
    canvas, s = chest.canvas, chest.patient.size
    sites, regions = [], []
    for side in _sides(rng, 0.5):
        sign = SIDES[side]
        box = canvas.box((sign * 72 * s, 0, 60 * s), (74 * s, 100 * s, 145 * s))
        y = canvas.y[box[0], box[1]]
        level = severity * rng.uniform(0.85, 1.1)
        thick = 8 + 38 * level
        tall = (60 + 95 * level) * s
        back = np.clip((-y + (level * 70 - 45) * s) / (45 * s), 0, 1) ** 0.7
        height = np.clip(1.1 - chest.dome[box] / tall, 0, 1) ** 0.6
        distance = thick * back * height - chest.wall[box]
        distance = distance * np.float32(0.9)
        # A thin layer also lies between lung and diaphragm.
        distance = np.maximum(distance, (7 * level + 2) * back - chest.dome[box])
        share = canvas.coverage(distance.astype(np.float32)) * _side_mask(chest, side, box) * _fillable(chest, box)
        canvas.paint_box(box, share, float(rng.uniform(4, 18)), LUNG)
        region = canvas.flat(box, share > 0.5)
        sites.append(
            Site("Pleural effusion", severity, side, None, None, float(round(thick)), 1, canvas.center(region))
        )
        regions.append(region)
    return sites, regions


def draw_peribronchial(rng: np.random.Generator, chest: Chest, severity: float) -> Drawn:
    """Bronchial walls of the second to fourth generation thickened to 2 to 5 mm; the lumen keeps its width."""
    canvas = chest.canvas
    branches = [b for b in chest.bronchi if 1 <= b.generation <= 5 + int(3 * severity) and b.radii.max() > 1.2]
    points, radii = np.concatenate([b.points for b in branches]), np.concatenate([b.radii for b in branches])
    extra = 2.0 + 2.4 * severity
    flat, share = canvas.balls(points, radii + extra)
    keep = canvas.anatomy.reshape(-1)[flat] == LUNG
    flat, share = flat[keep], share[keep]
    canvas.paint(flat, share, float(rng.uniform(0, 35)))
    region = flat[share > 0.4]
    inner, part = canvas.balls(points, np.maximum(radii, 1.3))
    keep = canvas.anatomy.reshape(-1)[inner] == LUNG
    canvas.paint(inner[keep], part[keep], -950.0)
    return [Site("Peribronchial thickening", severity, "bilateral", None, None, None, 1, canvas.center(region))], [
        region
    ]


def draw_bronchiectasis(rng: np.random.Generator, chest: Chest, severity: float) -> Drawn:
    """Clusters of bronchi widened to 8 to 14 mm, as tubes or as strings of cysts, in one or two lobes."""
    canvas = chest.canvas
    kind = str(rng.choice(["cylindrical", "cystic"], p=[0.6, 0.4]))
    sites, regions = [], []
    for side in _sides(rng, 0.4):
        lobe = str(
            rng.choice(
                ["upper lobe", "middle lobe" if side == "right" else "lingula", "lower lobe"], p=[0.25, 0.2, 0.55]
            )
        )
        focus = _pick(rng, chest, side, lobe, depth=(10, 40))
        hub = chest.hila[side]
        outer, inner, widths = [], [], []
        for _ in range(int(3 + 6 * severity)):
            tip = focus + rng.normal(0, 1, 3) * 13 * (0.8 + 0.5 * severity)
            start = 0.45 * hub + 0.55 * tip + rng.normal(0, 3, 3)
            line = curve([start, 0.5 * (start + tip) + rng.normal(0, 4, 3), tip], 1.5)[0]
            radius = np.full(len(line), (8 + 5 * severity * rng.uniform(0.6, 1.1)) / 2)
            if kind == "cystic":
                radius = radius * (0.75 + 0.55 * np.sin(np.arange(len(line)) * 1.5 / 4.5) ** 2)
            outer.append(line)
            inner.append(line)
            widths.append(radius)
        points, radii = np.concatenate(outer), np.concatenate(widths)
        flat, share = canvas.balls(points, radii + 0.9)
        lung = canvas.anatomy.reshape(-1)[flat] == LUNG
        lung &= (canvas.body(flat)[:, 0] > 0) == (side == "right")
        flat, share = flat[lung], share[lung]
        canvas.paint(flat, share, 20.0)
        region = flat[share > 0.5]
        flat, share = canvas.balls(points, radii - 1.3)
        lung = canvas.anatomy.reshape(-1)[flat] == LUNG
        canvas.paint(flat[lung], share[lung], -980.0)
        sites.append(
            Site(
                "Bronchiectasis",
                severity,
                side,
                lobe,
                kind,
                span_mm(canvas, region),
                len(widths),
                canvas.center(region),
            )
        )
        regions.append(region)
    return sites, regions


def draw_septal(rng: np.random.Generator, chest: Chest, severity: float) -> Drawn:
    """A net of polygons 15 to 22 mm wide with lines of 2 to 4 mm, towards the bases and the pleura."""
    canvas = chest.canvas
    top = 0.35 + 0.5 * severity
    lung = canvas.anatomy.reshape(-1) == LUNG
    near = chest.lung.reshape(-1) < 15 + 17 * severity
    heights = chest.spots.points[:, 2]
    limit = heights.min() + top * (heights.max() - heights.min())
    low = np.broadcast_to(canvas.z < limit, canvas.shape).reshape(-1)
    flat = np.flatnonzero(lung & near & low)
    points = canvas.body(flat)
    cell = float(rng.uniform(14, 19))
    extent = points.max(0) - points.min(0)
    seeds = points.min(0) + rng.random((int(np.prod(extent) / cell**3), 3)) * extent
    away, _ = cKDTree(seeds).query(points, k=2, workers=1)
    border = (away[:, 1] - away[:, 0]) / 2
    # Some regions are spared.
    patch = canvas.smooth_noise(rng, 28.0).reshape(-1)[flat]
    width = 0.35 + 0.55 * severity
    share = np.clip((width - border) / canvas.voxel + 0.5, 0, 1).astype(np.float32)
    edge = np.clip((limit - points[:, 2]) / 15, 0, 1).astype(np.float32)
    share *= edge * np.clip(patch * 2 + 1.2, 0, 1)
    values = canvas.hu.reshape(-1)
    values[flat] += share * np.maximum(-80 - values[flat], 0)
    region = flat[share > 0.4]
    return [
        Site("Interlobular septal thickening", severity, "bilateral", "base", None, None, 1, canvas.center(region))
    ], [region]
