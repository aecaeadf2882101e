"""Findings that make the lung denser, and pleural effusion, drawn into a chest."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bundle.ctfindings.phantom.image.canvas import LUNG, SIDES, curve
from bundle.ctfindings.phantom.image.lung_field import (
    Drawn,
    LungField,
    fillable,
    lobe_at,
    lung_of,
    middle_lobe,
    random_lobe,
    random_point,
    random_sides,
    span_mm,
)


def draw_nodules(rng: np.random.Generator, chest: LungField, severity: float) -> Iterator[Drawn]:
    """One to six round or slightly lobulated spots of 4 to 30 mm: solid, ground-glass, part-solid or calcified.

    A part-solid one is a solid core of half its width in ground glass. Some hang on a vessel (in a synthetic chest,
    beside a bronchus), and some on the pleura.
    """
    canvas = chest.canvas
    count = 1 + int(rng.binomial(5, 0.12 + 0.3 * severity))
    largest = 4.5 + 25.5 * severity
    for number in range(count):
        size = float(largest if number == 0 else rng.uniform(4, max(4.5, 0.7 * largest)))
        kinds, shares = ["part-solid", "solid", "ground-glass", "calcified"], [chest.part_solid, 0.68, 0.18, 0.14]
        shares[1] -= chest.part_solid
        kind = str(rng.choice(kinds, p=shares))
        if kind in ("ground-glass", "part-solid"):
            size = max(size, 7.0)
        if kind == "calcified":
            size = min(size, 14.0)
        place = rng.random()
        point = random_point(rng, chest, depth=(0, 0.3 * size) if place < 0.25 else (0.3 * size, 60))
        if place > 0.8 and chest.bronchi:
            bronchus = chest.bronchi[int(rng.integers(len(chest.bronchi)))]
            side, end = ("right" if bronchus.points[-1, 0] > 0 else "left"), bronchus.points[-1]
            near = chest.spots.points[chest.spots.side == side]
            point = near[np.linalg.norm(near - end - rng.normal(0, 3, 3), axis=1).argmin()].astype(np.float64)
        elif place > 0.8 and len(chest.vessel_points):
            point = _beside_vessel(rng, chest, size / 2)
        box, distance = canvas.ellipsoid(point, size / 2 * rng.uniform(0.85, 1.0, 3), margin=3)
        if size > 9:
            distance = distance + 0.06 * size * canvas.smooth_noise(rng, 0.55 * size, box)
        share = canvas.coverage(distance) * (canvas.anatomy[box] == LUNG)
        if kind in ("ground-glass", "part-solid"):
            view = canvas.hu[box]
            view += np.where(view < -450, share * rng.uniform(200, 420), 0).astype(np.float32)
            if kind == "part-solid":
                canvas.paint_box(box, share * canvas.coverage(distance - np.float32(0.25 * size)), 30.0)
        else:
            canvas.paint_box(box, share, float(rng.uniform(0, 70) if kind == "solid" else rng.uniform(300, 700)))
        side = "right" if point[0] > 0 else "left"
        yield Drawn(canvas.flat(box, share > 0.4), side, lobe_at(chest, point), kind, float(round(size)))


def _beside_vessel(rng: np.random.Generator, chest: LungField, radius: float) -> NDArray:
    """A point in body mm, a radius away from a random place on a vessel, towards one of the 20 nearest lung points."""
    vessel = chest.vessel_points[int(rng.integers(len(chest.vessel_points)))]
    away = chest.spots.points - vessel
    nearest = np.argsort(np.linalg.norm(away, axis=1))[:20]
    course = away[int(rng.choice(nearest))].astype(np.float64)
    return vessel + course * (radius / max(float(np.linalg.norm(course)), 1e-6))


def draw_opacity(rng: np.random.Generator, chest: LungField, severity: float) -> Iterator[Drawn]:
    """Ground-glass patches with blurred edges of 20 to 60 mm, mostly under the pleura; vessels stay visible."""
    canvas = chest.canvas
    for side in random_sides(rng, 0.35 + 0.4 * severity):
        for _ in range(1 + int(rng.binomial(3, 0.2 + 0.6 * severity))):
            lobe = random_lobe(rng, side, (0.35, 0.15, 0.5))
            point = random_point(rng, chest, side, lobe, depth=(4, 22) if rng.random() < 0.75 else (0, 99))
            size = rng.uniform(18, 28 + 36 * severity)
            box, distance = canvas.ellipsoid(point, size / 2 * rng.uniform(0.75, 1.25, 3), margin=10)
            distance = distance + 0.13 * size * canvas.smooth_noise(rng, 12.0, box)
            share = np.clip(distance / 7 + 0.5, 0, 1) * lung_of(chest, side, box)
            grain = 1 + 0.15 * canvas.smooth_noise(rng, 6.0, box)
            view = canvas.hu[box]
            rise = rng.uniform(70, 130) + 270 * severity
            view += np.where(view < -350, share * grain * rise, 0).astype(np.float32)
            region = canvas.flat(box, share > 0.5)
            yield Drawn(region, side, lobe_at(chest, point), "ground-glass", span_mm(canvas, region))


def draw_consolidation(rng: np.random.Generator, chest: LungField, severity: float) -> Iterator[Drawn]:
    """Airless lung of a segment or lobe up to the fissure and the pleura, crossed by air-filled bronchi."""
    canvas, s = chest.canvas, chest.size
    for side in random_sides(rng, 0.2 + 0.15 * severity):
        lobe = random_lobe(rng, side, (0.3, 0.2, 0.5))
        point = random_point(rng, chest, side, lobe, depth=(6, 26))
        size = rng.uniform(14, 22) + 62 * severity
        box, distance = canvas.ellipsoid(point, size / 2 * rng.uniform(0.8, 1.3, 3), margin=8)
        distance = distance + 0.09 * size * canvas.smooth_noise(rng, 13.0, box)
        share = np.clip(distance / 4 + 0.5, 0, 1) * fillable(chest, side, box)
        # A fissure stops it.
        _, y, z = canvas.axes(box)
        lower = z < 48 * s - 0.78 * y
        share = share * (lower if lobe == "lower lobe" else ~lower)
        target = rng.uniform(28, 50) + 12 * canvas.smooth_noise(rng, 10.0, box) + (25 if chest.contrast else 0)
        canvas.fill_box(box, share, target)
        region = canvas.flat(box, share > 0.5)
        # Air bronchograms: further airways are drawn, and the bronchi that cross the filling get their air back.
        inside = np.zeros(canvas.shape, bool)
        inside.reshape(-1)[region] = True
        hub = chest.hila[side]
        airways = []
        for _ in range(int(4 + 6 * severity)):
            tip = point + rng.normal(0, 0.28 * size, 3)
            middle = 0.5 * (tip + hub) + rng.normal(0, 5, 3)
            airways.append(curve([hub * 0.35 + tip * 0.65, 0.3 * middle + 0.7 * tip, tip + rng.normal(0, 3, 3)]))
        canvas.paint_balls(np.concatenate(airways), 1.7, -880.0, inside)
        flat, air = chest.lumen
        keep = inside.reshape(-1)[flat]
        canvas.paint(flat[keep], air[keep], -930.0)
        yield Drawn(region, side, lobe, None, span_mm(canvas, region))


def draw_atelectasis(rng: np.random.Generator, chest: LungField, severity: float) -> Iterator[Drawn]:
    """Collapsed lung: bands of 3 to 6 mm at the bases, or a dependent wedge with a straight border and no air in it."""
    canvas, s = chest.canvas, chest.size
    for side in random_sides(rng, 0.35 + 0.2 * severity):
        parts = []
        kind = "wedge" if rng.random() < 0.15 + 0.6 * severity else "linear"
        box = canvas.box((SIDES[side] * 72 * s, 0, 30 * s), (72 * s, 100 * s, 105 * s))
        x, y, z = canvas.axes(box)
        lobe = "lower lobe"
        if kind == "linear":
            for _ in range(1 + int(rng.binomial(3, 0.3 + 0.4 * severity))):
                lobe = str(rng.choice(["lower lobe", middle_lobe(side)], p=[0.75, 0.25]))
                point = random_point(rng, chest, side, lobe, depth=(2, 22), height=(0.05, 0.45))
                normal = np.array([rng.normal(0, 0.35), rng.normal(0, 0.35), 1.0])
                normal /= np.linalg.norm(normal)
                width = rng.uniform(1.4, 2.2) + 4.2 * severity
                reach = rng.uniform(14, 20 + 12 * severity)
                dx, dy, dz = x - point[0], y - point[1], z - point[2]
                plane = np.abs(normal[0] * dx + normal[1] * dy + normal[2] * dz + 0.0025 * (dx**2 + dy**2))
                disc = np.minimum(width / 2 - plane, reach - np.sqrt(dx**2 + (dy * 1.2) ** 2 + (1.0 * dz) ** 2))
                share = canvas.coverage(disc.astype(np.float32)) * lung_of(chest, side, box)
                canvas.fill_box(box, share, 20)
                parts.append(canvas.flat(box, share > 0.4 * share.max(initial=0)))
        else:
            # The collapsed part lies on the back wall above the diaphragm and narrows towards the hilum.
            thick = rng.uniform(8, 12) + 42 * severity
            tall = rng.uniform(40, 60) + 40 * severity
            height = chest.dome[box]
            # Unlike fluid it keeps to the side of the spine and does not follow the wall.
            back = np.clip((-y - 12 * s) / (30 * s), 0, 1) * np.clip(1.25 - (np.abs(x) - 22 * s) / (52 * s), 0, 1.2)
            distance = thick * back * np.clip(1.15 - height / tall, 0, 1) - chest.wall[box]
            share = canvas.coverage(distance * np.float32(0.9)) * fillable(chest, side, box) * (height < tall)
            canvas.fill_box(box, share, rng.uniform(35, 60) + (30 if chest.contrast else 0))
            parts.append(canvas.flat(box, share > 0.5))
        region = np.unique(np.concatenate(parts))
        yield Drawn(region, side, lobe, kind, span_mm(canvas, region), len(parts))


def draw_pleural_effusion(rng: np.random.Generator, chest: LungField, severity: float) -> Iterator[Drawn]:
    """Fluid along the back wall and the base of a patient who lies on the back. The anatomy mask counts it as lung."""
    canvas, s = chest.canvas, chest.size
    for side in random_sides(rng, 0.5):
        box = canvas.box((SIDES[side] * 72 * s, 0, 60 * s), (74 * s, 100 * s, 145 * s))
        y = canvas.axes(box)[1]
        level = severity * rng.uniform(0.85, 1.1)
        thick = 4 + 42 * level
        tall = (60 + 95 * level) * s
        back = np.clip((-y + (level * 70 - 45) * s) / (45 * s), 0, 1) ** 0.7
        height = np.clip(1.1 - chest.dome[box] / tall, 0, 1) ** 0.6
        distance = (thick * back * height - chest.wall[box]) * np.float32(0.9)
        # A thin layer also lies between lung and diaphragm.
        distance = np.maximum(distance, (7 * level + 1) * back - chest.dome[box])
        share = canvas.coverage(distance.astype(np.float32)) * fillable(chest, side, box)
        canvas.paint_box(box, share, float(rng.uniform(4, 18)), LUNG)
        yield Drawn(canvas.flat(box, share > 0.5), side, None, None, float(round(thick)))
