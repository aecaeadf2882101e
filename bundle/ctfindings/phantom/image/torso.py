"""The trunk of a synthetic patient: skin, fat, breasts, muscle, shoulders and arms around the rib cage."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bundle.ctfindings.phantom.image.canvas import BODY, SIDES, Canvas, Floats
from bundle.ctfindings.phantom.patient import Patient

# Radii in mm by the angle from the front, 0 to 180 degrees, of an average adult: the inner chest wall, and the outer
# surface of the muscles at the shoulders and at the neck.
_ANGLES = [0, 15, 30, 45, 60, 75, 90, 105, 120, 135, 150, 165, 180]
_CAGE = [66, 70, 82, 97, 113, 126, 132, 132, 126, 116, 107, 99, 90]
_SHOULDERS = [52, 58, 76, 104, 138, 164, 174, 168, 150, 130, 114, 106, 102]
_FROM_BACK = np.arange(-180, 181) % 360
_NECK = [52, 53, 55, 57, 58, 58, 58, 59, 62, 66, 70, 74, 76]


@dataclass
class Torso:
    """The trunk around the rib cage.

    Attributes:
        wall: depth under the inner chest wall in mm, (X, Y, Z).
        skin: depth under the skin in mm, (X, Y, Z).
        muscle: depth under the surface of the muscles in mm, (X, Y, Z).
        cage, outer: radii in mm of the inner chest wall and of the muscles, by degree (0 in front, clockwise seen from
            above the head is positive to the right) and image, (360, Z).
    """

    wall: Floats
    skin: Floats
    muscle: Floats
    cage: Floats
    outer: Floats

    def radius(self, table: Floats, angle: ArrayLike, level: NDArray) -> NDArray:
        """Values of a table of radii at angles in degrees and levels, numbers of images."""
        column = np.clip(np.rint(level).astype(int), 0, table.shape[1] - 1)
        return table[np.rint(angle).astype(int) % 360, column].astype(np.float64)


def shape_torso(rng: np.random.Generator, canvas: Canvas, patient: Patient) -> Torso:
    """Outlines of chest wall, muscles and skin as radii by angle and level."""
    s = patient.size
    signed = np.arange(360.0)[:, None]
    a = np.minimum(signed, 360 - signed)
    h = (canvas.z[0] / s).astype(np.float64)

    def bump(value: NDArray, middle: float, width: float) -> NDArray:
        return np.exp(-(((value - middle) / width) ** 2))

    def step(low: float, high: float) -> NDArray:
        share = np.clip((h - low) / (high - low), 0, 1)
        return share * share * (3 - 2 * share)

    cosine, sine = np.cos(np.deg2rad(signed)), np.sin(np.deg2rad(signed))
    uneven = 1 + sum(
        rng.normal(0, 0.012 / k) * np.cos(np.deg2rad(k * signed) + rng.uniform(0, 6.3)) for k in (1, 2, 3, 5)
    )
    stretch = uneven / np.sqrt((sine / patient.wide) ** 2 + (cosine / patient.deep) ** 2)
    back = np.sqrt(1 - np.clip((h - 50) / 155, 0, 1) ** 2.6)
    front = np.sqrt(1 - np.clip((h - 25) / 180, 0, 1) ** float(rng.uniform(1.6, 2.2)))
    ahead = np.clip(cosine, 0, 1)
    narrowing = 1 - 0.06 * np.clip(-h / 60, 0, 1)
    cage = np.interp(a, _ANGLES, _CAGE) * s * stretch * (back + (front - back) * ahead) * narrowing

    strong = patient.muscle
    thick = strong * (10 + 11 * bump(a, 38, 22) * bump(h, 118, 42) + 8 * bump(a, 108, 24) * bump(h, 70, 75))
    thick = thick + strong * 18 * bump(a, 132, 24) * bump(h, 145, 55) + 26 * np.clip((a - 138) / 24, 0, 1)
    rounded = np.interp(a, _ANGLES, _SHOULDERS) * (1 + 0.08 * (strong - 1))
    neck = np.interp(a, _ANGLES, _NECK)
    top = 240 if patient.arms_up else 222
    girdle = rounded + (neck - rounded) * step(top - 50, top)
    outer = np.maximum(cage + thick * s, girdle * s * step(70, 160))
    belly = 1.15 - 0.4 * step(-40, 110)
    fat = patient.fat_mm * (belly * (0.75 + 0.3 * bump(a, 125, 40)) + 0.25 * bump(a, 25, 40) * (1 - step(-30, 60)))
    fat = fat * (1 - 0.45 * step(170, 230)) + 2
    sag = float(rng.uniform(38, 58))
    breast = patient.breast_mm * bump(a, sag, 21) * np.exp(-(((h - 68) / np.where(h > 68, 52, 34)) ** 2))
    skin = outer + fat + breast

    # Row of the tables that begin at the back, and from it the place in the flat table.
    degree = ((np.arctan2(canvas.x, canvas.y) + np.float32(np.pi)) * np.float32(180 / np.pi)).astype(np.int32)
    degree *= h.shape[1]
    degree += np.arange(h.shape[1], dtype=np.int32)
    away = np.sqrt(canvas.x**2 + canvas.y**2)
    tables = [table.astype(np.float32) for table in (cage, skin, outer)]
    wall, depth, muscle = ((table[_FROM_BACK].ravel()[degree] - away) * np.float32(0.93) for table in tables)
    return Torso(wall, depth, muscle, tables[0], tables[2])


def draw_torso(
    rng: np.random.Generator, canvas: Canvas, patient: Patient, torso: Torso, fat: float, soft: float, texture: Floats
) -> None:
    """Draws skin, fat with its septa, breasts and muscles with the fat between them; ``fat``, ``soft`` are in HU."""
    s, hu = patient.size, canvas.hu
    inside = canvas.coverage(torso.skin)
    hu += inside * (fat + 11 * texture + 1000)
    hu += inside * (torso.skin < 2.0) * (0.6 * (20 - fat))
    share = canvas.coverage(torso.muscle)
    # Fat between the intercostal muscles and the outer ones, and streaks of fat in these.
    between = canvas.coverage(0.9 * s + 0.5 * texture - np.abs(torso.wall + 13 * s))
    share *= 1 - np.float32(0.75) * between
    share *= np.where(texture > 1.35, np.float32(0.5), np.float32(1))
    hu += share * (soft + 4 * texture - hu)
    canvas.anatomy[torso.skin > 0] = BODY
    if patient.breast_mm > 10:
        _draw_glands(rng, canvas, patient, torso, soft)
    _draw_arms(rng, canvas, patient, fat, soft)


def _draw_glands(rng: np.random.Generator, canvas: Canvas, patient: Patient, torso: Torso, soft: float) -> None:
    """Strands of gland in the fat of the breasts."""
    s, density = patient.size, float(rng.uniform(-0.6, 1.2))
    for sign in SIDES.values():
        box = canvas.box((sign * 80 * s, 95 * s, 62 * s), (52 * s, 62 * s, 48 * s))
        x, _, z = canvas.axes(box)
        round_about = np.clip(2 - 2 * np.hypot((x - sign * 80 * s) / (52 * s), (z - 62 * s) / (48 * s)), 0, 1)
        between = np.minimum(torso.skin[box] - 6, -torso.muscle[box] - 4)
        strands = canvas.smooth_noise(rng, 9.0, box) - (1 - round_about) > density
        canvas.paint_box(box, canvas.coverage(between) * strands * np.float32(0.85), soft - 15)


def _draw_arms(rng: np.random.Generator, canvas: Canvas, patient: Patient, fat: float, soft: float) -> None:
    """Upper arms beside the head or beside the trunk: fat, muscle and the humerus."""
    s = patient.size
    for sign in SIDES.values():
        shoulder = np.array([sign * 158 * s, -22 * s, 186 * s])
        if patient.arms_up:
            end = np.array([sign * rng.uniform(115, 160) * s, rng.uniform(-10, 40) * s, 330 * s])
        else:
            shoulder[2] -= 14 * s
            # Arms beside the trunk stand off for the fat of both.
            end = np.array([sign * (176 * s + 1.5 * patient.fat_mm), rng.uniform(-30, 10) * s, -90 * s])
        radius = (34 + 6 * (patient.muscle - 1)) * s
        for reach, value in (
            (radius + 0.7 * patient.fat_mm, fat),
            (radius, soft),
            (13.0 * s, float(rng.uniform(700, 1100))),
            (9.0 * s, float(rng.uniform(-20, 150))),
        ):
            box, distance = canvas.capsule(shoulder, end, reach)
            share = canvas.coverage(distance)
            if value == fat:
                share *= canvas.anatomy[box] == 0
            canvas.paint_box(box, share, value, BODY)
        # The head of the humerus in its socket.
        box, head = canvas.ellipsoid(shoulder, 23 * s, margin=2)
        canvas.paint_box(box, canvas.coverage(head), float(rng.uniform(450, 800)), BODY)
        canvas.paint_box(box, canvas.coverage(head - 2.5), float(rng.uniform(120, 260)))
