"""Findings outside the lungs, and the order in which all 18 findings of a synthetic patient are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from bundle.ctfindings.findings import FINDING_NAMES, finding_index
from bundle.ctfindings.phantom.case import Site
from bundle.ctfindings.phantom.image.canvas import AORTA, BODY, ESOPHAGUS, HEART, LUNG, MEDIASTINUM, SIDES
from bundle.ctfindings.phantom.image.devices import draw_medical_material
from bundle.ctfindings.phantom.image.draw_lung_findings import (
    draw_atelectasis,
    draw_bronchiectasis,
    draw_consolidation,
    draw_emphysema,
    draw_fibrosis,
    draw_mosaic,
    draw_nodules,
    draw_opacity,
    draw_peribronchial,
    draw_pleural_effusion,
    draw_septal,
    span_mm,
)
from bundle.ctfindings.phantom.image.healthy_chest import Chest

Renderer = Callable[[np.random.Generator, Chest, float], tuple[list[Site], list[NDArray[np.int64]]]]


def draw_cardiomegaly(
    rng: np.random.Generator, chest: Chest, severity: float
) -> tuple[list[Site], list[NDArray[np.int64]]]:
    """The heart was drawn large with the chest; its mask is the finding's."""
    region = np.flatnonzero(chest.canvas.anatomy.reshape(-1) == HEART)
    share = (chest.patient.heart_scale - 1.3) / 0.3
    return [Site("Cardiomegaly", float(np.clip(share, 0, 1)), size_mm=span_mm(chest.canvas, region))], [region]


def draw_pericardial_effusion(
    rng: np.random.Generator, chest: Chest, severity: float
) -> tuple[list[Site], list[NDArray[np.int64]]]:
    """A shell of fluid around the heart, thicker at the back and below, where the fluid gathers."""
    canvas = chest.canvas
    box, heart = chest.heart_box, chest.heart
    y, z = canvas.y[box[0], box[1]], canvas.z[:, :, box[2]]
    thick = 6 + 15 * severity
    low = (
        1.0
        - 0.25 * np.clip((y - chest.heart_center[1]) / chest.heart_radii[1], -1, 1)
        - 0.25 * np.clip((z - chest.heart_center[2]) / 50, -1, 1)
    )
    distance = np.minimum(-heart, heart + thick * low.astype(np.float32))
    distance = np.minimum(distance, 0.85 * (z + 20 * chest.patient.size))
    # It rests on the diaphragm.
    distance = np.minimum(distance, chest.dome[box] + 7)
    ids = canvas.anatomy[box]
    free = (
        ((ids == LUNG) | (ids == MEDIASTINUM) | (ids == BODY))
        & (chest.wall[box] > 1)
        & (z < chest.heart_center[2] + 46 * chest.patient.size)
    )
    free &= (canvas.y[box[0], box[1]] > -48 * chest.patient.size) & (canvas.hu[box] < 120)
    share = canvas.coverage(distance) * free
    canvas.paint_box(box, share, float(rng.uniform(8, 20)), HEART)
    region = canvas.flat(box, share > 0.5)
    return [Site("Pericardial effusion", severity, size_mm=round(float(thick), 0))], [region]


def draw_arterial_calcification(
    rng: np.random.Generator, chest: Chest, severity: float
) -> tuple[list[Site], list[NDArray[np.int64]]]:
    """Plaques: arcs of 4 to 12 mm in the wall of the aorta, most often of the arch."""
    canvas = chest.canvas
    sites, regions = [], []
    parts = ["aortic arch"]
    parts += [
        name
        for name, share in (("descending aorta", 0.35 + 0.6 * severity), ("ascending aorta", 0.6 * severity))
        if rng.random() < share
    ]
    for part in parts:
        line, radii = chest.aorta[part]
        visible = np.flatnonzero((line[:, 2] > canvas.z[0, 0, 2]) & (line[:, 2] < canvas.z[0, 0, -3]))
        count = max(2, int(rng.poisson((3 + 13 * severity) * (1.0 if part == "aortic arch" else 0.7))))
        points, sizes = [], []
        for _ in range(count):
            at = int(rng.choice(visible[1:-1]))
            tangent = line[min(at + 1, len(line) - 1)] - line[max(at - 1, 0)]
            tangent /= np.linalg.norm(tangent)
            across = np.cross(tangent, [0.31, 0.9, 0.2])
            across /= np.linalg.norm(across)
            other = np.cross(tangent, across)
            arc = rng.uniform(4, 7 + 7 * severity) / radii[at]
            angle = rng.uniform(0, 2 * np.pi) + np.linspace(-arc / 2, arc / 2, 8)
            for slip in np.arange(-1.5, 1.6, 1.5) * (0.6 + severity):
                points.append(
                    line[at]
                    + slip * tangent
                    + radii[at] * (np.cos(angle)[:, None] * across + np.sin(angle)[:, None] * other)
                )
                sizes.append(np.full(8, rng.uniform(1.3, 1.7 + 0.8 * severity)))
        flat, share = canvas.balls(np.concatenate(points), np.concatenate(sizes))
        canvas.paint(flat, share, float(rng.uniform(550, 1000)))
        region = flat[share > 0.35]
        sites.append(
            Site("Arterial wall calcification", severity, location=part, count=count, center_mm=canvas.center(region))
        )
        regions.append(region)
    return sites, regions


