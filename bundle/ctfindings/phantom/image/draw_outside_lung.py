"""Findings of the heart, the vessels, the oesophagus and the mediastinum, drawn into a chest."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bundle.ctfindings.phantom.image.canvas import AORTA, BODY, ESOPHAGUS, HEART, LUNG, MEDIASTINUM, SIDES
from bundle.ctfindings.phantom.image.healthy_chest import Chest
from bundle.ctfindings.phantom.image.lung_field import Drawn, core, span_mm
from bundle.ctfindings.phantom.patient import ENLARGED


def draw_cardiomegaly(rng: np.random.Generator, chest: Chest, severity: float) -> Iterator[Drawn]:
    """The heart was drawn large with the chest; its mask is the finding's."""
    region = np.flatnonzero(chest.canvas.anatomy.reshape(-1) == HEART)
    share = (chest.patient.heart_ratio - ENLARGED) / 0.42
    yield Drawn(region, size_mm=span_mm(chest.canvas, region), severity=float(np.clip(share, 0, 1)))


def draw_pericardial_effusion(rng: np.random.Generator, chest: Chest, severity: float) -> Iterator[Drawn]:
    """A shell of fluid around the heart, thicker at the back and below, where the fluid gathers."""
    canvas = chest.canvas
    s, box, heart = chest.size, chest.heart.box, chest.heart.distance
    _, y, z = canvas.axes(box)
    thick = 3.5 + 17.5 * severity
    front = np.clip((y - chest.heart.center[1]) / chest.heart.radii[1], -1, 1)
    low = 1.0 - 0.25 * front - 0.25 * np.clip((z - chest.heart.center[2]) / 50, -1, 1)
    distance = np.minimum(-heart, heart + thick * low.astype(np.float32))
    distance = np.minimum(distance, 0.85 * (z + 20 * s))
    # It rests on the diaphragm.
    distance = np.minimum(distance, chest.dome[box] + 7)
    ids = canvas.anatomy[box]
    free = ((ids == LUNG) | (ids == MEDIASTINUM) | (ids == BODY)) & (chest.wall[box] > 1)
    free &= (z < chest.heart.center[2] + 46 * s) & (y > -48 * s) & (canvas.hu[box] < 120)
    share = canvas.coverage(distance) * free
    canvas.paint_box(box, share, float(rng.uniform(8, 20)), HEART)
    yield Drawn(canvas.flat(box, share > 0.5), size_mm=round(float(thick), 0))


def draw_arterial_calcification(rng: np.random.Generator, chest: Chest, severity: float) -> Iterator[Drawn]:
    """Plaques: arcs of 2 to 14 mm in the wall of the aorta, most often of the arch."""
    canvas = chest.canvas
    further = {"descending aorta": 0.35 + 0.6 * severity, "ascending aorta": 0.6 * severity}
    for part in ["aortic arch", *[name for name, share in further.items() if rng.random() < share]]:
        line, radii = chest.vessels.aorta[part]
        visible = np.flatnonzero((line[:, 2] > canvas.z[0, 0, 2]) & (line[:, 2] < canvas.z[0, 0, -3]))
        count = max(1, int(rng.poisson((1 + 15 * severity) * (1.0 if part == "aortic arch" else 0.7))))
        points, sizes = [], []
        for _ in range(count):
            at = int(rng.choice(visible[1:-1]))
            tangent = line[min(at + 1, len(line) - 1)] - line[max(at - 1, 0)]
            tangent /= np.linalg.norm(tangent)
            across = np.cross(tangent, [0.31, 0.9, 0.2])
            across /= np.linalg.norm(across)
            other = np.cross(tangent, across)
            arc = rng.uniform(2, 4 + 10 * severity) / radii[at]
            angle = rng.uniform(0, 2 * np.pi) + np.linspace(-arc / 2, arc / 2, 8)
            ring = np.cos(angle)[:, None] * across + np.sin(angle)[:, None] * other
            for slip in np.arange(-1.5, 1.6, 1.5) * (0.3 + 1.2 * severity):
                points.append(line[at] + slip * tangent + radii[at] * ring)
                sizes.append(np.full(8, rng.uniform(0.9, 1.2 + 1.3 * severity)))
        hu = float(rng.uniform(350, 1100))
        flat, share = canvas.paint_balls(np.concatenate(points), np.concatenate(sizes), hu)
        yield Drawn(core(flat, share, 0.4), location=part, count=count)


def draw_coronary_calcification(rng: np.random.Generator, chest: Chest, severity: float) -> Iterator[Drawn]:
    """Dense spots of 2 to 12 mm along the coronary arteries, first of all the left anterior descending one."""
    canvas = chest.canvas
    names = ["left anterior descending artery"]
    names += [name for name in ("circumflex artery", "right coronary artery") if rng.random() < 0.2 + 0.7 * severity]
    for name in names:
        line = chest.coronaries[name]
        points, count = [], max(1, int(rng.poisson(0.6 + 5.4 * severity)))
        for _ in range(count):
            length = int(rng.uniform(1, 3 + 6 * severity))
            start = int(rng.integers(4, max(5, int(len(line) * 0.75))))
            points.append(line[start : start + length])
        radius = rng.uniform(1.0, 1.3 + 1.6 * severity)
        flat, share = canvas.paint_balls(np.concatenate(points), radius, float(rng.uniform(350, 1200)))
        yield Drawn(core(flat, share, 0.4), location=name, count=count)


