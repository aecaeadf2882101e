"""What a healthy chest may show and a reader must not take for a finding: nodes and calcium."""

import numpy as np

from bundle.ctfindings.phantom.image.canvas import MEDIASTINUM, SIDES, Canvas
from bundle.ctfindings.phantom.image.great_vessels import GreatVessels
from bundle.ctfindings.phantom.image.vessels import Branch
from bundle.ctfindings.phantom.patient import Patient


def draw_variants(
    rng: np.random.Generator,
    canvas: Canvas,
    patient: Patient,
    vessels: GreatVessels,
    bronchi: list[Branch],
    soft: float,
) -> None:
    """Draws lymph nodes of normal size, calcified in some patients, and calcium in the cartilage of the airways."""
    s = patient.size
    stations = np.array([[17, -4, 136], [3, -24, 92], [-16, 36, 118], [14, -2, 120], [-12, -8, 112], [8, 30, 140]]) * s
    hila = np.array([vessels.hila[side] + [4 * sign, -6, -10] for side, sign in SIDES.items()])
    centers = np.concatenate([stations, hila])[rng.random(8) < 0.6]
    centers = centers + rng.normal(0, 4, centers.shape)
    calcified = rng.random(len(centers)) < (0.5 if rng.random() < 0.12 else 0.0)
    for center, dense in zip(centers, calcified, strict=True):
        # The short axis of a normal node is below 10 mm.
        box, distance = canvas.ellipsoid(center, rng.uniform(1.8, 4.2) * np.array([1, 1, rng.uniform(1, 1.8)]))
        free = (canvas.anatomy[box] == MEDIASTINUM) & (canvas.hu[box] > -200)
        hu = float(rng.uniform(250, 900)) if dense else soft - float(rng.uniform(0, 15))
        canvas.paint_box(box, canvas.coverage(distance) * free, hu)
    if rng.random() < np.clip(0.02 * (patient.age - 55), 0, 0.5):
        large = [branch for branch in bronchi if branch.generation <= 1]
        points = np.concatenate([branch.points for branch in large])
        radii = np.concatenate([branch.radii for branch in large])
        chosen = rng.random(len(points)) < 0.3
        around = rng.normal(0, 1, (int(chosen.sum()), 3))
        around /= np.linalg.norm(around, axis=1, keepdims=True)
        spots = points[chosen] + around * (radii[chosen, None] + 0.7)
        canvas.paint_balls(spots, 0.9, float(rng.uniform(250, 700)), canvas.anatomy == MEDIASTINUM)