def draw_coronary_calcification(
    rng: np.random.Generator, chest: Chest, severity: float
) -> tuple[list[Site], list[NDArray[np.int64]]]:
    """Dense spots of 3 to 10 mm along the coronary arteries, first of all the left anterior descending one."""
    canvas = chest.canvas
    names = ["left anterior descending artery"]
    names += [name for name in ("circumflex artery", "right coronary artery") if rng.random() < 0.2 + 0.7 * severity]
    sites, regions = [], []
    for name in names:
        line = chest.coronaries[name]
        points, count = [], max(1, int(rng.poisson(2.0 + 4 * severity)))
        for _ in range(count):
            length = int(rng.uniform(2, 4 + 5 * severity))
            start = int(rng.integers(4, max(5, int(len(line) * 0.75))))
            points.append(line[start : start + length])
        stacked = np.concatenate(points)
        flat, share = canvas.balls(stacked, rng.uniform(1.7, 2.0 + 0.9 * severity))
        canvas.paint(flat, share, float(rng.uniform(600, 1200)))
        region = flat[share > 0.35]
        sites.append(
            Site(
                "Coronary artery wall calcification",
                severity,
                location=name,
                count=count,
                center_mm=canvas.center(region),
            )
        )
        regions.append(region)
    return sites, regions


def draw_hiatal_hernia(
    rng: np.random.Generator, chest: Chest, severity: float
) -> tuple[list[Site], list[NDArray[np.int64]]]:
    """Stomach above the diaphragm behind the heart: a wall around fat, food, or gas over fluid."""
    canvas, s = chest.canvas, chest.patient.size
    width = (30 + 38 * severity + rng.uniform(-3, 3)) / 2
    radii = np.array([width * rng.uniform(0.95, 1.2), min(width * 0.85, 26), width * rng.uniform(0.9, 1.1)])
    center = [(-8 + rng.uniform(-6, 6)) * s, -46 * s + radii[1] * 0.95, 2 * s + 0.75 * radii[2]]
    box, distance = canvas.ellipsoid(center, radii, margin=4)
    distance = distance + 1.5 * canvas.smooth_noise(rng, 14.0, box)
    aorta = canvas.anatomy[box] == AORTA
    bone = (canvas.hu[box] > 120) & (canvas.anatomy[box] == BODY)
    free = ~(aorta | bone)
    share = canvas.coverage(distance) * free
    region = canvas.flat(box, share > 0.5)
    content = str(rng.choice(["fat", "soft tissue", "gas and fluid"], p=[0.25, 0.3, 0.45]))
    canvas.paint_box(box, share, 45.0, ESOPHAGUS)
    inner = canvas.coverage(distance - float(rng.uniform(3.5, 5.0))) * free
    if content == "fat":
        canvas.paint_box(box, canvas.coverage(distance - 1.5) * free, -92.0)
        core = canvas.coverage(distance - radii.min() * 0.62) * free
        canvas.paint_box(box, core, 40.0)
    elif content == "soft tissue":
        canvas.paint_box(box, inner, 28 + 35 * canvas.smooth_noise(rng, 8.0, box))
    else:
        level = center[1] + rng.uniform(-0.35, 0.3) * radii[1]
        canvas.paint_box(box, inner, 18.0)
        canvas.paint_box(box, inner * canvas.coverage(canvas.y[box[0], box[1]] - level), -960.0)
    site = Site(
        "Hiatal hernia", severity, kind=content, size_mm=span_mm(canvas, region), center_mm=canvas.center(region)
    )
    return [site], [region]