def draw_hiatal_hernia(rng: np.random.Generator, chest: Chest, severity: float) -> Iterator[Drawn]:
    """Stomach above the diaphragm behind the heart: a wall around fat, food, or gas over fluid."""
    canvas, s = chest.canvas, chest.size
    width = (19 + 49 * severity + rng.uniform(-3, 3)) / 2
    radii = np.array([width * rng.uniform(0.95, 1.2), min(width * 0.85, 26), width * rng.uniform(0.9, 1.1)])
    center = [(-8 + rng.uniform(-6, 6)) * s, -46 * s + radii[1] * 0.95, 2 * s + 0.75 * radii[2]]
    box, distance = canvas.ellipsoid(center, radii, margin=4)
    distance = distance + 1.5 * canvas.smooth_noise(rng, 14.0, box)
    bone = (canvas.hu[box] > 120) & (canvas.anatomy[box] == BODY)
    free = ~((canvas.anatomy[box] == AORTA) | bone)
    share = canvas.coverage(distance) * free
    region = canvas.flat(box, share > 0.5)
    content = str(rng.choice(["fat", "soft tissue", "gas and fluid"], p=[0.25, 0.3, 0.45]))
    canvas.paint_box(box, share, 45.0, ESOPHAGUS)
    inner = canvas.coverage(distance - float(rng.uniform(3.5, 5.0))) * free
    if content == "fat":
        canvas.paint_box(box, canvas.coverage(distance - 1.5) * free, -92.0)
        canvas.paint_box(box, canvas.coverage(distance - radii.min() * 0.62) * free, 40.0)
    elif content == "soft tissue":
        canvas.paint_box(box, inner, 28 + 35 * canvas.smooth_noise(rng, 8.0, box))
    else:
        level = center[1] + rng.uniform(-0.35, 0.3) * radii[1]
        canvas.paint_box(box, inner, 18.0)
        canvas.paint_box(box, inner * canvas.coverage(canvas.axes(box)[1] - level), -960.0)
    yield Drawn(region, kind=content, size_mm=span_mm(canvas, region))


def draw_lymphadenopathy(rng: np.random.Generator, chest: Chest, severity: float) -> Iterator[Drawn]:
    """Enlarged nodes of 10 to 32 mm, alone or matted, at the stations of the mediastinum and the hila."""
    canvas, s = chest.canvas, chest.size
    stations: dict[str, list[tuple[str | None, NDArray]]] = {
        "paratracheal": [("right", np.array([17, -4, 136]) * s)],
        "subcarinal": [(None, np.array([3, -24, 90]) * s)],
        "hilar": [(side, chest.hila[side] + np.array([4 * sign, -6, -10])) for side, sign in SIDES.items()],
        "prevascular": [("left", np.array([-16, 36, 118]) * s)],
    }
    number_of_stations = int(rng.integers(1, 3)) + int(severity > 0.5) + int(severity > 0.8)
    names = rng.choice(list(stations), size=number_of_stations, replace=False)
    hu = float(rng.uniform(65, 95) if chest.contrast else rng.uniform(30, 48))
    for name in names:
        for side, center in stations[str(name)]:
            if name == "hilar" and rng.random() < 0.35 and len(names) > 1:
                continue
            largest = float(np.clip(10.5 + 20 * severity + rng.uniform(-0.5, 3), 10, 32))
            count = int(rng.integers(1, 4)) + int(severity > 0.6)
            parts = []
            for number in range(count):
                size = largest * (1.0 if number == 0 else rng.uniform(0.55, 0.9)) / 2
                radii = size * np.array([rng.uniform(0.8, 1.0), rng.uniform(0.75, 1.0), 1.0])
                shift = np.zeros(3) if number == 0 else rng.normal(0, 1, 3) * np.array([0.6, 0.6, 1.0]) * largest
                box, distance = canvas.ellipsoid(center + shift, radii)
                ids = canvas.anatomy[box]
                keep = (ids == MEDIASTINUM) | (ids == LUNG) | (ids == HEART) & (chest.canvas.hu[box] < 0)
                # Large airways stay open between the nodes.
                keep &= ~((ids == MEDIASTINUM) & (canvas.hu[box] < -500))
                share = canvas.coverage(distance) * keep
                canvas.paint_box(box, share, hu, MEDIASTINUM)
                parts.append(canvas.flat(box, share > 0.5))
            yield Drawn(np.unique(np.concatenate(parts)), side, str(name), None, round(largest), count)
