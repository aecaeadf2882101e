"""The bones and the cartilage of a synthetic chest."""

import numpy as np
from numpy.typing import NDArray

from bundle.ctfindings.phantom.image.canvas import AORTA, BODY, LUNG, MEDIASTINUM, SIDES, Canvas, Floats, curve
from bundle.ctfindings.phantom.image.torso import Torso
from bundle.ctfindings.phantom.patient import Patient


def draw_skeleton(rng: np.random.Generator, canvas: Canvas, patient: Patient, torso: Torso) -> None:
    """Draws spine, ribs with their cartilage, sternum, clavicles and scapulae."""
    marrow = float(np.clip(rng.normal(185 - 1.6 * (patient.age - 55), 35), 40, 330))
    cortex = float(np.clip(rng.normal(1300 - 5 * (patient.age - 55), 150), 800, 1800))
    _draw_spine(rng, canvas, patient, marrow, cortex)
    _draw_ribs(rng, canvas, patient, torso, marrow, cortex)
    _draw_girdle(rng, canvas, patient, torso, marrow, cortex)


def _draw_spine(rng: np.random.Generator, canvas: Canvas, patient: Patient, marrow: float, cortex: float) -> None:
    """Vertebral bodies with waist and end plates, discs, osteophytes, arches, spinous and transverse processes."""
    s = patient.size
    box = canvas.box((0, -74 * s, 80 * s), (44 * s, 52 * s, 400))
    x, y, z = canvas.axes(box)
    period = 25.0 * s
    phase = np.abs(((z / period + rng.random()) % 1) - 0.5) * period
    edge = np.clip(phase / (period / 2), 0, 1) ** 3
    spurs = float(np.clip(0.12 * (patient.age - 45) * rng.uniform(0, 1), 0, 5)) * s
    radius = 16 * s + (1.8 * s + spurs) * edge
    outline = np.sqrt((x / 1.12) ** 2 + (y + 66 * s) ** 2)
    # The back of a vertebral body is hollow, where the canal lies.
    vertebra = np.minimum(radius - outline, y + 79 * s)
    disc = phase > period / 2 - 2.8 * s
    grain = 1 + np.float32(0.18) * canvas.smooth_noise(rng, 5.0, box)
    shell = (vertebra < 1.8) | (phase > period / 2 - 4.4 * s)
    body = np.where(disc, np.float32(80), np.where(shell, np.float32(0.5 * cortex), marrow * grain))
    free = canvas.anatomy[box] != LUNG
    free &= canvas.anatomy[box] != AORTA
    canvas.paint_box(box, canvas.coverage(vertebra) * free, body.astype(np.float32), BODY)
    here = phase < period * 0.34
    arch = 14 * s - np.sqrt((x / 1.2) ** 2 + (y + 89 * s) ** 2)
    spinous = np.minimum(3.4 * s - np.abs(x), np.minimum(-(y + 94 * s), y + 122 * s))
    wings = np.minimum(4.5 * s - np.abs(y + 92 * s + 0.35 * np.abs(x)), 38 * s - np.abs(x))
    wings = np.minimum(wings, 4.5 * s - phase)
    bone = np.maximum(np.maximum(arch, spinous), wings)
    canvas.paint_box(
        box,
        canvas.coverage(bone) * free * np.where(here, np.float32(1), np.float32(0.25)),
        np.where(bone < 2.2, np.float32(0.62 * cortex), np.float32(marrow + 90)),
        BODY,
    )
    canal: Floats = np.sqrt((x / 1.2) ** 2 + (y + 88 * s) ** 2).astype(np.float32, copy=False)
    canvas.paint_box(box, canvas.coverage(8.2 * s - canal), 0, BODY)
    canvas.paint_box(box, canvas.coverage(5.0 * s - canal), 38)