def draw_lymphadenopathy(
    rng: np.random.Generator, chest: Chest, severity: float
) -> tuple[list[Site], list[NDArray[np.int64]]]:
    """Enlarged nodes of 12 to 30 mm, alone or matted, at the stations of the mediastinum and the hila."""
    canvas, s = chest.canvas, chest.patient.size
    stations: dict[str, list[tuple[str | None, NDArray]]] = {
        "paratracheal": [("right", np.array([17, -4, 136]) * s)],
        "subcarinal": [(None, np.array([3, -24, 90]) * s)],
        "hilar": [(side, chest.hila[side] + np.array([4 * sign, -6, -10])) for side, sign in SIDES.items()],
        "prevascular": [("left", np.array([-16, 36, 118]) * s)],
    }
    names = rng.choice(
        list(stations), size=int(rng.integers(1, 3)) + int(severity > 0.5) + int(severity > 0.8), replace=False
    )
    hu = float(rng.uniform(65, 95) if chest.patient.contrast else rng.uniform(30, 48))
    sites, regions = [], []
    for name in names:
        for side, center in stations[str(name)]:
            if name == "hilar" and rng.random() < 0.35 and len(names) > 1:
                continue
            largest = float(np.clip(12 + 18 * severity + rng.uniform(-2, 3), 11, 32))
            count = int(rng.integers(1, 4)) + int(severity > 0.6)
            parts = []
            for number in range(count):
                size = largest * (1.0 if number == 0 else rng.uniform(0.55, 0.9)) / 2
                radii = size * np.array([rng.uniform(0.8, 1.0), rng.uniform(0.75, 1.0), 1.0])
                shift = np.zeros(3) if number == 0 else rng.normal(0, 1, 3) * np.array([0.6, 0.6, 1.0]) * largest
                box, distance = canvas.ellipsoid(center + shift, radii)
                ids = canvas.anatomy[box]
                keep = (ids == MEDIASTINUM) | (ids == LUNG) | (ids == HEART) & (chest.canvas.hu[box] < 0)
                # Large airways stay open between the nodes.
                keep &= ~((ids == MEDIASTINUM) & (canvas.hu[box] < -500))
                share = canvas.coverage(distance) * keep
                canvas.paint_box(box, share, hu, MEDIASTINUM)
                parts.append(canvas.flat(box, share > 0.5))
            region = np.unique(np.concatenate(parts))
            sites.append(
                Site("Lymphadenopathy", severity, side, str(name), None, round(largest), count, canvas.center(region))
            )
            regions.append(region)
    return sites, regions


# Drawn in this order: what fills air comes over what changes it, and dense things come last.
RENDERERS: dict[str, Renderer] = {
    "Cardiomegaly": draw_cardiomegaly,
    "Emphysema": draw_emphysema,
    "Mosaic attenuation pattern": draw_mosaic,
    "Lung opacity": draw_opacity,
    "Pulmonary fibrotic sequela": draw_fibrosis,
    "Interlobular septal thickening": draw_septal,
    "Consolidation": draw_consolidation,
    "Atelectasis": draw_atelectasis,
    "Peribronchial thickening": draw_peribronchial,
    "Bronchiectasis": draw_bronchiectasis,
    "Lung nodule": draw_nodules,
    "Lymphadenopathy": draw_lymphadenopathy,
    "Pleural effusion": draw_pleural_effusion,
    "Pericardial effusion": draw_pericardial_effusion,
    "Hiatal hernia": draw_hiatal_hernia,
    "Arterial wall calcification": draw_arterial_calcification,
    "Coronary artery wall calcification": draw_coronary_calcification,
    "Medical material": draw_medical_material,
}


def draw_findings(rng: np.random.Generator, chest: Chest, labels: Sequence[int]) -> list[Site]:
    """Draws every finding whose label is 1, sets its bits and returns its sites in the order of ``FINDINGS``."""
    drawn: dict[str, list[Site]] = {}
    for name, renderer in RENDERERS.items():
        finding = finding_index(name)
        if labels[finding] != 1:
            continue
        # Few findings are gross and few are hardly visible.
        severity = float(0.12 + 0.88 * rng.beta(1.6, 1.9))
        sites, regions = renderer(rng, chest, severity)
        for site, region in zip(sites, regions, strict=True):
            chest.canvas.mark(finding, region)
            if site.center_mm is None:
                site.center_mm = chest.canvas.center(region)
        drawn[name] = sites
    return [site for name in FINDING_NAMES for site in drawn.get(name, [])]
