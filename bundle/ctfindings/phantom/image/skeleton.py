"""The bones of a synthetic chest, and the table under it."""

from __future__ import annotations

import numpy as np

from bundle.ctfindings.phantom.image.canvas import AORTA, BODY, LUNG, MEDIASTINUM, SIDES, Canvas, Floats, curve
from bundle.ctfindings.phantom.patient import Patient


def draw_skeleton(
    rng: np.random.Generator, canvas: Canvas, patient: Patient, cage_x: float, front: float, back: float, taper: Floats
) -> None:
    """Draws spine, ribs, sternum, clavicles and scapulae, and the table where there is one.

    ``cage_x``, ``front`` and ``back`` are half width and depths of the rib cage in mm; ``taper`` is its scale at each
    image, (1, 1, Z).
    """
    s = patient.size
    marrow = float(np.clip(rng.normal(185 - 1.3 * (patient.age - 55), 30), 70, 300))
    outside = (canvas.anatomy != LUNG) & (canvas.anatomy != AORTA)
    box = canvas.box((0, -70 * s, 80 * s), (30 * s, 45 * s, 400))
    x, y, z = canvas.axes(box)
    period = 25.0 * s
    phase = np.abs(((z / period + rng.random()) % 1) - 0.5) * period
    vertebra = (1 - np.sqrt((x / (18 * s)) ** 2 + ((y + 66 * s) / (15 * s)) ** 2)) * np.float32(16 * s)
    disc = phase > period / 2 - 3.0 * s
    shell = np.where((vertebra < 2.5) | (phase > period / 2 - 4.5 * s), 1.7, 1.0)
    body = np.where(disc, 75.0, marrow * shell).astype(np.float32)
    free = outside[box]
    canvas.paint_box(box, canvas.coverage(vertebra) * free, body, BODY)
    arch = (1 - np.sqrt((x / (15 * s)) ** 2 + ((y + 90 * s) / (12 * s)) ** 2)) * np.float32(13 * s)
    canal = (1 - np.sqrt((x / (8.5 * s)) ** 2 + ((y + 89 * s) / (7.5 * s)) ** 2)) * np.float32(8 * s)
    spinous = np.minimum(np.minimum(3.0 * s - np.abs(x), -(y + 92 * s)), (y + 116 * s))
    gap = (phase < period * 0.36).astype(np.float32)
    canvas.paint_box(box, canvas.coverage(arch) * free * (0.4 + 0.6 * gap), marrow * 1.6, BODY)
    canvas.paint_box(box, canvas.coverage(canal + 0 * z), 25, BODY)
    canvas.paint_box(box, canvas.coverage(spinous + 0 * z) * gap, marrow * 1.5, BODY)

    lines, sizes = [], []
    heights = canvas.z[0, 0]
    for rib in range(10):
        rise = (178 - 21.5 * rib) * s
        fall = (48 + 5.5 * rib) * s
        last = 0.93 if rib < 7 else 0.93 - 0.13 * (rib - 6)
        turn = np.linspace(0.06, last, 70)
        level = rise + 6 * s - fall * turn**0.9
        scale = np.maximum(np.interp(level, heights, taper[0, 0]), 0.34)
        angle = np.pi * (turn - 0.5)
        px, py = np.cos(angle), np.sin(angle)
        depth = np.where(py > 0, front, back)
        reach = (np.abs(px) ** 2.4 / cage_x**2.4 + np.abs(py) ** 2.4 / depth**2.4) ** (-1 / 2.4)
        for sign in SIDES.values():
            wobble = rng.normal(0, 1.0)
            line = np.stack([sign * px * (reach * scale + 4.5), py * (reach * scale + 4.5), level + wobble], 1)
            dense = curve(line, 2.6)
            lines.append(dense)
            sizes.append(np.full(len(dense), 4.6 * s))
    points, radii = np.concatenate(lines), np.concatenate(sizes)
    flat, share = canvas.balls(points, radii)
    canvas.paint(flat, share, marrow + 260)
    flat, share = canvas.balls(points, radii - 2.4)
    canvas.paint(flat, share, marrow + 40)
    flat, share = canvas.balls(points, radii)
    ids = canvas.anatomy.reshape(-1)
    ids[flat[(share > 0.5)]] = BODY

    clavicles = []
    for sign in SIDES.values():
        course = np.array([[sign * 16 * s, front * 0.72, 168 * s], [sign * 55 * s, front * 0.70, 184 * s]])
        clavicles.append(curve([*course, [sign * 105 * s, front * 0.2, 208 * s]], 2.5))
    flat, share = canvas.balls(np.concatenate(clavicles), 5.2 * s)
    free = canvas.anatomy.reshape(-1)[flat] >= MEDIASTINUM
    canvas.paint(flat[free], share[free], marrow + 220, BODY)
    blade_x = np.linspace(70, 125, 26)
    for sign in SIDES.values():
        grid = np.stack(np.meshgrid(blade_x, np.linspace(85, 185, 34)), -1).reshape(-1, 2)
        grid = grid[grid[:, 0] > 70 + 0.12 * (185 - grid[:, 1])]
        depth = -(back + 13 * s) * np.sqrt(np.clip(1 - (grid[:, 0] / 165) ** 2, 0, 1)) * 0.98
        flat, share = canvas.balls(np.stack([sign * grid[:, 0] * s, depth, grid[:, 1] * s], 1), 2.3)
        body = canvas.anatomy.reshape(-1)[flat] == BODY
        canvas.paint(flat[body], share[body] * np.float32(0.8), marrow + 200)
    box, plate = canvas.ellipsoid((0, front * 0.97 + 4 * s, 108 * s), (17 * s, 7 * s, 66 * s))
    canvas.paint_box(box, canvas.coverage(np.minimum(plate, 6.0)) * (canvas.anatomy[box] != LUNG), marrow + 60, BODY)
    if patient.table:
        height = float(-(back + patient.fat_mm * 0.9 + 24 * s) - rng.uniform(2, 8))
        curvature = float(rng.uniform(0.0, 0.0012))
        sheet = 5.0 - np.abs(canvas.y - height - curvature * canvas.x**2)
        sheet = np.minimum(sheet, 190 - np.abs(canvas.x))
        shell = canvas.coverage(sheet) * (1 - 0.75 * canvas.coverage(sheet - 3.0))
        columns = shell[:, :, 0] > 0
        free = canvas.anatomy[columns] == 0
        canvas.hu[columns] += free * shell[:, :, 0][columns][:, None] * np.float32(720)
