"""The healthy chest of a synthetic patient: organs in HU, the anatomy mask, and where findings can be placed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle.ctfindings.phantom.image.canvas import LUNG, MEDIASTINUM, SIDES, Canvas, Floats
from bundle.ctfindings.phantom.image.great_vessels import GreatVessels, draw_great_vessels
from bundle.ctfindings.phantom.image.heart import Heart, coronary_courses, draw_heart, shape_heart
from bundle.ctfindings.phantom.image.lung_field import LungField, sample_spots
from bundle.ctfindings.phantom.image.parenchyma import draw_parenchyma
from bundle.ctfindings.phantom.image.skeleton import draw_skeleton
from bundle.ctfindings.phantom.image.torso import draw_torso, shape_torso
from bundle.ctfindings.phantom.image.variants import draw_variants
from bundle.ctfindings.phantom.image.vessels import draw_bronchi_and_vessels
from bundle.ctfindings.phantom.patient import Patient


@dataclass
class Chest(LungField):
    """A drawn chest and the geometry that findings need; ``coronaries`` are centre lines in body mm."""

    patient: Patient
    heart: Heart
    coronaries: dict[str, NDArray]
    vessels: GreatVessels


def draw_chest(rng: np.random.Generator, patient: Patient) -> Chest:
    """Draws a chest without findings; the heart's size is the patient's ``heart_scale``."""
    canvas = Canvas.of_patient(patient)
    s = patient.size
    x, y, z = canvas.x, canvas.y, canvas.z
    soft = float(rng.uniform(42, 58)) + (12 if patient.contrast else 0)
    fat = float(rng.uniform(-112, -92))
    texture = canvas.smooth_noise(rng, 12.0)
    torso = shape_torso(rng, canvas, patient)
    draw_torso(rng, canvas, patient, torso, fat, soft, texture)
    wall = torso.wall

    # The thoracic cavity: lungs, between them the mediastinum, below the domes the abdomen.
    lift = 26 * s * (0.75 - patient.inspiration)
    domes = [
        top - 62 * s * ((x - sign * 68 * s) / (74 * s)) ** 2
        for top, sign in ((12 * s + lift + rng.uniform(-6, 10), 1), (lift + rng.uniform(-8, 8), -1))
    ]
    behind = ((y + 4 * s) / (100 * s)) ** 2
    surface = np.maximum(domes[0], domes[1]) - 62 * s * behind
    surface = np.maximum(surface, -4 * s - 0.004 * x**2 - 45 * s * np.minimum(behind, 2.25))
    dome = (z - np.maximum(surface, -66 * s)) * np.float32(0.85)
    # Half the width of the mediastinum by y in mm, from the spine to the sternum.
    profile = np.interp(np.arange(-130, 131), [-95, -62, -45, -5, 25, 52, 90], [24, 23, 21, 27, 24, 8, 3]).astype(
        np.float32
    )
    profile *= np.float32(s * rng.uniform(0.85, 1.2))
    gap = profile[np.clip(y / np.float32(s) + 130, 0, 260).astype(np.int16)]
    gap *= 1 + 0.25 * np.clip((z - 140 * s) / (60 * s), 0, 1)
    lung = np.minimum(np.minimum(wall - 2.0, dome), np.abs(x) - gap)

    heart = shape_heart(canvas, patient, wall)
    lung[heart.box] = np.minimum(lung[heart.box], -heart.distance - 1.5)
    plump = float(rng.uniform(0.5, 1.0)) + 0.012 * patient.fat_mm
    for sign in SIDES.values():
        # Fat in the angle between heart and diaphragm.
        corner = (sign * rng.uniform(38, 58) * s - 8 * s, 50 * s, 2 * s)
        box, pad = canvas.ellipsoid(corner, np.array([24, 20, 20]) * s * plump * rng.uniform(0.6, 1.1))
        lung[box] = np.minimum(lung[box], -pad)

    hu = canvas.hu
    cavity = wall > 0
    canvas.anatomy[cavity & (dome > 0)] = MEDIASTINUM
    hu += canvas.coverage(wall) * (fat + 9 * texture - hu)
    _abdomen(rng, canvas, patient, wall, dome, soft)
    draw_parenchyma(rng, canvas, patient, lung, wall, texture)
    canvas.anatomy[lung > 0] = LUNG

    draw_heart(rng, canvas, heart, patient.blood_hu, fat, soft)
    vessels = draw_great_vessels(rng, canvas, patient, heart, soft)
    lung = np.where(canvas.anatomy == LUNG, lung, np.minimum(lung, -0.5))
    spots = sample_spots(rng, canvas, lung, s)
    bronchi, lumen = draw_bronchi_and_vessels(rng, canvas, patient, spots, vessels.hila, soft)
    draw_variants(rng, canvas, patient, vessels, bronchi, soft)
    draw_skeleton(rng, canvas, patient, torso)
    field = (canvas, s, patient.contrast, lung, wall, dome, vessels.hila, bronchi, lumen, spots)
    return Chest(*field, patient, heart, coronary_courses(heart), vessels)


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
