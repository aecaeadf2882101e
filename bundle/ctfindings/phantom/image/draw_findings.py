"""The findings of a synthetic patient, drawn into a chest in a fixed order."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from bundle.ctfindings.findings import FINDING_NAMES, finding_index
from bundle.ctfindings.phantom.case import Site
from bundle.ctfindings.phantom.image import draw_lung_densities, draw_lung_structure, draw_outside_lung
from bundle.ctfindings.phantom.image.devices import draw_medical_material
from bundle.ctfindings.phantom.image.healthy_chest import Chest
from bundle.ctfindings.phantom.image.lung_field import Drawn, LungField

Renderer = Callable[[np.random.Generator, Any, float], Iterator[Drawn]]

# Drawn in this order: what fills air comes over what changes it, and dense things come last.
RENDERERS: dict[str, Renderer] = {
    "Cardiomegaly": draw_outside_lung.draw_cardiomegaly,
    "Emphysema": draw_lung_structure.draw_emphysema,
    "Mosaic attenuation pattern": draw_lung_structure.draw_mosaic,
    "Lung opacity": draw_lung_densities.draw_opacity,
    "Pulmonary fibrotic sequela": draw_lung_structure.draw_fibrosis,
    "Interlobular septal thickening": draw_lung_structure.draw_septal,
    "Consolidation": draw_lung_densities.draw_consolidation,
    "Atelectasis": draw_lung_densities.draw_atelectasis,
    "Peribronchial thickening": draw_lung_structure.draw_peribronchial,
    "Bronchiectasis": draw_lung_structure.draw_bronchiectasis,
    "Lung nodule": draw_lung_densities.draw_nodules,
    "Lymphadenopathy": draw_outside_lung.draw_lymphadenopathy,
    "Pleural effusion": draw_lung_densities.draw_pleural_effusion,
    "Pericardial effusion": draw_outside_lung.draw_pericardial_effusion,
    "Hiatal hernia": draw_outside_lung.draw_hiatal_hernia,
    "Arterial wall calcification": draw_outside_lung.draw_arterial_calcification,
    "Coronary artery wall calcification": draw_outside_lung.draw_coronary_calcification,
    "Medical material": draw_medical_material,
}


def draw_findings(
    rng: np.random.Generator,
    chest: Chest,
    labels: Sequence[int],
    severity: float | None = None,
    without: str | None = None,
) -> list[Site]:
    """Draws every finding whose label is 1, sets its bits and returns its sites in the order of ``FINDINGS``.

    All have the given severity, 0 to 1; each has its own when None. The finding ``without`` takes its random numbers
    and is erased again, so that the others are the same as beside it.
    """
    drawn: dict[str, list[Site]] = {}
    for name in RENDERERS:
        if labels[finding_index(name)] != 1:
            continue
        # Slight findings are the most frequent, and few are gross.
        grade = float(rng.beta(1.15, 1.75))
        with chest.canvas.restored() if name == without else nullcontext():
            sites = draw_finding(rng, chest, name, grade if severity is None else severity)
        drawn[name] = [] if name == without else sites
    return [site for name in FINDING_NAMES for site in drawn.get(name, [])]


def draw_finding(rng: np.random.Generator, field: LungField, name: str, severity: float) -> list[Site]:
    """Draws one finding, sets its bits and returns its sites. One too slight to fill a voxel is drawn again, graver.

    Args:
        field: a synthetic chest; the lungs alone for findings of the lung and the pleura.
    """
    parts: list[Drawn] = []
    while not parts:
        parts = [each for each in RENDERERS[name](rng, field, severity) if len(each.region)]
        severity = severity if parts else min(severity + 0.2, 1.0)
    sites = []
    for each in parts:
        field.canvas.mark(finding_index(name), each.region)
        shown = severity if each.severity is None else each.severity
        center = field.canvas.center(each.region)
        volume = len(each.region) * field.canvas.voxel**3 / 1000
        sites.append(Site(name, shown, each.side, each.location, each.kind, each.size_mm, each.count, center, volume))
    return sites
