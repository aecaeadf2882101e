"""What lies around a patient and is not a finding: the table, electrodes and wires on the skin, metal of clothing."""

import numpy as np
from numpy.typing import NDArray

from bundle.ctfindings.phantom.image.canvas import SIDES, Canvas, curve
from bundle.ctfindings.phantom.patient import Patient


def draw_surroundings(rng: np.random.Generator, canvas: Canvas, patient: Patient) -> None:
    """Draws table, mattress, electrodes with wires and metal of clothing, each in some of the scans."""
    if patient.table:
        _draw_table(rng, canvas)
    if rng.random() < 0.25:
        _draw_electrodes(rng, canvas, patient)
    if rng.random() < (0.2 if patient.sex == "F" else 0.08):
        _draw_clothing(rng, canvas, patient)


def skin_points(canvas: Canvas, x: NDArray, z: NDArray) -> NDArray:
    """The points of the skin in front at body x and z in mm, (N, 3)."""
    levels = np.clip(np.rint((z - canvas.corner[2]) / canvas.spacing[2]).astype(int), 0, canvas.shape[2] - 1)
    middle = canvas.shape[1] // 2
    columns = np.clip(np.rint(canvas.index(np.stack([x, 0 * x, z], 1))[:, 0]).astype(int), 0, canvas.shape[0] - 1)
    covered = canvas.anatomy[columns, :, levels] > 0
    front = np.where(covered.any(1), covered.shape[1] - 1 - covered[:, ::-1].argmax(1), middle)
    return np.stack([x, canvas.y[columns, front, levels] + 0.5 * canvas.spacing[1], z], 1)


def _draw_table(rng: np.random.Generator, canvas: Canvas) -> None:
    """A shell filled with foam, under a mattress, with rails or cables of metal in some scans."""
    occupied = np.flatnonzero((canvas.anatomy > 0).any((0, 2)))
    mattress = float(rng.uniform(3, 22))
    # The table is level: its height counts in the scanner's coordinates, not along the bent body.
    rows = canvas.corner[1] + np.arange(canvas.shape[1]) * canvas.spacing[1]
    columns = canvas.corner[0] + np.arange(canvas.shape[0]) * canvas.spacing[0]
    top = rows[occupied[0]] - mattress
    curvature = float(rng.choice([0.0, rng.uniform(0.0004, 0.0022)]))
    half = float(rng.uniform(170, 230))
    thick = float(rng.uniform(10, 45))
    x, y = np.meshgrid(columns, rows, indexing="ij")
    surface = top + curvature * x**2
    lower = surface - thick * (np.sqrt(np.clip(1 - (x / half) ** 2, 0, 1)) if rng.random() < 0.5 else 1.0)
    body = np.minimum(np.minimum(surface - y, y - lower), half - np.abs(x))
    wall = float(rng.uniform(1.5, 4))
    plane = np.full(x.shape, -1000.0)
    pad = np.minimum(np.minimum(y - surface, surface + mattress - y), half - np.abs(x))
    plane += canvas.coverage(pad) * rng.uniform(5, 90)
    plane += canvas.coverage(body) * (rng.uniform(30, 120) - 1000 - plane)
    plane += canvas.coverage(np.minimum(body, wall - body)) * (rng.uniform(-500, 250) - plane)
    for _ in range(int(rng.integers(0, 5))):
        at = rng.uniform(-0.95, 0.95) * half
        rail = float(rng.uniform(1, 4)) - np.hypot(x - at, y - (top + curvature * at**2 - rng.uniform(2, 60)))
        plane += canvas.coverage(rail) * (rng.uniform(0, 2200) - plane)
    free = canvas.anatomy == 0
    reach = slice(0, int(np.searchsorted(rows, top + mattress + curvature * (0.5 * half) ** 2 + 40)))
    view = canvas.hu[:, reach]
    view[free[:, reach]] = np.maximum(view, plane[:, reach, None])[free[:, reach]]


def _draw_electrodes(rng: np.random.Generator, canvas: Canvas, patient: Patient) -> None:
    """Three to six electrodes on the chest with a snap of metal, and their wires on the skin."""
    s = patient.size
    count = int(rng.integers(3, 7))
    x, z = rng.uniform(-110, 110, count) * s, rng.uniform(0, 170, count) * s
    spots = skin_points(canvas, x, z)
    gel = float(rng.uniform(50, 300))
    canvas.paint_balls(np.repeat(spots, 5, 0) + rng.normal(0, 1, (5 * count, 3)) * [6, 0.5, 6], 3.0, gel)
    canvas.paint_balls(spots + [0, 2, 0], float(rng.uniform(2.0, 3.5)), float(rng.uniform(900, 3000)))
    if rng.random() < 0.8:
        bundle = [rng.uniform(-60, 60) * s, rng.choice([-60, 230]) * s]
        for spot in spots:
            ends = np.linspace([spot[0], spot[2]], bundle, 14) + rng.normal(0, 5, (14, 2))
            line = skin_points(canvas, ends[:, 0], ends[:, 1]) + [0, 2.5, 0]
            canvas.paint_balls(curve(line, 1.5), float(rng.uniform(0.8, 1.4)), float(rng.uniform(400, 2800)))


def _draw_clothing(rng: np.random.Generator, canvas: Canvas, patient: Patient) -> None:
    """A chain at the neck, a row of buttons or a zip, or, under the breasts, wires of a bra."""
    s = patient.size
    kind = str(rng.choice(["bra", "chain", "buttons"], p=[0.6, 0.25, 0.15] if patient.sex == "F" else [0, 0.6, 0.4]))
    hu = float(rng.uniform(900, 3000))
    if kind == "bra":
        arc = np.linspace(np.pi, 2 * np.pi, 40)
        for sign in SIDES.values():
            x, z = (sign * 72 + 52 * np.cos(arc)) * s, (72 + 46 * np.sin(arc)) * s
            canvas.paint_balls(curve(skin_points(canvas, x, z), 1.5), float(rng.uniform(0.9, 1.5)), hu)
    elif kind == "chain":
        x = np.linspace(-62, 62, 60) * s
        line = skin_points(canvas, x, 205 * s - (62 * s - np.abs(x)) * rng.uniform(0.3, 1.0))
        canvas.paint_balls(curve(line, 1.5), float(rng.uniform(0.7, 1.2)), hu)
    else:
        z = np.arange(-40, 190, rng.uniform(4, 70)) * s
        canvas.paint_balls(skin_points(canvas, 0 * z, z) + [0, 3, 0], float(rng.uniform(1.2, 4)), hu)
