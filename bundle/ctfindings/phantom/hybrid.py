"""Hybrid scans: findings of the phantom, drawn into a real chest with the noise of that scan.

The idea is that of synthetic tumours (Hu et al., CVPR 2023, https://arxiv.org/abs/2303.14869).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bundle.ctfindings.findings import finding_index
from bundle.ctfindings.phantom.case import Site
from bundle.ctfindings.phantom.image.canvas import AORTA, HEART, LUNG, Canvas, Floats
from bundle.ctfindings.phantom.image.draw_findings import draw_finding
from bundle.ctfindings.phantom.image.lung_field import core
from bundle.ctfindings.phantom.image.lungs_of_scan import lungs_of_scan
from bundle.ctfindings.scan.body_mask import to_upright

HYBRID_FINDINGS = ("Lung nodule", "Lung opacity", "Consolidation", "Emphysema", "Atelectasis", "Pleural effusion")
"""Findings that need nothing of a scan but its lungs."""
ORGAN_FINDINGS = {"Arterial wall calcification": AORTA, "Coronary artery wall calcification": HEART}
"""Findings on the surface of an organ, which need its mask."""
DIFFUSE = ("Emphysema",)
"""Findings that change the lung around what their mask shows."""
EDGE_MM = 12.0
"""Every other finding changes nothing further from its mask."""
TISSUE_HU = (-30.0, 130.0)
"""Soft tissue, in which the noise of a scan is measured."""
PART_SOLID = 0.12
"""Share of the drawn nodules that are part-solid; the synthetic scans have none."""


class Noise(NamedTuple):
    """Noise of a scan: standard deviation in HU, and correlation of neighbours along X, Y and Z."""

    sd: float
    correlation: tuple[float, float, float]


class Hybrid(NamedTuple):
    """A scan with a finding drawn into it."""

    hu: NDArray[np.int16]  # (X, Y, Z), axes to right, front and head
    mask: NDArray[np.bool_]  # voxels of the finding, the same grid
    sites: list[Site]  # as of the phantom, ``center_mm`` in RAS mm


class HybridBase:
    """A scan that findings are drawn into.

    What is drawn replaces a share of each voxel, and with it the same share of its noise, which is put back. The share
    is measured: the finding is drawn a second time into the scan with 1 HU added, and what remains of the addition
    remains of the scan.

    Args:
        hu: HU (X, Y, Z), axes to right, front and head, as ``upright`` gives it.
        affine: voxel index to RAS mm, (4, 4).
        anatomy: mask ids of ``anatomy.toml``, the same grid: the lungs, and the organs for ``ORGAN_FINDINGS``.

    Raises:
        ValueError: if a lung is missing.
    """

    def __init__(self, hu: NDArray[Any], affine: NDArray[np.float64], anatomy: NDArray[np.integer]) -> None:
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        self.hu = np.rint(hu).astype(np.int16)
        self.affine = affine
        self.field, self.box = lungs_of_scan(np.random.default_rng(0), hu, spacing, anatomy == LUNG)
        self.field.part_solid = PART_SOLID
        self.organs = anatomy[self.box]
        self._before = self.field.canvas.hu.copy()
        self._lungs = self.field.canvas.anatomy.copy()
        self.noise = noise_of(self._before)

    def insert(self, finding: str, seed: Sequence[int] | int, severity: float) -> Hybrid:
        """The scan with a finding; the same arguments always give the same scan.

        Args:
            finding: one of ``HYBRID_FINDINGS`` or ``ORGAN_FINDINGS``.
            seed: of everything that is drawn.
            severity: 0 (barely visible) to 1 (gross).

        Raises:
            ValueError: if the finding cannot be drawn into a scan, or its organ is not in the mask.
        """
        if finding not in (*HYBRID_FINDINGS, *ORGAN_FINDINGS):
            raise ValueError(f"finding {finding!r}: expected one of {', '.join((*HYBRID_FINDINGS, *ORGAN_FINDINGS))}")
        canvas, base, parts = self.field.canvas, self._before, np.atleast_1d(seed)
        drawn: list[Floats] = []
        sites: list[Site] = []
        for raised in (1.0, 0.0):
            canvas.hu[:], canvas.anatomy[:], canvas.bits[:] = base + np.float32(raised), self._lungs, 0
            rng = np.random.default_rng([*parts, 1])
            if finding in ORGAN_FINDINGS:
                sites = _calcify(rng, canvas, self.organs == ORGAN_FINDINGS[finding], finding, severity)
            else:
                sites = draw_finding(rng, self.field, finding, severity)
            drawn.append(canvas.hu.copy())
        found = (canvas.bits >> finding_index(finding) & 1).astype(np.uint8)
        changed = np.abs(drawn[1] - base) > 0.5
        if finding not in DIFFUSE:
            # A layer that ends on the chest wall would leave a trace of partial volume along the whole wall.
            changed &= ndimage.maximum_filter(found, 1 + 2 * np.ceil(EDGE_MM / canvas.spacing).astype(int)) > 0
        kept = np.clip(drawn[0] - drawn[1], 0, 1)
        grain = noise_like(np.random.default_rng([*parts, 2]), base.shape, self.noise)
        result = np.clip(drawn[1] + np.sqrt(1 - kept**2) * grain, -1024, 3071)
        hu = self.hu.copy()
        hu[self.box][changed] = np.rint(result[changed]).astype(np.int16)
        mask = np.zeros(hu.shape, bool)
        mask[self.box] = found
        return Hybrid(hu, mask, [self._in_world(site) for site in sites])

    def _in_world(self, site: Site) -> Site:
        """A site with its centre in the world of the scan; the canvas has the body's own."""
        if site.center_mm is None:
            return site
        canvas = self.field.canvas
        index = (np.array(site.center_mm) - canvas.affine[:3, 3]) / canvas.spacing
        world = self.affine[:3, :3] @ (index + [part.start for part in self.box]) + self.affine[:3, 3]
        x, y, z = (round(float(value), 1) for value in world)
        return replace(site, center_mm=(x, y, z))


