"""The healthy chest of a synthetic patient: organs in HU, the anatomy mask, and where findings can be placed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bundle.ctfindings.phantom.image.canvas import (
    AORTA,
    BODY,
    ESOPHAGUS,
    HEART,
    LUNG,
    MEDIASTINUM,
    SIDES,
    Box,
    Canvas,
    Floats,
    curve,
)
from bundle.ctfindings.phantom.image.skeleton import draw_skeleton
from bundle.ctfindings.phantom.image.vessels import Branch, grow_tree
from bundle.ctfindings.phantom.patient import Patient


@dataclass
class Spots:
    """A sample of lung points to place findings at: body mm, depth under the lung surface, side, lobe, relative height."""

    points: Floats
    depth: Floats
    side: NDArray[np.str_]
    lobe: NDArray[np.str_]
    height: Floats


@dataclass
class Chest:
    """A drawn chest and the geometry that findings need.

    Attributes:
        lung: signed distance to the lung surface in mm, positive inside, approximate, (X, Y, Z).
        wall: depth under the inner chest wall in mm, (X, Y, Z).
        dome: height over the diaphragm in mm, (X, Y, Z).
        heart: signed distance to the outer heart surface in ``heart_box``.
        coronaries, aorta, esophagus: centre lines in body mm.
    """

    canvas: Canvas
    patient: Patient
    lung: Floats
    wall: Floats
    dome: Floats
    heart: Floats
    heart_box: Box
    heart_center: NDArray
    heart_radii: NDArray
    coronaries: dict[str, NDArray]
    aorta: dict[str, tuple[NDArray, NDArray]]
    esophagus: NDArray
    bronchi: list[Branch]
    arteries: list[Branch]
    spots: Spots
    lumen: tuple[NDArray[np.int64], Floats]
    vena_cava: NDArray
    base: Floats
    hila: dict[str, NDArray] = field(default_factory=dict)


def lobe_of(points: NDArray, size: float) -> NDArray[np.str_]:
    """Names of the lobes that body points (N, 3) lie in, from the planes of the fissures."""
    x, y, z = points.T / size
    lower = z < 48 - 0.78 * y
    anterior_low = z < 78
    name = np.where(
        lower, "lower lobe", np.where(anterior_low, np.where(x > 0, "middle lobe", "lingula"), "upper lobe")
    )
    return name.astype(str)


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
    fat_2d = patient.fat_mm * (
        0.75
        + 0.5 * np.clip(np.abs(x) / cage_x, 0, 1) ** 2
        + 0.35 * np.clip(y / 80, -1, 1) * (1 if patient.sex == "F" else 0.3)
    )
    breadth = np.maximum(taper, 0.80 - 0.12 * np.clip((z - 0.92 * apex) / 40, 0, 1)).astype(np.float32)
    torso = (breadth - outline.astype(np.float32)) * radius2d + muscle
    skin = torso + fat_2d.astype(np.float32)
    inside = canvas.coverage(skin)
    texture = canvas.smooth_noise(rng, 14.0)
    hu = canvas.hu
    hu += inside * (fat + 12 * texture + 1000)
    rim = inside * (skin < 2.2)
    hu += rim * (0.5 * (10 - fat))
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
    profile = (
        np.interp(y[:, :, 0] / s, [-95, -62, -45, -5, 25, 52, 90], [27, 25, 21, 27, 24, 8, 5]).astype(np.float32)[
            :, :, None
        ]
        * s
    )
    profile = profile * float(rng.uniform(0.9, 1.15))
    gap = profile * (1 + 0.25 * np.clip((z - 140 * s) / (60 * s), 0, 1)).astype(np.float32)
    lung = np.minimum(np.minimum(wall - 2.0, dome), np.abs(x) - gap)

    # The heart: four overlapping ellipsoids along an axis to the left, front and below.
    h = s * patient.heart_scale
    center = np.array(
        [-16 * s - 12 * s * (patient.heart_scale - 1), 20 * s, 34 * s + 14 * s * (patient.heart_scale - 1)]
    )
    frame = np.array([[-0.80, 0.45, -0.40], [0.50, 0.87, 0.0], [0.35, -0.20, 0.92]])
    frame /= np.linalg.norm(frame, axis=1, keepdims=True)
    parts = {
        "left ventricle": (np.array([-24, -2, -6]) * h, np.array([46, 34, 33]) * h, frame),
        "right ventricle": (np.array([4, 20, -6]) * h, np.array([44, 27, 33]) * h, frame),
        "right atrium": (np.array([34, 2, 2]) * h, np.array([23, 27, 32]) * h, None),
        "left atrium": (np.array([6, -28, 20]) * h, np.array([33, 20, 21]) * h, None),
    }
    heart_radii = np.array([66, 58, 52]) * h
    reach = heart_radii + 36 * s
    heart_box = canvas.box(center, reach)
    heart = np.full(tuple(part.stop - part.start for part in heart_box), -99, np.float32)
    chambers: dict[str, Floats] = {}
    for name, (shift, radii, axes) in parts.items():
        at = center + shift
        bx, by, bz = (
            x[heart_box[0], heart_box[1]] - at[0],
            y[heart_box[0], heart_box[1]] - at[1],
            z[:, :, heart_box[2]] - at[2],
        )
        axes = np.eye(3) if axes is None else axes
        square = sum(
            ((axes[a, 0] * bx + axes[a, 1] * by + axes[a, 2] * bz) / radii[a]).astype(np.float32) ** 2 for a in range(3)
        )
        chambers[name] = (1 - np.sqrt(square)) * np.float32(np.cbrt(np.prod(radii)))
        heart = np.maximum(heart, chambers[name])
    # Keeps the heart in the chest: in front of the spine, behind the sternum, on the diaphragm.
    heart = np.minimum(heart, wall[heart_box] - 3)
    heart = np.minimum(heart, y[heart_box[0], heart_box[1]] + 42 * s)
    heart = np.minimum(heart, 0.8 * (z[:, :, heart_box[2]] + 14 * s))
    lung[heart_box] = np.minimum(lung[heart_box], -heart - 1.5)

    cavity = wall > 0
    canvas.anatomy[cavity & (dome > 0)] = MEDIASTINUM
    hu += canvas.coverage(wall) * (fat + 12 * texture - hu)
    _abdomen(rng, canvas, patient, wall, dome, soft)
    share = canvas.coverage(lung)
    gravity = np.clip((-y - 5) / 80, -0.9, 1) * float(rng.uniform(15, 45))
    patchy = canvas.smooth_noise(rng, 32.0)
    base = (patient.lung_hu + gravity).astype(np.float32) + np.float32(9) * patchy + np.float32(7) * texture
    hu += share * (base - hu)
    canvas.anatomy[lung > 0] = LUNG

    _heart(rng, canvas, patient, heart, heart_box, chambers, fat, soft)
    aorta, vena_cava, hila, esophagus = _great_vessels(rng, canvas, patient, center, h, soft)
    lung = np.where(canvas.anatomy == LUNG, lung, np.minimum(lung, -0.5))
    spots = _spots(rng, canvas, lung, s)
    bronchi, arteries, lumen = _trees(rng, canvas, patient, spots, hila, soft)
    draw_skeleton(rng, canvas, patient, cage_x, cage_front, cage_back, taper)
    coronaries = _coronaries(center, h)
    return Chest(
        canvas, patient, lung, wall, dome, heart, heart_box, center, heart_radii, coronaries, aorta, esophagus, bronchi, arteries,
        spots, lumen, vena_cava, base, hila,
    )  # fmt: skip


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
        x, y, z = (
            canvas.x[low[0], low[1]] - center[0],
            canvas.y[low[0], low[1]] - center[1],
            canvas.z[:, :, low[2]] - center[2],
        )
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


def _heart(
    rng: np.random.Generator,
    canvas: Canvas,
    patient: Patient,
    heart: Floats,
    box: Box,
    chambers: dict[str, Floats],
    fat: float,
    soft: float,
) -> None:
    """Epicardial fat, muscle and the blood of the chambers."""
    inside = canvas.coverage(heart)
    canvas.paint_box(box, inside, soft - 6, HEART)
    cushion = float(rng.uniform(2.5, 6.5)) + 2.2 * canvas.smooth_noise(rng, 25.0, box)
    epicardial = canvas.coverage(heart - 1.3) * canvas.coverage(cushion - heart)
    canvas.paint_box(box, epicardial, fat + 15)
    left, right = patient.blood_hu
    for name, blood, muscle in (
        ("right ventricle", right, 8.0),
        ("right atrium", right, 5.0),
        ("left ventricle", left, 13.0),
        ("left atrium", left, 5.0),
    ):
        cavity = np.minimum(chambers[name] - muscle, heart - muscle)
        canvas.paint_box(box, canvas.coverage(cavity), blood)


def _great_vessels(
    rng: np.random.Generator, canvas: Canvas, patient: Patient, center: NDArray, h: float, soft: float
) -> tuple[dict[str, tuple[NDArray, NDArray]], NDArray, dict[str, NDArray], NDArray]:
    """Aorta, pulmonary trunk, caval veins, arch branches, trachea excepted; returns the centre lines."""
    s = patient.size
    left, right = patient.blood_hu
    wide = float(rng.uniform(0.9, 1.15)) * (1 + 0.004 * (patient.age - 55)) * s
    wiggle = lambda scale: rng.normal(0, scale * s, 3)  # noqa: E731
    top = 132 * s + rng.uniform(-6, 6)
    root = center + np.array([14, 2, 22]) * s
    ascending = np.array(
        [root, [8 * s, 26 * s, 82 * s], [12 * s, 24 * s, 105 * s], [8 * s, 14 * s, top - 6 * s]]
    ) + np.vstack([np.zeros(3), wiggle(2), wiggle(2), np.zeros(3)])
    arch = np.array([ascending[-1], [-4 * s, 2 * s, top], [-16 * s, -18 * s, top], [-24 * s, -34 * s, top - 14 * s]])
    descending = np.array(
        [
            arch[-1],
            [-27 * s, -46 * s, 98 * s],
            [-26 * s, -50 * s, 55 * s] + wiggle(3),
            [-18 * s, -47 * s, 5 * s] + wiggle(3),
            [-6 * s, -44 * s, -45 * s],
            [-4 * s, -42 * s, -90 * s],
        ]
    )
    aorta: dict[str, tuple[NDArray, NDArray]] = {}
    for name, line, start, end in (
        ("ascending aorta", ascending, 16.0, 15.0),
        ("aortic arch", arch, 14.0, 13.0),
        ("descending aorta", descending, 12.5, 10.5),
    ):
        points, radii = curve(line, 2.5, np.linspace(start, end, len(line)) * wide)
        assert radii is not None
        aorta[name] = (points, radii)

    def tube(line: list, radius: float | list, hu: float, anatomy: int = MEDIASTINUM, wall: float = 0.0) -> NDArray:
        points, radii = curve(
            line,
            2.0,
            np.interp(np.linspace(0, 1, len(line)), np.linspace(0, 1, np.size(radius)), np.atleast_1d(radius)) * s,
        )
        flat, share = canvas.balls(points, np.asarray(radii) + wall)
        if anatomy == MEDIASTINUM:
            keep = canvas.anatomy.reshape(-1)[flat] != HEART
            flat, share = flat[keep], share[keep]
        canvas.paint(flat, share, hu, anatomy)
        return points

    # Veins first, then arteries over them.
    line_x = 30 * s + rng.normal(0, 2 * s)
    vena_cava = tube(
        [
            [20 * s, 12 * s, 190 * s],
            [24 * s, 18 * s, 160 * s],
            [line_x, 16 * s, 128 * s],
            [line_x, 10 * s, 96 * s],
            [line_x, 8 * s, 62 * s],
        ],
        [6.5, 9.5],
        right,
    )
    tube(
        [[-60 * s, 22 * s, 196 * s], [-28 * s, 30 * s, 168 * s], [4 * s, 30 * s, 155 * s], [24 * s, 20 * s, 148 * s]],
        6.0,
        right,
    )
    tube([[72 * s, 18 * s, 194 * s], [40 * s, 14 * s, 180 * s], [22 * s, 14 * s, 170 * s]], 6.0, right)
    tube([[24 * s, 0, 30 * s], [22 * s, -6 * s, -5 * s], [18 * s, -14 * s, -90 * s]], 11.0, right * 0.6 + 18, BODY)
    tube(
        [
            [8 * s, -46 * s, -80 * s],
            [9 * s, -46 * s, 60 * s],
            [12 * s, -42 * s, 110 * s],
            [24 * s, -12 * s, 118 * s],
            [line_x, 6 * s, 112 * s],
        ],
        3.6,
        right * 0.5 + 20,
    )
    trunk = [center + np.array([-14, 12, 30]) * s, [-18 * s, 28 * s, 84 * s], [-18 * s, 10 * s, 98 * s]]
    tube(trunk, 13.0, right)
    hila = {"right": np.array([46 * s, -14 * s, 86 * s]), "left": np.array([-46 * s, -16 * s, 92 * s])}
    tube([trunk[-1], [6 * s, -2 * s, 94 * s], [26 * s, -8 * s, 92 * s], hila["right"]], [12.0, 8.0], right)
    tube([trunk[-1], [-30 * s, -6 * s, 100 * s], hila["left"]], [12.0, 8.5], right)
    for target in ([20 * s, 10 * s, 190 * s], [-8 * s, 2 * s, 200 * s], [-26 * s, -10 * s, 200 * s]):
        begin = arch[0] * 0.5 + arch[1] * 0.5 if target[0] > 0 else (arch[1] if target[0] > -10 else arch[2])
        tube([begin, (begin + np.array(target)) / 2 + np.array([0, 3, 0]), target], [6.0, 4.2], left)
    for points, radii in aorta.values():
        flat, share = canvas.balls(points, radii)
        canvas.paint(flat, share, left, AORTA)
        flat, share = canvas.balls(points, radii + 1.5)
        ring = canvas.anatomy.reshape(-1)[flat] == LUNG
        canvas.paint(flat[ring], share[ring], soft, AORTA)
    esophagus = np.array(
        [
            [-3 * s, -26 * s, 225 * s],
            [-4 * s, -32 * s, 160 * s],
            [-4 * s, -36 * s, 110 * s],
            [-2 * s, -36 * s, 70 * s],
            [-5 * s, -34 * s, 30 * s],
            [-14 * s, -26 * s, 2 * s],
            [-28 * s, -12 * s, -22 * s],
        ]
    ) + np.concatenate([[[0, 0, 0]], rng.normal(0, 1.5 * s, (6, 3))])
    points = tube(list(esophagus), [6.0, 6.5, 7.5], soft - 5, ESOPHAGUS)
    if rng.random() < 0.5:
        start = int(rng.integers(0, len(points) // 2))
        bubble = points[start : start + int(rng.integers(3, 22))]
        flat, share = canvas.balls(bubble, float(rng.uniform(2.0, 4.0)))
        canvas.paint(flat, share, -800)
    return aorta, vena_cava, hila, points


def _spots(rng: np.random.Generator, canvas: Canvas, lung: Floats, size: float) -> Spots:
    flat = np.flatnonzero(lung.reshape(-1) > 1.5)
    flat = rng.choice(flat, 12000)
    points = canvas.body(flat)
    heights = points[:, 2]
    return Spots(
        points=points,
        depth=lung.reshape(-1)[flat],
        side=np.where(points[:, 0] > 0, "right", "left"),
        lobe=lobe_of(points, size),
        height=((heights - heights.min()) / (heights.max() - heights.min())).astype(np.float32),
    )


def _trees(
    rng: np.random.Generator, canvas: Canvas, patient: Patient, spots: Spots, hila: dict[str, NDArray], soft: float
) -> tuple[list[Branch], list[Branch], tuple[NDArray[np.int64], Floats]]:
    """Trachea, bronchi, pulmonary arteries and veins; returns the bronchi, the arteries and the air in the bronchi."""
    s = patient.size
    carina = np.array([2 * s, -18 * s, 112 * s])
    trachea = np.array([[2 * s, -8 * s, 225 * s], [2 * s, -12 * s, 165 * s], carina]) + np.array(
        [rng.normal(0, 3 * s), 0, 0]
    ) * np.array([[1], [0.5], [0]])
    bronchi: list[Branch] = []
    arteries: list[Branch] = []
    vessels: list[Branch] = []
    for side, sign in SIDES.items():
        here = spots.side == side
        points = spots.points[here]
        depth = spots.depth[here]
        hilum = hila[side] + np.array([0, -6, -4 if side == "left" else 2]) * s
        inner = rng.permutation(np.flatnonzero(depth > 10))[:34]
        bronchi += grow_tree(points[inner], [carina, hilum], root_mm=5.8 * s, leaf_mm=1.3, side=side, step=9.0)
        outer = rng.permutation(np.flatnonzero(depth > 3))[:180]
        arteries += grow_tree(
            points[outer],
            [hila[side], hila[side] + np.array([sign * 10, -4, -12]) * s],
            root_mm=8.0 * s,
            leaf_mm=0.85,
            side=side,
            step=8.0,
        )
        low = hila[side] + np.array([-sign * 6, -4, -30]) * s
        veins = rng.permutation(np.flatnonzero(depth > 4))[:90]
        vessels += grow_tree(
            points[veins],
            [low - np.array([sign * 14, 0, 4]) * s, low],
            root_mm=6.0 * s,
            leaf_mm=0.85,
            side=side,
            step=9.0,
        )
    blood = patient.blood_hu[1]
    drawn = arteries + vessels
    flat, share = canvas.balls(np.concatenate([b.points for b in drawn]), np.concatenate([b.radii for b in drawn]))
    ids = canvas.anatomy.reshape(-1)[flat]
    keep = (ids == LUNG) | (ids == MEDIASTINUM)
    canvas.paint(flat[keep], share[keep], blood)

    tracheal, _ = curve(trachea, 2.0)
    lines = [tracheal] + [b.points for b in bronchi]
    radii = [np.full(len(tracheal), 8.8 * s)] + [b.radii for b in bronchi]
    points, sizes = np.concatenate(lines), np.concatenate(radii)
    # Walls under a millimetre hardly show outside the mediastinum.
    flat, share = canvas.balls(points, sizes + np.clip(0.28 * sizes, 0.5, 1.8))
    ids = canvas.anatomy.reshape(-1)[flat]
    keep = ids != AORTA
    flat, share = flat[keep], share[keep]
    canvas.paint(flat, share * np.where(ids[keep] == LUNG, 0.55, 1.0).astype(np.float32), soft - 15)
    flat, share = canvas.balls(points, sizes)
    keep = canvas.anatomy.reshape(-1)[flat] != AORTA
    flat, share = flat[keep], share[keep]
    canvas.paint(flat, share, -970)
    return bronchi, arteries, (flat, share)


def _coronaries(center: NDArray, h: float) -> dict[str, NDArray]:
    """Courses of the coronary arteries in the grooves of the heart surface."""
    root = center + np.array([6, 6, 27]) * h
    lad = np.array(
        [
            root,
            center + np.array([-14, 18, 26]) * h,
            center + np.array([-24, 30, 12]) * h,
            center + np.array([-36, 38, -4]) * h,
            center + np.array([-48, 36, -18]) * h,
        ]
    )
    circumflex = np.array(
        [
            root,
            center + np.array([-20, -4, 28]) * h,
            center + np.array([-36, -20, 20]) * h,
            center + np.array([-40, -32, 4]) * h,
        ]
    )
    right = np.array(
        [
            root + np.array([4, 6, -2]) * h,
            center + np.array([28, 28, 16]) * h,
            center + np.array([34, 26, -2]) * h,
            center + np.array([26, 14, -26]) * h,
        ]
    )
    return {
        "left anterior descending artery": curve(lad, 1.5)[0],
        "circumflex artery": curve(circumflex, 1.5)[0],
        "right coronary artery": curve(right, 1.5)[0],
    }
