"""The great vessels and the oesophagus of a synthetic chest."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bundle.ctfindings.phantom.image.canvas import (
    AORTA,
    BODY,
    ESOPHAGUS,
    HEART,
    LUNG,
    MEDIASTINUM,
    Canvas,
    tapered_curve,
)
from bundle.ctfindings.phantom.image.heart import Heart
from bundle.ctfindings.phantom.patient import Patient


@dataclass
class GreatVessels:
    """Centre lines in body mm.

    The parts of the aorta have points (N, 3) and radii (N,). ``vena_cava`` has points of the superior one, (N, 3), and
    ``hila`` the hilum of each side, (3,).
    """

    aorta: dict[str, tuple[NDArray, NDArray]]
    vena_cava: NDArray
    hila: dict[str, NDArray]


def draw_great_vessels(
    rng: np.random.Generator, canvas: Canvas, patient: Patient, heart: Heart, soft: float
) -> GreatVessels:
    """Draws caval veins, pulmonary trunk, aorta with its branches and oesophagus; ``soft`` is soft tissue in HU."""
    s = patient.size
    left, right = patient.blood_hu
    aorta, arch = _aorta(rng, patient, heart)

    def tube(line: ArrayLike, radii: list[float], hu: float, anatomy: int = MEDIASTINUM) -> NDArray:
        line = np.asarray(line, np.float64)
        sizes = np.interp(np.linspace(0, 1, len(line)), np.linspace(0, 1, len(radii)), radii) * s
        points, sizes = tapered_curve(line, sizes, 2.0)
        flat, share = canvas.balls(points, sizes)
        if anatomy == MEDIASTINUM:
            keep = canvas.anatomy.reshape(-1)[flat] != HEART
            flat, share = flat[keep], share[keep]
        canvas.paint(flat, share, hu, anatomy)
        return points

    # Veins first, then arteries over them.
    line_x = 30 * s + rng.normal(0, 2 * s)
    low_cava = [[line_x, 16 * s, 128 * s], [line_x, 10 * s, 96 * s], [line_x, 8 * s, 62 * s]]
    vena_cava = tube([[20 * s, 12 * s, 190 * s], [24 * s, 18 * s, 160 * s], *low_cava], [6.5, 9.5], patient.inflow_hu)
    # Contrast comes in from one arm; the vein of the other side is plain.
    plain = min(right, 60.0 if patient.inflow_hu > right else right)
    inflow = [patient.inflow_hu, plain] if rng.random() < 0.5 else [plain, patient.inflow_hu]
    tube(np.array([[-60, 22, 196], [-28, 30, 168], [4, 30, 155], [24, 20, 148]]) * s, [6.0], inflow[0])
    tube(np.array([[72, 18, 194], [40, 14, 180], [22, 14, 170]]) * s, [6.0], inflow[1])
    tube(np.array([[24, 0, 30], [22, -6, -5], [18, -14, -90]]) * s, [11.0], min(right * 0.6 + 18, 140.0), BODY)
    azygos = np.array([[8, -46, -80], [9, -46, 60], [12, -42, 110], [24, -12, 118]]) * s
    tube([*azygos, [line_x, 6 * s, 112 * s]], [3.6], min(right * 0.5 + 20, 130.0))
    trunk = np.array([[-14, 12, 30], [-18, 28, 84], [-18, 10, 98]]) * s
    trunk[0] += heart.center
    tube(trunk, [13.0], right)
    hila = {"right": np.array([46 * s, -14 * s, 86 * s]), "left": np.array([-46 * s, -16 * s, 92 * s])}
    tube([trunk[-1], [6 * s, -2 * s, 94 * s], [26 * s, -8 * s, 92 * s], hila["right"]], [12.0, 8.0], right)
    tube([trunk[-1], [-30 * s, -6 * s, 100 * s], hila["left"]], [12.0, 8.5], right)
    ends = np.array([[20, 10, 190], [-8, 2, 200], [-26, -10, 200]]) * s
    for begin, end in zip((arch[0] * 0.5 + arch[1] * 0.5, arch[1], arch[2]), ends, strict=True):
        tube([begin, (begin + end) / 2 + np.array([0, 3, 0]), end], [6.0, 4.2], left)
    for points, radii in aorta.values():
        flat, share = canvas.balls(points, radii)
        canvas.paint(flat, share, left, AORTA)
        flat, share = canvas.balls(points, radii + 1.5)
        ring = canvas.anatomy.reshape(-1)[flat] == LUNG
        canvas.paint(flat[ring], share[ring], soft, AORTA)
    esophagus = np.array(
        [[-3, -26, 225], [-4, -32, 160], [-4, -36, 110], [-2, -36, 70], [-5, -34, 30], [-14, -26, 2], [-28, -12, -22]]
    )
    esophagus = esophagus * s + np.concatenate([[[0, 0, 0]], rng.normal(0, 1.5 * s, (6, 3))])
    points = tube(esophagus, [6.0, 6.5, 7.5], soft - 5, ESOPHAGUS)
    if rng.random() < 0.5:
        start = int(rng.integers(0, len(points) // 2))
        bubble = points[start : start + int(rng.integers(3, 22))]
        canvas.paint_balls(bubble, float(rng.uniform(2.0, 4.0)), -800)
    return GreatVessels(aorta, vena_cava, hila)


def _aorta(
    rng: np.random.Generator, patient: Patient, heart: Heart
) -> tuple[dict[str, tuple[NDArray, NDArray]], NDArray]:
    """The parts of the aorta, and the points that the arch is drawn through."""
    s = patient.size
    wide = float(rng.uniform(0.9, 1.15)) * (1 + 0.004 * (patient.age - 55)) * s
    top = 132 * s + rng.uniform(-6, 6)
    bends = rng.normal(0, 2 * s, (2, 3))
    ascending = np.array([[14, 2, 22], [8, 26, 82], [12, 24, 105], [8, 14, -6]]) * s
    ascending[0] += heart.center
    ascending[1:3] += bends
    ascending[3, 2] += top
    arch = np.array([[0, 0, 0], [-4, 2, 0], [-16, -18, 0], [-24, -34, -14]]) * s
    arch[0] = ascending[-1]
    arch[1:, 2] += top
    lower = np.array([[-27, -46, 98], [-26, -50, 55], [-18, -47, 5], [-6, -44, -45], [-4, -42, -90]]) * s
    lower[1:3] += rng.normal(0, 3 * s, (2, 3))
    courses = {
        "ascending aorta": (ascending, 16.0, 15.0),
        "aortic arch": (arch, 14.0, 13.0),
        "descending aorta": (np.vstack([arch[-1], lower]), 12.5, 10.5),
    }
    parts = {
        name: tapered_curve(line, np.linspace(start, end, len(line)) * wide, 2.5)
        for name, (line, start, end) in courses.items()
    }
    return parts, arch
