"""The heart of a synthetic chest: its shape, epicardial fat, chambers and coronary arteries."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle.ctfindings.phantom.image.canvas import HEART, Box, Canvas, Floats, curve
from bundle.ctfindings.phantom.patient import Patient

# Centre, semi-axes in mm, and whether the ellipsoid lies along the heart's own axis, to the left, front and below.
_CHAMBERS = {
    "left ventricle": ([-24, -2, -6], [46, 34, 33], True),
    "right ventricle": ([4, 20, -6], [44, 27, 33], True),
    "right atrium": ([34, 2, 2], [23, 27, 32], False),
    "left atrium": ([6, -28, 20], [33, 20, 21], False),
}
_AXES = np.array([[-0.80, 0.45, -0.40], [0.50, 0.87, 0.0], [0.35, -0.20, 0.92]])
_AXES /= np.linalg.norm(_AXES, axis=1, keepdims=True)
_CORONARY_ROOT = [6, 6, 27]
_CORONARIES = {
    "left anterior descending artery": [_CORONARY_ROOT, [-14, 18, 26], [-24, 30, 12], [-36, 38, -4], [-48, 36, -18]],
    "circumflex artery": [_CORONARY_ROOT, [-20, -4, 28], [-36, -20, 20], [-40, -32, 4]],
}


@dataclass
class Heart:
    """The shape of a heart.

    Attributes:
        center, radii: centre in body mm and half extents in mm, (3,).
        box: the box that holds it.
        distance: signed distance in mm to its outer surface in the box, positive inside.
        chambers: signed distances in mm to the surfaces of the chambers in the box.
        scale: size relative to the drawing coordinates.
    """

    center: NDArray
    radii: NDArray
    box: Box
    distance: Floats
    chambers: dict[str, Floats]
    scale: float


def shape_heart(canvas: Canvas, patient: Patient, wall: Floats) -> Heart:
    """Four overlapping ellipsoids, cut off at the chest wall (``Chest.wall``), the spine and the diaphragm."""
    s, more = patient.size, patient.heart_scale - 1
    scale = s * patient.heart_scale
    center = np.array([-16 * s - 12 * s * more, 20 * s, 34 * s + 14 * s * more])
    radii = np.array([66, 58, 52]) * scale
    box = canvas.box(center, radii + 36 * s)
    x, y, z = canvas.axes(box)
    distance = np.full(tuple(part.stop - part.start for part in box), -99, np.float32)
    chambers: dict[str, Floats] = {}
    along = [axis[0] * x + axis[1] * y + axis[2] * z for axis in _AXES.astype(np.float32)]
    for name, (shift, semi_axes, oblique) in _CHAMBERS.items():
        at, reach = center + np.array(shift) * scale, np.array(semi_axes) * scale
        frame, middle = (along, _AXES @ at) if oblique else ((x, y, z), at)
        u, v, w = (
            ((axis - float(here)) / float(half)) ** 2 for axis, here, half in zip(frame, middle, reach, strict=True)
        )
        chambers[name] = (1 - np.sqrt(u + v + w)) * np.float32(np.cbrt(np.prod(reach)))
        distance = _joined(distance, chambers[name], np.float32(7 * scale))
    # In front of the spine, behind the sternum, on the diaphragm.
    distance = np.minimum(distance, wall[box] - 3)
    distance = np.minimum(distance, y + 42 * s)
    distance = np.minimum(distance, 0.8 * (z + 14 * s))
    return Heart(center, radii, box, distance, chambers, scale)


def _joined(first: Floats, second: Floats, width: np.float32) -> Floats:
    """The greater of two distances, with the groove between the two shapes filled over ``width`` mm."""
    overlap = np.maximum(width - np.abs(first - second), 0)
    return np.maximum(first, second) + overlap * overlap / (4 * width)


def draw_heart(
    rng: np.random.Generator, canvas: Canvas, heart: Heart, blood_hu: tuple[float, float], fat: float, soft: float
) -> None:
    """Draws epicardial fat, muscle and the blood of the left and the right chambers; ``fat`` and ``soft`` are in HU."""
    box, distance = heart.box, heart.distance
    canvas.paint_box(box, canvas.coverage(distance), soft - 6, HEART)
    cushion = float(rng.uniform(2.5, 6.5)) + 2.2 * canvas.smooth_noise(rng, 25.0, box)
    epicardial = canvas.coverage(distance - 1.3) * canvas.coverage(cushion - distance)
    canvas.paint_box(box, epicardial, fat + 15)
    for name, muscle in {
        "right ventricle": 8.0,
        "right atrium": 5.0,
        "left ventricle": 13.0,
        "left atrium": 5.0,
    }.items():
        cavity = np.minimum(heart.chambers[name] - muscle, distance - muscle)
        canvas.paint_box(box, canvas.coverage(cavity), blood_hu[name.startswith("right")])


def coronary_courses(heart: Heart) -> dict[str, NDArray]:
    """Centre lines in body mm of the coronary arteries in the grooves of the heart surface."""
    courses = {name: heart.center + np.array(points) * heart.scale for name, points in _CORONARIES.items()}
    root = heart.center + np.array(_CORONARY_ROOT) * heart.scale
    right = heart.center + np.array([[28, 28, 16], [34, 26, -2], [26, 14, -26]]) * heart.scale
    courses["right coronary artery"] = np.array([root + np.array([4, 6, -2]) * heart.scale, *right])
    return {name: curve(course, 1.5) for name, course in courses.items()}