def _draw_ribs(
    rng: np.random.Generator, canvas: Canvas, patient: Patient, torso: Torso, marrow: float, cortex: float
) -> None:
    """Twelve pairs of ribs that run forward and down, and the cartilage that leads the upper ones to the sternum."""
    s = patient.size
    bones, ends = [], []
    slope = float(rng.uniform(0.85, 1.15))
    for rib in range(12):
        rise, fall = (190 - 22.0 * rib) * s, (38 + 6.0 * rib) * s * slope
        last = 0.80 - 0.012 * rib if rib < 7 else 0.74 - 0.11 * (rib - 6)
        turn = np.linspace(0.07, last, 60)
        level = rise + 6 * s - fall * turn**0.9
        for sign in SIDES.values():
            jitter = rng.normal(0, 1.2)
            reach = torso.radius(torso.cage, sign * (180 - 180 * turn), _image(canvas, level))
            angle = np.pi * turn
            out = np.maximum(reach, 30 * s) + 5.0 * s
            line = np.stack([sign * out * np.sin(angle), -out * np.cos(angle), level + jitter], 1)
            bones.append(curve(line, 2.4))
            if rib < 9:
                goal = np.array([sign * 13 * s, 0.0, (178 - 19.5 * min(rib, 6)) * s])
                goal[1] = _front(torso, canvas, goal[2]) + 5 * s
                middle = (line[-1] + goal) / 2 - [0, 0, (3 + 2.5 * rib) * s]
                away = np.hypot(middle[0], middle[1])
                wanted = torso.radius(
                    torso.cage, np.rad2deg(np.arctan2(middle[0], middle[1])), _image(canvas, middle[2])
                )
                middle[:2] *= (wanted + 5 * s) / away
                ends.append(curve([line[-1], middle, goal], 2.4))
    # A rib is a flat band: two rods over each other.
    points = np.concatenate(bones)
    points = np.concatenate([points + [0, 0, 2.6 * s], points - [0, 0, 2.6 * s]])
    flat, share = canvas.balls(points, 3.7 * s)
    keep = canvas.anatomy.reshape(-1)[flat] != AORTA
    flat, share = flat[keep], share[keep]
    canvas.paint(flat, share, cortex * float(rng.uniform(0.8, 1.0)), BODY)
    flat, share = canvas.balls(points, 2.7 * s)
    canvas.paint(flat, share, marrow * 0.75)
    cartilage = np.concatenate(ends)
    flat, share = canvas.balls(cartilage, 5.2 * s)
    keep = (canvas.anatomy.reshape(-1)[flat] == BODY) | (canvas.anatomy.reshape(-1)[flat] == MEDIASTINUM)
    canvas.paint(flat[keep], share[keep], float(rng.uniform(85, 125)), BODY)
    # Calcium in the cartilage of the ribs grows with age. It is normal, and no finding.
    amount = np.clip(0.016 * (patient.age - 35) + rng.normal(0, 0.15), 0, 0.7)
    rim = cartilage + rng.normal(0, 1, cartilage.shape) * 2.0
    rim = rim[np.repeat(rng.random(len(rim) // 6 + 1) < amount, 6)[: len(rim)]]
    if len(rim):
        canvas.paint_balls(rim, rng.uniform(1.2, 2.6, len(rim)), float(rng.uniform(300, 850)), canvas.anatomy == BODY)


def _image(canvas: Canvas, level: NDArray | float) -> NDArray:
    """Number of the image at heights in mm, not rounded."""
    return (np.asarray(level) - canvas.corner[2]) / canvas.spacing[2]


def _front(torso: Torso, canvas: Canvas, level: float) -> float:
    """Body y of the inner chest wall in the midline at a height, both in mm."""
    return float(torso.radius(torso.cage, 0.0, _image(canvas, level)))


def _draw_girdle(
    rng: np.random.Generator, canvas: Canvas, patient: Patient, torso: Torso, marrow: float, cortex: float
) -> None:
    """Sternum, clavicles and scapulae."""
    s = patient.size
    heights = np.linspace(52, 176, 42) * s
    middle = np.array([_front(torso, canvas, level) for level in heights]) + 7 * s
    half = np.interp(heights / s, [52, 75, 140, 148, 176], [9, 17, 13, 20, 27]) * s
    across = np.linspace(-1, 1, 11)
    plate = np.stack([(half[:, None] * across).ravel(), np.repeat(middle, 11), np.repeat(heights, 11)], 1)
    keep = np.abs(plate[:, 2] / s - 146) > 2.0
    flat, share = canvas.balls(plate[keep], 5.4 * s)
    ids = canvas.anatomy.reshape(-1)
    free = (ids[flat] != LUNG) & (ids[flat] != AORTA)
    canvas.paint(flat[free], share[free], 0.55 * cortex, BODY)
    flat, share = canvas.balls(plate[keep], 3.4 * s)
    free = ids[flat] == BODY
    canvas.paint(flat[free], share[free], marrow * 0.7)

    rise = 40 * s if patient.arms_up else 8 * s
    clavicles = []
    for sign in SIDES.values():
        front = _front(torso, canvas, 172 * s)
        course = [[sign * 20 * s, front + 8 * s, 178 * s], [sign * 66 * s, front + 8 * s, 186 * s]]
        clavicles.append(curve([*course, [sign * 142 * s, -8 * s, 186 * s + rise]], 2.4))
    points = np.concatenate(clavicles)
    for radius, value in ((5.6 * s, 0.8 * cortex), (3.2 * s, marrow)):
        flat, share = canvas.balls(points, radius)
        free = canvas.anatomy.reshape(-1)[flat] >= MEDIASTINUM
        canvas.paint(flat[free], share[free], value, BODY)
    # A blade lies on the ribs at the back; its spine runs to the shoulder. Raised arms turn it outwards.
    turn = 14.0 if patient.arms_up else 0.0
    for sign in SIDES.values():
        u, v = (part.ravel() for part in np.meshgrid(np.linspace(0, 1, 26), np.linspace(0, 1, 36)))
        inside = u > 0.55 * (1 - v) * 0.6
        u, v = u[inside], v[inside]
        level = (72 + 112 * v) * s
        angle = 148 - (48 + 4 * v) * u - turn * (1 - v)
        reach = torso.radius(torso.cage, sign * angle, _image(canvas, np.minimum(level, 135 * s)))
        out = reach + (15 + 6 * u) * s
        blade = np.stack([sign * out * np.sin(np.deg2rad(angle)), out * np.cos(np.deg2rad(angle)), level], 1)
        ridge = curve(
            [
                blade[np.argmin(np.abs(u) + np.abs(v - 0.75))],
                [sign * 118 * s, -72 * s, 178 * s],
                [sign * 150 * s, -34 * s, 200 * s],
            ],
            2.4,
        )
        socket = curve([blade[np.argmin(np.abs(u - 1) + np.abs(v - 0.9))], [sign * 138 * s, -28 * s, 184 * s]], 2.4)
        points = np.concatenate([blade, ridge, socket])
        sizes = np.concatenate([np.full(len(blade), 1.9), np.full(len(ridge), 4.2), np.full(len(socket), 8.0)])
        flat, share = canvas.balls(points, sizes * s)
        free = canvas.anatomy.reshape(-1)[flat] == BODY
        canvas.paint(flat[free], share[free], 0.75 * cortex)
        flat, share = canvas.balls(socket, 5.0 * s)
        canvas.paint(flat, share, marrow + 60)