def upright(hu: NDArray[Any], affine: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """A scan with its axes to right, front and head, and its affine to RAS mm."""
    turn = nib.orientations.io_orientation(affine)
    return to_upright(hu, affine)[0], affine @ nib.orientations.inv_ornt_aff(turn, hu.shape)


def noise_of(hu: Floats) -> Noise:
    """The noise of a scan, from what a local mean leaves of its soft tissue; none where there is no such tissue."""
    tissue = (hu > TISSUE_HU[0]) & (hu < TISSUE_HU[1])
    tissue = ndimage.binary_erosion(tissue, np.ones((5, 5, 1), bool))
    rest = hu - ndimage.uniform_filter(hu, (5, 5, 1))
    if np.count_nonzero(tissue) < 1000:
        return Noise(0.0, (0.0, 0.0, 0.0))
    variance = float(np.mean(rest[tissue] ** 2))
    found = []
    for axis in range(3):
        near, far = np.moveaxis(rest, axis, 0)[:-1], np.moveaxis(rest, axis, 0)[1:]
        both = np.moveaxis(tissue, axis, 0)[:-1] & np.moveaxis(tissue, axis, 0)[1:]
        found.append(float(np.mean(near[both] * far[both])) / max(variance, 1e-6) if both.any() else 0.0)
    # The mean over n voxels that is subtracted takes 1/n of the variance of white noise with it.
    return Noise(float(np.sqrt(variance / (1 - 1 / 25))), (found[0], found[1], found[2]))


def noise_like(rng: np.random.Generator, shape: tuple[int, ...], noise: Noise) -> Floats:
    """Noise of this standard deviation and these correlations of neighbours."""
    field = rng.standard_normal(shape, np.float32)
    for axis, correlation in enumerate(noise.correlation):
        limited = float(np.clip(correlation, -0.7, 0.7))
        # Two neighbours that share taps (a, 1, a) correlate by 2a / (1 + 2a^2).
        share = 0.0 if abs(limited) < 1e-3 else (1 - np.sqrt(1 - 2 * limited**2)) / (2 * limited)
        field = ndimage.convolve1d(field, np.array([share, 1.0, share]) / np.sqrt(1 + 2 * share**2), axis)
    return field * np.float32(noise.sd)


def _calcify(
    rng: np.random.Generator, canvas: Canvas, organ: NDArray[np.bool_], finding: str, severity: float
) -> list[Site]:
    """Plaques of 2 to 14 mm on the surface of an organ; for the coronary arteries, on the upper half of the heart."""
    surface = organ & ~ndimage.binary_erosion(organ)
    points = canvas.body(np.flatnonzero(surface.reshape(-1)))
    if len(points) == 0:
        raise ValueError(f"{finding}: its organ is not in the anatomy mask; add it, or leave the finding out")
    if ORGAN_FINDINGS[finding] == HEART:
        points = points[points[:, 2] >= np.median(points[:, 2])]
    count = max(1, int(rng.poisson(1 + 9 * severity)))
    chosen, radii = [], []
    for start in points[rng.integers(len(points), size=count)]:
        direction = rng.normal(0, 1, 3)
        away = points - start
        along = away @ (direction / np.linalg.norm(direction))
        near = np.linalg.norm(away, axis=1) < rng.uniform(2, 4 + 10 * severity) / 2
        narrow = np.abs(along) < 1.0 + 1.5 * severity
        chosen.append(np.vstack([start, points[near & narrow]]))
        radii.append(np.full(len(chosen[-1]), rng.uniform(0.9, 1.2 + 1.3 * severity)))
    flat, share = canvas.paint_balls(np.concatenate(chosen), np.concatenate(radii), float(rng.uniform(350, 1100)))
    region = core(flat, share, 0.15)
    canvas.mark(finding_index(finding), region)
    volume = len(region) * canvas.voxel**3 / 1000
    return [Site(finding, severity, count=count, center_mm=canvas.center(region), volume_ml=volume)]
