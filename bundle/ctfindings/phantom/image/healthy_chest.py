"""The healthy chest of a synthetic patient: organs in HU, the anatomy mask, and where findings can be placed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle.ctfindings.phantom.image.canvas import BODY, LUNG, MEDIASTINUM, Canvas, Floats
from bundle.ctfindings.phantom.image.great_vessels import GreatVessels, draw_great_vessels
from bundle.ctfindings.phantom.image.heart import Heart, coronary_courses, draw_heart, shape_heart
from bundle.ctfindings.phantom.image.skeleton import draw_skeleton
from bundle.ctfindings.phantom.image.vessels import Branch, Spots, draw_bronchi_and_vessels
from bundle.ctfindings.phantom.patient import Patient


@dataclass
class Chest:
    """A drawn chest and the geometry that findings need.

    Attributes:
        lung: signed distance to the lung surface in mm, positive inside, approximate, (X, Y, Z).
        wall: depth under the inner chest wall in mm, (X, Y, Z).
        dome: height over the diaphragm in mm, (X, Y, Z).
        coronaries: centre lines in body mm.
        lumen: flat voxel indices and shares of the air in the bronchi.
        spots: sample of lung points to place findings at.
    """

    canvas: Canvas
    patient: Patient
    lung: Floats
    wall: Floats
    dome: Floats
    heart: Heart
    coronaries: dict[str, NDArray]
    vessels: GreatVessels
    bronchi: list[Branch]
    lumen: tuple[NDArray[np.int64], Floats]
    spots: Spots


def lobe_of(points: NDArray, size: float) -> NDArray[np.str_]:
    """Names of the lobes that body points (N, 3) lie in, from the planes of the fissures."""
    x, y, z = points.T / size
    middle = np.where(x > 0, "middle lobe", "lingula")
    return np.where(z < 48 - 0.78 * y, "lower lobe", np.where(z < 78, middle, "upper lobe"))


def draw_chest(rng: np.random.Generator, patient: Patient) -> Chest:
    """Draws a chest without findings; the heart's size is the patient's ``heart_scale``."""
    canvas = Canvas(patient)
    s = patient.size
    x, y, z = canvas.x, canvas.y, canvas.z
    soft = float(rng.uniform(42, 58)) + (12 if patient.contrast else 0)
    fat = float(rng.uniform(-110, -90))
    apex = 205.0 * s

    # Torso and rib cage are 2D outlines, scaled along z; a distance is (scale - outline) * radius.
    wide = float(rng.uniform(0.96, 1.04))
    deep = float(rng.uniform(0.93, 1.08))
    cage_x, cage_front, cage_back = 130 * s * wide, 74 * s * deep, 88 * s * deep
    cage_y = np.where(y > 0, cage_front, cage_back)
    outline = (np.abs(x / cage_x) ** 2.4 + np.abs(y / cage_y) ** 2.4) ** np.float32(1 / 2.4)
    rise = np.clip((z - 50 * s) / (apex - 50 * s), 0, 1)
    taper = np.sqrt(np.clip(1 - rise**2.6, 0, 1)) * (1 - 0.05 * np.clip(-z / 60, 0, 1))
    radius2d = (np.sqrt(x**2 + y**2) / np.maximum(outline, 1e-3)).astype(np.float32)
    wall = (taper.astype(np.float32) - outline.astype(np.float32)) * radius2d

    muscle = 13 * s + (5 if patient.sex == "M" else 0)
    front = 0.35 * np.clip(y / 80, -1, 1) * (1 if patient.sex == "F" else 0.3)
    fat_2d = patient.fat_mm * (0.75 + 0.5 * np.clip(np.abs(x) / cage_x, 0, 1) ** 2 + front)
    breadth = np.maximum(taper, 0.80 - 0.12 * np.clip((z - 0.92 * apex) / 40, 0, 1)).astype(np.float32)
    torso = (breadth - outline.astype(np.float32)) * radius2d + muscle
    skin = torso + fat_2d.astype(np.float32)
    inside = canvas.coverage(skin)
    texture = canvas.smooth_noise(rng, 14.0)
    hu = canvas.hu
    hu += inside * (fat + 12 * texture + 1000)
    hu += inside * (skin < 2.2) * (0.5 * (10 - fat))
    hu += canvas.coverage(torso) * (soft - fat - 18) * np.where(texture > 1.3, 0.45, 1.0).astype(np.float32)
    canvas.anatomy[skin > 0] = BODY

    # The thoracic cavity: lungs, between them the mediastinum, below the domes the abdomen.
    right_top, left_top = 12 * s + rng.uniform(-6, 8), rng.uniform(-6, 6)
    domes = [
        top - 62 * s * (((x - sign * 68 * s) / (74 * s)) ** 2 + ((y + 4 * s) / (100 * s)) ** 2)
        for top, sign in ((right_top, 1), (left_top, -1))
    ]
    saddle = -4 * s - 0.004 * x**2 - 45 * s * np.clip(np.abs(y + 4 * s) / (100 * s), 0, 1.5) ** 2
    surface = np.maximum(np.maximum(domes[0], domes[1]), saddle)
    dome = (z - np.maximum(surface, -66 * s)) * np.float32(0.85)
    profile = np.interp(y / s, [-95, -62, -45, -5, 25, 52, 90], [27, 25, 21, 27, 24, 8, 5]).astype(np.float32) * s
    profile = profile * float(rng.uniform(0.9, 1.15))
    gap = profile * (1 + 0.25 * np.clip((z - 140 * s) / (60 * s), 0, 1)).astype(np.float32)
    lung = np.minimum(np.minimum(wall - 2.0, dome), np.abs(x) - gap)

    heart = shape_heart(canvas, patient, wall)
    lung[heart.box] = np.minimum(lung[heart.box], -heart.distance - 1.5)

    cavity = wall > 0
    canvas.anatomy[cavity & (dome > 0)] = MEDIASTINUM
    hu += canvas.coverage(wall) * (fat + 12 * texture - hu)
    _abdomen(rng, canvas, patient, wall, dome, soft)
    share = canvas.coverage(lung)
    gravity = np.clip((-y - 5) / 80, -0.9, 1) * float(rng.uniform(15, 45))
    patchy = canvas.smooth_noise(rng, 32.0)
    aerated = (patient.lung_hu + gravity).astype(np.float32) + np.float32(9) * patchy + np.float32(7) * texture
    hu += share * (aerated - hu)
    canvas.anatomy[lung > 0] = LUNG

    draw_heart(rng, canvas, heart, patient.blood_hu, fat, soft)
    vessels = draw_great_vessels(rng, canvas, patient, heart, soft)
    lung = np.where(canvas.anatomy == LUNG, lung, np.minimum(lung, -0.5))
    spots = _sample_spots(rng, canvas, lung, s)
    bronchi, lumen = draw_bronchi_and_vessels(rng, canvas, patient, spots, vessels.hila, soft)
    draw_skeleton(rng, canvas, patient, cage_x, cage_front, cage_back, taper)
    return Chest(canvas, patient, lung, wall, dome, heart, coronary_courses(heart), vessels, bronchi, lumen, spots)


def _abdomen(
    rng: np.random.Generator, canvas: Canvas, patient: Patient, wall: Floats, dome: Floats, soft: float
) -> None:
    """Liver, spleen and stomach with its gas bubble under the domes."""
    s = patient.size
    boost = float(rng.uniform(20, 60)) if patient.contrast else 0.0
    low = canvas.box((0, 0, -60 * s), (160 * s, 110 * s, 85 * s))
    under, edge = -dome[low] - 2.0, wall[low] - 2.5
    room = np.minimum(under, edge)
    organs = (
        ((62 * s, -2 * s, -60 * s), (88 * s, 84 * s, 82 * s), float(rng.uniform(45, 65)) + boost),
        ((-82 * s, -42 * s, -48 * s), (40 * s, 42 * s, 50 * s), float(rng.uniform(42, 54)) + boost),
        ((-58 * s, 22 * s, -44 * s), (46 * s, 44 * s, 46 * s), float(rng.uniform(15, 45))),
    )
    for number, (center, radii, hu) in enumerate(organs):
        x, y, z = (axis - middle for axis, middle in zip(canvas.axes(low), center, strict=True))
        distance = (1 - np.sqrt((x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2)) * np.float32(radii[0])
        share = canvas.coverage(np.minimum(distance, room))
        canvas.paint_box(low, share, hu)
        if number == 2:
            # Gas rises to the front of a patient who lies on the back.
            level = float(rng.uniform(6, 40)) * s
            gas = np.minimum(np.minimum(distance - 4, y - (radii[1] - level)), room - 4)
            canvas.paint_box(low, canvas.coverage(gas), -960)
    crus = np.minimum(3.0 - np.abs(dome[low] + 1.5), edge)
    canvas.paint_box(low, canvas.coverage(crus) * np.float32(0.7), soft)


def _sample_spots(rng: np.random.Generator, canvas: Canvas, lung: Floats, size: float) -> Spots:
    """Draws 12,000 points at least 1.5 mm under the lung surface."""
    flat = rng.choice(np.flatnonzero(lung.reshape(-1) > 1.5), 12000)
    points = canvas.body(flat)
    heights = points[:, 2]
    return Spots(
        points=points,
        depth=lung.reshape(-1)[flat],
        side=np.where(points[:, 0] > 0, "right", "left"),
        lobe=lobe_of(points, size),
        height=((heights - heights.min()) / (heights.max() - heights.min())).astype(np.float32),
    )
